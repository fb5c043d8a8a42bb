"""Pictures and sounds as the judge takes them, plain or as they may be filmed."""

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np
import soxr

from v2a_jax.sync.network import FPS, RATE

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def shown(frame_times: jax.Array, frame_mask: jax.Array, times: jax.Array):
  """Finds the frame that is nearest to each time.

  Early and late ones balance, so pictures of any frame rate keep their time.

  Args:
    frame_times: seconds [n], ascending where `frame_mask` holds.
    frame_mask: bool [n].
    times: seconds [m].

  Returns:
    (index [m], mask [m]): the frame, and whether the picture has begun and not
    ended.
  """
  apart = jnp.abs(frame_times - times[:, None])
  index = jnp.argmin(jnp.where(frame_mask, apart, jnp.inf), axis=1)
  there = jnp.where(frame_mask, frame_times, -jnp.inf).max() + 1.5 / FPS
  return index, (times < there) & (times > -0.5 / FPS)


def mono(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
  """Mixes [samples channels] down and resamples it to `RATE`; float32."""
  mixed = waveform.mean(axis=1, dtype=np.float32)
  if sample_rate == RATE:
    return mixed
  return soxr.resample(mixed, sample_rate, RATE, quality="HQ")


@struct.dataclass
class Framing:
  """Which part of a picture is seen, in heights and widths of it.

  Attributes:
    centre: [n 2], y and x of the middle of what is seen, frame by frame.
    scale: [2], its height and width; negative for a mirrored one.
    blur: factor, from 1, on the width of the kernel.
  """

  centre: jax.Array
  scale: jax.Array
  blur: jax.Array


def whole(n: int) -> Framing:
  """Sees all of n frames."""
  return part(n)


def mirrored(n: int) -> Framing:
  """Sees all of n frames, left as right."""
  return part(n, scale=(1.0, -1.0))


def part(n: int, *, centre=(0.5, 0.5), scale=(1.0, 1.0)) -> Framing:
  """Sees a part of n frames that does not move; see `Framing`."""
  centre = jnp.broadcast_to(jnp.asarray(centre, jnp.float32), (n, 2))
  return Framing(centre, jnp.broadcast_to(jnp.asarray(scale), (2,)), 1.0)


def look(frames: jax.Array, framing: Framing, pixels: int) -> jax.Array:
  """Resamples uint8 [n h w 3] to grey [n pixels pixels] in [0, 1].

  A triangular kernel as wide as a pixel of the result, or of the picture if
  that is wider; beyond the picture its edge goes on.
  """
  grey = frames.astype(jnp.float32) @ (np.array(_LUMA, np.float32) / 255)
  rows, columns = (
    _weights(framing, axis, grey.shape[1 + axis], pixels) for axis in range(2)
  )
  return jnp.einsum("npy,nyx,nqx->npq", rows, grey, columns)


def _weights(framing: Framing, axis: int, size: int, pixels: int) -> jax.Array:
  """Returns the share [n, pixels, size] of each pixel in each of the result."""
  centre, scale = framing.centre[:, axis, None], framing.scale[axis]
  across = (jnp.arange(pixels) + 0.5) / pixels - 0.5
  at = (centre + across * scale) * size - 0.5
  at = jnp.clip(at, 0, size - 1)[..., None]
  width = jnp.maximum(jnp.abs(scale) * size / pixels, 1.0) * framing.blur
  share = jnp.maximum(1 - jnp.abs(at - jnp.arange(size)) / width, 0)
  return share / share.sum(-1, keepdims=True)
