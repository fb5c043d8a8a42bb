"""A network that says how far a sound is from its picture, from both alone.

Pixels and sound each become features a(t), v(t) on one grid of 20 ms, and

  r_k(lag) = sum_t a_k(t + lag) v_k(t) / sqrt(sum_t a_k(t)^2  sum_t v_k(t)^2)

is the correlation of each of K features at each lag of -480 to 480 ms, with
features less their mean. A small convolution over lags turns the K curves into
a logit for each lag, and one for "neither belongs to the other". As the same
weights see all lags, a network that has learned one offset knows all of them,
and sound that moves moves the answer. Positive lags are late sounds.

The picture is grey, at the frame rate that it is shown at, with the differences
to the frames around each; the sound a log-mel spectrum relative to its loudest
band. Offsets as classes over pairs of towers: Chung and Zisserman, "Out of
time", 2016; Iashin et al., "Synchformer", arXiv:2401.16423.
"""

import dataclasses
from typing import ClassVar

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.basics import settings
from v2a_jax.pretrained import spectrum

FPS = 25.0
HOP = 160  # samples of the spectrum
STEP = 2 * HOP  # samples of the grid that pictures and sounds meet on
RATE = 16_000
BANDS = 64
_FFT = 512
_FLOOR_DB = 70.0
_PATCH = 4  # pixels
_AROUND = (-2, -1, 1, 2)  # frames whose differences are seen


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyncConfig:
  """Sizes of a `SyncJudge`.

  Attributes:
    sample_rate: sample rate of the sound in Hz; 16000.
    channels: channels of the sound; 1.
    pixels: height and width of the picture that it looks at; a multiple of 16.
    pixel_widths: features of a patch of 4 x 4 pixels, and after each of two
      convolutions over the picture; three.
    band_widths: features after each convolution over the spectrum; three.
    width: features of a step in time.
    dilations: dilation of each residual block over time, of either tower.
    features: K, curves of correlation.
    lags: K', features of a lag.
    reach: largest lag on either side, in steps of 20 ms; an even number, so that
      it is one of frames.
  """

  family: ClassVar[str] = "sync"
  target: ClassVar[str] = ""

  sample_rate: int = RATE
  channels: int = 1
  pixels: int = 64
  pixel_widths: tuple[int, ...] = (24, 48, 64)
  band_widths: tuple[int, ...] = (16, 32, 48)
  width: int = 96
  dilations: tuple[int, ...] = (1, 2, 4)
  features: int = 48
  lags: int = 32
  reach: int = 24

  def __post_init__(self):
    sizes = ("width", "features", "lags", "reach")
    widths = ("pixel_widths", "band_widths", "dilations")
    settings.check(self, **dict.fromkeys((*sizes, *widths), "[1, inf)"))
    settings.check(self, sample_rate=f"[{RATE}, {RATE}]", channels="[1, 1]")
    settings.check(self, pixels="[16, inf)")
    for name, factor in (("pixels", 16), ("reach", 2)):
      if (value := getattr(self, name)) % factor:
        raise settings.SettingError(
          f"{name}={value} is no multiple of {factor}"
        )
    for name in ("pixel_widths", "band_widths"):
      if len(value := getattr(self, name)) != 3:
        raise settings.SettingError(f"{name}={value!r} has not three numbers")

  @property
  def offsets(self) -> np.ndarray:
    """Lags of the classes in ms, float [2 reach + 1], ascending."""
    step = 1000 * STEP / RATE
    return step * np.arange(-self.reach, self.reach + 1)

  def make(self, *, rngs: nnx.Rngs) -> "SyncJudge":
    """Makes the network."""
    return SyncJudge(self, rngs=rngs)


class SyncJudge(nnx.Module):
  """Two towers, their correlation at each lag, and what it means."""

  def __init__(self, config: SyncConfig, *, rngs: nnx.Rngs):
    self.config = config
    self.video = VideoTower(config, rngs=rngs)
    self.audio = AudioTower(config, rngs=rngs)
    taps = lambda i, o: nnx.Conv(i, o, (5,), rngs=rngs)
    self.mix = taps(config.features, config.lags)
    self.sharpen = taps(config.lags, config.lags)
    self.lag = nnx.Linear(config.lags, 1, rngs=rngs)
    self.absent = nnx.Linear(3 * config.lags, 1, rngs=rngs)

  def __call__(
    self,
    grey: jax.Array,
    frame_mask: jax.Array,
    sound: jax.Array,
    sound_mask: jax.Array,
  ) -> jax.Array:
    """Returns logits of each lag, then of none: [b, 2 reach + 2].

    Args:
      grey: float [b, n, pixels, pixels] in [0, 1], at 25 frames a second.
      frame_mask: bool [b, n], frames that there are.
      sound: float [b, samples] in [-1, 1], of as many seconds.
      sound_mask: bool [b, samples // 320], steps in which there is sound.
    """
    v = self.video(grey, frame_mask)
    a = self.audio(sound, sound_mask)
    return self.compare(a, v, sound_mask, jnp.repeat(frame_mask, 2, axis=1))

  def compare(self, a, v, a_mask, v_mask) -> jax.Array:
    """Returns the logits of features [b t k] of sound and picture."""
    curves = correlate(a, v, a_mask, v_mask, self.config.reach)
    hidden = nnx.gelu(self.mix(curves))
    hidden = hidden + nnx.gelu(self.sharpen(hidden))
    of_lags = self.lag(hidden)[..., 0]
    spread = jnp.sqrt(hidden.var(1) + 1e-6)
    whole = [hidden.max(1), hidden.mean(1), spread]
    absent = self.absent(jnp.concatenate(whole, axis=-1))
    return jnp.concatenate([of_lags, absent], axis=-1)


class VideoTower(nnx.Module):
  """Grey frames [b n h w] to features of every 20 ms, [b 2n features]."""

  def __init__(self, config: SyncConfig, *, rngs: nnx.Rngs):
    first, second, third = config.pixel_widths
    conv = lambda i, o: nnx.Conv(i, o, (3, 3), strides=(2, 2), rngs=rngs)
    pixels = _PATCH**2 * (1 + len(_AROUND))
    self.patch = nnx.Linear(pixels, first, rngs=rngs)
    self.convs = nnx.List([conv(first, second), conv(second, third)])
    self.halves = nnx.Linear(2 * third, 2 * config.width, rngs=rngs)
    self.time = Times(config, rngs=rngs)

  def __call__(self, grey: jax.Array, mask: jax.Array) -> jax.Array:
    b, n = mask.shape
    side = grey.shape[2] // _PATCH
    x = grey.reshape(b, n, side, _PATCH, side, _PATCH).swapaxes(3, 4)
    x = movement(x.reshape(b, n, side, side, -1), mask)
    x = nnx.gelu(self.patch(x)).reshape(b * n, side, side, -1)
    for conv in self.convs:
      x = nnx.gelu(conv(x))
    x = jnp.concatenate([x.mean((1, 2)), x.max((1, 2))], axis=-1)
    x = self.halves(x).reshape(b, 2 * n, -1)
    return self.time(x, jnp.repeat(mask, 2, axis=1))


class AudioTower(nnx.Module):
  """Sound [b samples] to features of every 20 ms, [b t features]."""

  def __init__(self, config: SyncConfig, *, rngs: nnx.Rngs):
    first, second, third = config.band_widths
    conv = lambda i, o, strides: nnx.Conv(
      i, o, (3, 3), strides=strides, rngs=rngs
    )
    self.convs = nnx.List(
      [
        conv(1, first, (1, 2)),
        conv(first, second, (2, 2)),
        conv(second, third, (1, 2)),
      ]
    )
    self.bands = nnx.Linear(BANDS // 8 * third, config.width, rngs=rngs)
    self.time = Times(config, rngs=rngs)

  def __call__(self, sound: jax.Array, mask: jax.Array) -> jax.Array:
    x = loudness(sound, mask)[..., None]
    for conv in self.convs:
      x = nnx.gelu(conv(x))
    x = self.bands(x.reshape(*x.shape[:2], -1))
    return self.time(x, mask)


class Times(nnx.Module):
  """Residual convolutions over time: [b t width] to [b t features]."""

  def __init__(self, config: SyncConfig, *, rngs: nnx.Rngs):
    width = config.width
    self.norms = nnx.List(
      [nnx.RMSNorm(width, rngs=rngs) for _ in config.dilations]
    )
    self.convs = nnx.List(
      [
        nnx.Conv(width, width, (5,), kernel_dilation=(d,), rngs=rngs)
        for d in config.dilations
      ]
    )
    self.mixes = nnx.List(
      [nnx.Linear(width, width, rngs=rngs) for _ in config.dilations]
    )
    self.out = nnx.Linear(width, config.features, rngs=rngs)

  def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
    there = mask[..., None]
    for norm, conv, mix in zip(self.norms, self.convs, self.mixes):
      x = x + mix(nnx.gelu(conv(norm(x) * there)))
    return self.out(x)


def movement(grey: jax.Array, mask: jax.Array) -> jax.Array:
  """Returns frames [b n h w c] and differences to those around: [b n h w 5c].

  Differences are relative to their root mean square in the clip, those to
  frames that are not there are 0.
  """
  n = mask.shape[1]
  layers = []
  for k in _AROUND:
    other = np.clip(np.arange(n) + k, 0, n - 1)
    both = (mask & mask[:, other])[..., None, None, None]
    layers.append(jnp.where(both, grey[:, other] - grey, 0))
  moved = jnp.concatenate(layers, axis=-1)
  total = jnp.square(moved).sum((1, 2, 3, 4), keepdims=True)
  count = jnp.maximum(mask.sum(1), 1).reshape(-1, *(1,) * 4)
  size = jnp.sqrt(total / (count * moved[0, 0].size))
  still = grey - grey.mean((2, 3, 4), keepdims=True)
  still = jnp.where(mask[..., None, None, None], still, 0)
  return jnp.concatenate([2 * still, moved / (size + 2e-3)], axis=-1)


def loudness(sound: jax.Array, mask: jax.Array) -> jax.Array:
  """Returns mel bands of every 10 ms, [b t 64], in 0..1.5; 0 is 70 dB below.

  Decibels are relative to the loudest band of the sound, but for sounds below
  -60 dB, which stay faint. Where there is no sound it is 0.
  """
  filters = spectrum.slaney_filters(RATE, _FFT, BANDS, 60.0, 7600.0)
  mel = spectrum.log_mel(sound, filters, fft=_FFT, hop=HOP)
  there = jnp.repeat(mask, STEP // HOP, axis=1)[..., None]
  mel = mel[:, : there.shape[1]]
  loudest = jnp.where(there, mel, -60.0).max((1, 2), keepdims=True)
  above = jnp.maximum(mel - loudest + _FLOOR_DB, 0.0)
  return jnp.where(there, above / _FLOOR_DB * 1.5, 0.0)


def correlate(a, v, a_mask, v_mask, reach: int) -> jax.Array:
  """Correlates features [b t k] at lags -reach..reach steps: [b lags k]."""
  a, v = (_centred(x, mask) for x, mask in ((a, a_mask), (v, v_mask)))
  t = a.shape[1]
  padded = jnp.pad(a, ((0, 0), (reach, reach), (0, 0)))
  at = lambda lag: (jax.lax.dynamic_slice_in_dim(padded, lag, t, 1) * v).sum(1)
  return jax.vmap(at, out_axes=1)(jnp.arange(2 * reach + 1))


def _centred(x: jax.Array, mask: jax.Array) -> jax.Array:
  """Returns features less their mean over time, of length 1; 0 outside."""
  there = mask[..., None].astype(x.dtype)
  count = jnp.maximum(there.sum(1, keepdims=True), 1)
  x = (x - (x * there).sum(1, keepdims=True) / count) * there
  power = jnp.square(x).sum(1, keepdims=True)
  return x * jax.lax.rsqrt(power + 1e-3 * count)
