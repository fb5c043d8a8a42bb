"""The codec: one autoencoder for continuous latents and for codes.

  encode:    waveform -> strided stages -> N(mean, exp(logvar)) -> latents
  quantize:  latents -> codes,     dequantize: codes -> latents
  decode:    latents -> strided stages -> magnitude and phase -> waveform

Both pass through the same decoder, so a comparison of a diffusion model over
latents with a token model over codes is one of the generators alone.

Strided Snake convolutions follow SoundStream (arXiv:2107.03312) and DAC
(arXiv:2306.06546); the last step of the decoder is an inverse short-time
Fourier transform as in Vocos (arXiv:2306.00814), which avoids costly layers at
high rates: nothing runs faster than sample_rate / strides[0] Hz.

Once `calibrate` has measured the training data, `encode` gives white latents
(`calibration.py`); the noise is the encoder's own. Diffusion adds the same noise
to all channels, and of latents that are not white it decides a few directions
long before the rest.
"""

from collections.abc import Iterable
import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.basics import settings
from v2a_jax.codec import calibration, companding, layers, stft
from v2a_jax.codec import quantizer as quantizer_lib
from v2a_jax.codec.base import (
  LatentCodec,
  Rates,
  padded,
  reach,
  reach_up,
)

LOGVAR_RANGE = (-12.0, 4.0)
MAX_LOG_MAGNITUDE = 5.0
FIT_POINTS = 48  # latents per code to which the codebooks are fitted


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodecConfig(Rates):
  """Sizes of a codec.

  Attributes:
    sample_rate: sample rate in Hz.
    channels: channels of the waveform.
    strides: strides of the encoder's stages; the decoder reverses them.
    encoder_widths: channels after each encoder stage.
    decoder_widths: decoder channels at the rate after each encoder stage.
    dilations: dilations of the residual units at each of those rates.
    latent_dim: channels of the latents.
    num_codebooks: number of stages of the residual quantizer.
    codebook_size: codes per stage.
    codebook_dim: dimensions in which codes are compared.
  """

  sample_rate: int = 16000
  channels: int = 1
  strides: tuple[int, ...] = (32, 4, 4)
  encoder_widths: tuple[int, ...] = (48, 96, 160)
  decoder_widths: tuple[int, ...] = (112, 160, 224)
  dilations: tuple[tuple[int, ...], ...] = ((1, 3, 9), (1, 3, 9), (1, 3))
  latent_dim: int = 32
  num_codebooks: int = 8
  codebook_size: int = 1024
  codebook_dim: int = 8

  def __post_init__(self):
    positive = [f.name for f in dataclasses.fields(CodecConfig)]
    settings.check(self, **dict.fromkeys(positive, "[1, inf)"))
    stages = len(self.strides)
    for name in ("encoder_widths", "decoder_widths", "dilations"):
      count = len(getattr(self, name))
      if count != stages:
        raise settings.SettingError(
          f"{name}={getattr(self, name)!r} has {count} entries, strides has"
          f" {stages}; give one per stage"
        )


class Encoder(nnx.Module):
  """Maps waveforms [b, t hop, channels] to [b, t, 2 latent_dim]."""

  def __init__(self, config: CodecConfig, *, rngs: nnx.Rngs):
    stages, features = [], 2 * config.channels
    plan = zip(config.strides, config.encoder_widths, config.dilations)
    for stride, width, dilations in plan:
      stages.append(layers.Downsample(features, width, stride, rngs=rngs))
      stages.append(layers.residual_units(width, dilations, rngs=rngs))
      features = width
    self.stages = nnx.List(stages)
    self.norm = nnx.RMSNorm(features, rngs=rngs)
    self.snake = layers.Snake(features)
    self.head = nnx.Linear(features, 2 * config.latent_dim, rngs=rngs)
    # The posterior starts narrow: the decoder would learn to ignore latents
    # that are mostly noise.
    self.head.bias[...] = self.head.bias[...].at[config.latent_dim :].set(-5.0)
    self.head.kernel[...] *= 0.3

  def __call__(self, waveform: jax.Array) -> jax.Array:
    # The companded copy represents quiet sounds well.
    hidden = [waveform, companding.compress(waveform)]
    hidden = jnp.concatenate(hidden, axis=-1)
    for stage in self.stages:
      hidden = stage(hidden)
    return self.head(self.snake(self.norm(hidden)))


class Decoder(nnx.Module):
  """Maps z [b, t, latent_dim] to waveforms [b, t hop, channels]."""

  def __init__(self, config: CodecConfig, *, rngs: nnx.Rngs):
    self.frame_hop = config.strides[0]
    self.channels = config.channels
    widths = config.decoder_widths[::-1]
    units = [
      layers.residual_units(width, dilations, rngs=rngs)
      for width, dilations in zip(widths, config.dilations[::-1])
    ]
    ups = [
      layers.Upsample(low, high, stride, rngs=rngs)
      for low, high, stride in zip(widths, widths[1:], config.strides[:0:-1])
    ]
    self.stem = layers.conv(config.latent_dim, widths[0], 3, rngs=rngs)
    self.units, self.ups = nnx.List(units), nnx.List(ups)
    self.norm = nnx.RMSNorm(widths[-1], rngs=rngs)
    self.snake = layers.Snake(widths[-1])
    bins = 2 * self.frame_hop + 1
    outputs = 2 * bins * config.channels
    self.head = layers.conv(widths[-1], outputs, 3, rngs=rngs)
    # Initial magnitudes are small, not full scale.
    quiet = jnp.zeros((config.channels, 2, bins)).at[:, 0].set(-3.0)
    self.head.kernel[...] *= 0.2
    self.head.bias[...] = quiet.reshape(-1)

  def __call__(self, latents: jax.Array) -> jax.Array:
    hidden = self.units[0](self.stem(latents))
    for up, units in zip(self.ups, self.units[1:], strict=True):
      hidden = units(up(hidden))
    spectrum = self.head(self.snake(self.norm(hidden)))
    spectrum = spectrum.reshape(*spectrum.shape[:2], self.channels, 2, -1)
    log_magnitude, phase = spectrum[..., 0, :], spectrum[..., 1, :]
    magnitude = jnp.exp(jnp.minimum(log_magnitude, MAX_LOG_MAGNITUDE))
    frames = jax.lax.complex(
      magnitude * jnp.cos(phase), magnitude * jnp.sin(phase)
    )
    waveform = stft.istft(jnp.moveaxis(frames, 2, 1), hop=self.frame_hop)
    return jnp.moveaxis(waveform, 1, 2)

  @property
  def halo(self) -> int:
    """Latents on either side of one that its samples depend on."""
    # A frame's window is four hops long and lies about the middle of its hop.
    steps = 2 + reach(self.head)
    for units, up in zip(self.units[:0:-1], self.ups[::-1], strict=True):
      steps = reach_up(steps + reach(units), up.stride)
    return steps + reach(self.units[0]) + reach(self.stem)


class Codec(LatentCodec):
  """A variational autoencoder with a residual quantizer of its latents."""

  def __init__(self, config: CodecConfig, *, rngs: nnx.Rngs):
    super().__init__(config, rotates=True)
    self.encoder = Encoder(config, rngs=rngs)
    self.decoder = Decoder(config, rngs=rngs)
    self.quantizer = quantizer_lib.ResidualQuantizer(config, rngs=rngs)

  def posterior(self, waveform: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes mean and log variance of z, each [b, ceil(t / hop), c].

    The waveform [b, t, channels] in [-1, 1] is padded with zeros at its end.
    """
    hidden = self.encoder(padded(waveform, self.config.hop))
    mean, logvar = jnp.split(hidden, 2, axis=-1)
    return mean, jnp.clip(logvar, *LOGVAR_RANGE)

  def encode(self, waveform: jax.Array) -> jax.Array:
    """Encodes a waveform [b, t, channels] to latents [b, ceil(t / hop), c].

    Latents are the posterior's mean, calibrated. Latent `i` has the time
    (i + 1/2) / latent_rate seconds.
    """
    mean, _ = self.posterior(waveform)
    return self._standardised(mean)

  def decode(self, latents: jax.Array) -> jax.Array:
    """Decodes latents [b, t, c] to a waveform [b, t hop, channels]."""
    return self.decoder(self._raw(latents))


def calibrate(
  codec: Codec, waveforms: Iterable[np.ndarray], *, fit_codes: bool = True
) -> tuple[Codec, calibration.Calibration]:
  """Whitens latents and fits codebooks: the last step of codec training.

  Args:
    codec: a trained codec.
    waveforms: batches float32 [b, t, channels] of one shape, many seconds.
    fit_codes: whether to fit the codebooks, too (`quantizer.fit`).

  Returns:
    (a copy of `codec` whose latents have zero mean over `waveforms`, are not
    correlated, and vary by 1 where sounds differ by more than the encoder's
    noise; what was measured).

  Raises:
    ValueError: there is no waveform, or too few for the codebooks.
  """
  flat, logvar = calibration.encoded(codec, Codec.posterior, waveforms)
  measured = calibration.measure(flat, np.diag(np.exp(logvar).mean(axis=0)))
  calibrated = nnx.clone(codec)
  measured.put_into(calibrated)
  if fit_codes:
    most = FIT_POINTS * codec.config.codebook_size
    drawn = np.random.default_rng(0).permutation(len(flat))[:most]
    quantizer_lib.fit(calibrated.quantizer, flat[drawn])
  return calibrated, measured
