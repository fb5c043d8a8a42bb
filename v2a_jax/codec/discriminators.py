"""Multi-period and multi-band discriminators ("critics") of a waveform.

A period critic convolves over every p-th sample, and so over what repeats with
that period (HiFi-GAN, arXiv:2010.05646). A band critic convolves over the
complex spectrogram of one window length, cut into equal bands that share
weights and differ by a learned embedding (after the multi-band discriminator of
DAC, arXiv:2306.06546). Both fold the second axis, phase or band, into the
batch: all their convolutions run over time.
"""

from collections.abc import Sequence
import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp

from v2a_jax.basics import settings
from v2a_jax.codec import layers, stft

SLOPE = 0.1  # of the leaky ReLU for negative inputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
  """Sizes of the critics.

  Attributes:
    channels: channels of the waveform.
    periods: periods in samples, with one critic each.
    fft_sizes: window lengths in samples, with one critic each; the hop is a
      quarter.
    num_bands: bands of a spectrogram; divides fft_size / 2.
    widths: channels after each strided convolution.
  """

  channels: int = settings.derived("model.channels", default=1)
  periods: tuple[int, ...] = (2, 3, 5, 7, 11)
  fft_sizes: tuple[int, ...] = (256, 512, 1024)
  num_bands: int = 8
  widths: tuple[int, ...] = (24, 48, 96)

  def __post_init__(self):
    positive = dict.fromkeys(("periods", "num_bands", "widths"), "[1, inf)")
    settings.check(self, fft_sizes="[16, inf)", **positive)


class Critic(nnx.Module):
  """Maps [b, t, c] to scores [b, t / prod(strides), 1] and hidden features."""

  def __init__(
    self, features: int, widths: Sequence[int], *, stride: int, rngs: nnx.Rngs
  ):
    self.stride = stride
    steps = []
    for width in widths:
      steps.append(layers.Downsample(features, width, stride, rngs=rngs))
      features = width
    self.steps = nnx.List(steps)
    self.mix = layers.conv(features, features, 3, rngs=rngs)
    self.score = layers.conv(features, 1, 3, rngs=rngs)

  def __call__(self, x: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
    multiple = self.stride ** len(self.steps)
    hidden = jnp.pad(x, [(0, 0), (0, -x.shape[1] % multiple), (0, 0)])
    features = []
    for step in (*self.steps, self.mix):
      hidden = jax.nn.leaky_relu(step(hidden), SLOPE)
      features.append(hidden)
    return self.score(hidden), features


class Discriminator(nnx.Module):
  """Maps waveforms [b, t, channels] to all critics' scores and features.

  Both are lists of arrays [b, ...].
  """

  def __init__(self, config: DiscriminatorConfig, *, rngs: nnx.Rngs):
    self.config = config
    self.period_critics = nnx.List(
      [
        Critic(config.channels, config.widths, stride=3, rngs=rngs)
        for _ in config.periods
      ]
    )
    band_critics, places = [], []
    for n_fft in config.fft_sizes:
      width = config.channels * n_fft // config.num_bands
      band_critics.append(Critic(width, config.widths, stride=2, rngs=rngs))
      place = 0.02 * jax.random.normal(
        rngs.params(), (config.num_bands, 1, width)
      )
      places.append(nnx.Param(place))
    self.band_critics = nnx.List(band_critics)
    self.places = nnx.List(places)

  def __call__(
    self, waveform: jax.Array
  ) -> tuple[list[jax.Array], list[jax.Array]]:
    scores, features = [], []
    for critic, view in self._views(waveform):
      score, hidden = critic(view.reshape(-1, *view.shape[2:]))
      unfold = lambda x, view=view: x.reshape(*view.shape[:2], *x.shape[1:])
      scores.append(unfold(score))
      features.extend(unfold(h) for h in hidden)
    return scores, features

  def _views(self, waveform: jax.Array):
    """Yields each critic with its input [b, period or band, t, c]."""
    for period, critic in zip(
      self.config.periods, self.period_critics, strict=True
    ):
      yield critic, _by_period(waveform, period)
    for n_fft, critic, place in zip(
      self.config.fft_sizes, self.band_critics, self.places, strict=True
    ):
      bands = _by_band(waveform, n_fft, self.config.num_bands)
      yield critic, bands + place[...]


def _by_period(waveform: jax.Array, period: int) -> jax.Array:
  """Folds [b, t, c] to [b, period, ceil(t / period), c]."""
  batch, length, channels = waveform.shape
  padded = jnp.pad(waveform, [(0, 0), (0, -length % period), (0, 0)])
  folded = padded.reshape(batch, -1, period, channels)
  return jnp.moveaxis(folded, 2, 1)


def _by_band(waveform: jax.Array, n_fft: int, num_bands: int) -> jax.Array:
  """Computes spectrograms [b, bands, frames, n_fft c / bands] of [b, t, c].

  The square root of the magnitude, with its phase, makes quiet parts count. The
  bin at the Nyquist frequency is left out.
  """
  batch, _, channels = waveform.shape
  signal = jnp.moveaxis(waveform, 2, 1)
  spectrum = stft.stft(signal, n_fft=n_fft, hop=n_fft // 4)[..., :-1]
  power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
  shrink = (power + 1e-6) ** -0.25
  parts = jnp.stack([spectrum.real * shrink, spectrum.imag * shrink], axis=-1)
  frames = parts.shape[2]
  bands = parts.reshape(batch, channels, frames, num_bands, -1)
  return jnp.transpose(bands, (0, 3, 2, 1, 4)).reshape(
    batch, num_bands, frames, -1
  )
