"""Decodes latents of any length in constant memory.

The samples of latents [i, j) depend on latents [i - h, j + h) alone, with h the
codec's `decoder_halo`. So latents are decoded in windows of one width,

  w = chunk + 2 h,   the k-th starts at clip(k chunk - h, 0, t - w),

of which the samples of latents [k chunk, (k + 1) chunk) are kept. No window
reaches beyond the latents: the first begins and the last ends where they do,
where each layer pads with zeros as it does in `decode`. So the result equals
that of `decode`, and all windows have one shape, which is compiled once.

A codec may name the stages of its decoder, `decoder_stages`, each with its own
halo: then each stage decodes all windows before the next begins, and only the
first pays for a wide halo. What stages pass on is kept for the whole sound.
"""

from collections.abc import Iterator
import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.basics import scratch
from v2a_jax.codec.base import LatentCodec, Stage

CHUNK = 512  # latents: 12 to 20 seconds at 43 to 25 Hz


def stream(
  codec: LatentCodec, latents, *, chunk: int = CHUNK
) -> Iterator[np.ndarray]:
  """Yields consecutive pieces of a waveform, float32 [b, samples, channels].

  Args:
    codec: codec whose decoder is used.
    latents: latents float [b, t, c], or codes int [b, t, q].
    chunk: latents per piece; what is no longer than this and twice the halo is
      decoded in one piece.

  Raises:
    ValueError: `chunk` is not positive.
  """
  if chunk < 1:
    raise ValueError(f"stream: chunk={chunk} latents; give at least 1.")
  whole = Stage("decode", codec.decoder_halo, codec.config.hop)
  *stages, last = getattr(codec, "decoder_stages", (whole,))
  split, x = nnx.split(codec), np.asarray(latents)
  for stage in stages:
    x = np.concatenate(list(_windows(split, stage, x, chunk)), axis=1)
    chunk *= stage.factor
  yield from _windows(split, last, x, chunk)


def _windows(split, stage: Stage, x, chunk: int) -> Iterator[np.ndarray]:
  """Yields what a stage makes of each `chunk` steps of x [b, t, c]."""
  halo, factor, total = stage.halo, stage.factor, x.shape[1]
  width = min(chunk + 2 * halo, total)
  step = chunk if width < total else total
  for start in range(0, total, step):
    first = min(max(start - halo, 0), total - width)
    window = _run(*split, stage.method, x[:, first : first + width])
    kept = slice((start - first) * factor, (start - first + step) * factor)
    yield np.asarray(window)[:, kept]


def decode(codec: LatentCodec, latents, *, chunk: int = CHUNK) -> np.ndarray:
  """Joins the pieces of `stream`: float32 [b, t hop, channels]."""
  config, (b, t) = codec.config, np.shape(latents)[:2]
  out, end = scratch.empty((b, t * config.hop, config.channels)), 0
  for piece in stream(codec, latents, chunk=chunk):
    begin, end = end, end + piece.shape[1]
    out[:, begin:end] = piece
  return out


@functools.partial(jax.jit, static_argnums=(0, 2))
def _run(graphdef, state, method, x):
  codec = nnx.merge(graphdef, state)
  if jnp.issubdtype(x.dtype, jnp.integer):
    x = codec.dequantize(x)
  return getattr(codec, method)(x)
