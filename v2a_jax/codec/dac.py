"""The Descript Audio Codec (DAC), used with the public weights.

  encode:    waveform -> strided Snake convolutions -> z = latents [b, t, 1024]
  quantize:  r_0 = z,  e_i = W_in r_i,  k_i = argmax_j cos(e_i, C_i[j]),
             r_{i+1} = r_i - W_out C_i[k_i]
  dequantize:  z_hat = sum_i W_out C_i[k_i]
  decode:    z or z_hat -> transposed convolutions -> tanh -> waveform

Kumar et al., "High-fidelity audio compression with improved RVQGAN",
https://arxiv.org/abs/2306.06546; codes are looked up by angle in 8 dimensions
(Yu et al., https://arxiv.org/abs/2110.04627). Layers are named as in the port
by Hugging Face (https://huggingface.co/docs/transformers/model_doc/dac), whose
files `dac_files.py` reads.

DAC has no KL bottleneck. Its continuous latents are the encoder's output before
quantisation, z, in the mean and scale of the published training. A generator of
latents needs them standardised (`dac_files.calibrate`); codes do not depend on
that.

Convolutions run in the backend's default precision, the comparison of codes in
the highest. If the default is less than float32 (GPU, TPU), codes near a tie
may differ from a CPU's; `jax_default_matmul_precision=highest` prevents it.
"""

import dataclasses
import math

from flax import nnx
import jax
import jax.numpy as jnp

from v2a_jax.basics import settings
from v2a_jax.codec.base import (
  LatentCodec,
  Rates,
  Stages,
  padded,
  reach,
  reach_up,
)
from v2a_jax.codec.layers import conv

DILATIONS = (1, 3, 9)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DacConfig(Rates):
  """Sizes of a DAC; the defaults are those of the 44.1 kHz model.

  Attributes:
    sample_rate: sample rate in Hz.
    strides: strides of the encoder's blocks; the decoder reverses them.
    encoder_width: channels at the sample rate; each block doubles them.
    decoder_width: channels at the latent rate; each block halves them.
    num_codebooks: number of stages of the residual quantizer.
    codebook_size: codes per stage.
    codebook_dim: dimensions in which codes are compared.
  """

  sample_rate: int = 44100
  strides: tuple[int, ...] = (2, 4, 8, 8)
  encoder_width: int = 64
  decoder_width: int = 1536
  num_codebooks: int = 9
  codebook_size: int = 1024
  codebook_dim: int = 8

  def __post_init__(self):
    positive = [field.name for field in dataclasses.fields(self)]
    settings.check(self, **dict.fromkeys(positive, "[1, inf)"))
    settings.check(self, strides="[2, inf)")
    if self.decoder_width % 2 ** len(self.strides):
      raise settings.SettingError(
        f"decoder_width={self.decoder_width} cannot be halved"
        f" {len(self.strides)} times, once per stride"
      )

  @property
  def channels(self) -> int:
    """Channels of the waveform; all published models are mono."""
    return 1

  @property
  def latent_dim(self) -> int:
    """Channels of the latents."""
    return self.encoder_width * 2 ** len(self.strides)


class Snake(nnx.Module):
  """x + sin^2(alpha x) / alpha with a learned alpha per channel.

  Ziyin et al., https://arxiv.org/abs/2006.08195.
  """

  def __init__(self, features: int):
    self.alpha = nnx.Param(jnp.ones((features,)))

  def __call__(self, x: jax.Array) -> jax.Array:
    alpha = self.alpha[...]
    return x + jnp.square(jnp.sin(alpha * x)) / (alpha + 1e-9)


class Upsample(nnx.Module):
  """Transposed convolution, kernel 2s: [b, t, c] to [b, t s - s mod 2, d].

  Step i of the input contributes to the outputs [i s - p, (i + 2) s - p) for
  p = ceil(s / 2), so that each output is a sum of two matrix products. With an
  odd stride there is one output too few, as in the original.
  """

  def __init__(self, features_in: int, features: int, stride: int, *, rngs):
    self.stride = stride
    init = nnx.initializers.variance_scaling(
      1.0, "fan_in", "truncated_normal", in_axis=(0, 2), out_axis=1
    )
    shape = (features_in, features, 2 * stride)
    self.weight = nnx.Param(init(rngs.params(), shape))
    self.bias = nnx.Param(jnp.zeros((features,)))

  def __call__(self, x: jax.Array) -> jax.Array:
    batch, length, _ = x.shape
    early, late = jnp.split(self.weight[...], 2, axis=-1)
    early = jnp.einsum("btc,cds->btsd", x, early)
    late = jnp.einsum("btc,cds->btsd", x, late)
    pad = lambda y, *steps: jnp.pad(y, [(0, 0), steps, (0, 0), (0, 0)])
    full = pad(early, 0, 1) + pad(late, 1, 0)
    full = full.reshape(batch, (length + 1) * self.stride, -1)
    cut = math.ceil(self.stride / 2)
    return full[:, cut:-cut] + self.bias[...]


class ResidualUnit(nnx.Module):
  """x + conv1(snake(conv7(snake(x)))), where conv7 is dilated."""

  def __init__(self, features: int, dilation: int, *, rngs: nnx.Rngs):
    self.snake1 = Snake(features)
    self.conv1 = conv(features, features, 7, dilation=dilation, rngs=rngs)
    self.snake2 = Snake(features)
    self.conv2 = conv(features, features, 1, rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    return x + self.conv2(self.snake2(self.conv1(self.snake1(x))))


class _ResidualUnits(nnx.Module):
  """Base of the blocks: three residual units."""

  def __init__(self, features: int, *, rngs: nnx.Rngs):
    self.res_unit1, self.res_unit2, self.res_unit3 = (
      ResidualUnit(features, dilation, rngs=rngs) for dilation in DILATIONS
    )

  def residual_units(self, x: jax.Array) -> jax.Array:
    """Applies the units in order."""
    return self.res_unit3(self.res_unit2(self.res_unit1(x)))


class EncoderBlock(_ResidualUnits):
  """Maps [b, t stride, c] to [b, t, 2 c]."""

  def __init__(self, features: int, stride: int, *, rngs: nnx.Rngs):
    super().__init__(features, rngs=rngs)
    self.snake1 = Snake(features)
    self.conv1 = nnx.Conv(
      features,
      2 * features,
      (2 * stride,),
      strides=(stride,),
      padding=((math.ceil(stride / 2),) * 2,),
      rngs=rngs,
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    return self.conv1(self.snake1(self.residual_units(x)))


class DecoderBlock(_ResidualUnits):
  """Maps [b, t, c] to [b, t stride - stride mod 2, c / 2]."""

  def __init__(self, features: int, stride: int, *, rngs: nnx.Rngs):
    super().__init__(features // 2, rngs=rngs)
    self.snake1 = Snake(features)
    self.conv_t1 = Upsample(features, features // 2, stride, rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    return self.residual_units(self.conv_t1(self.snake1(x)))


class Encoder(nnx.Module):
  """Maps waveforms [b, t hop, 1] to z [b, t, latent_dim]."""

  def __init__(self, config: DacConfig, *, rngs: nnx.Rngs):
    width = config.encoder_width
    self.conv1 = conv(config.channels, width, 7, rngs=rngs)
    self.block = nnx.List()
    for stride in config.strides:
      self.block.append(EncoderBlock(width, stride, rngs=rngs))
      width *= 2
    self.snake1 = Snake(width)
    self.conv2 = conv(width, config.latent_dim, 3, rngs=rngs)

  def __call__(self, waveform: jax.Array) -> jax.Array:
    hidden = self.conv1(waveform)
    for block in self.block:
      hidden = block(hidden)
    return self.conv2(self.snake1(hidden))


class Decoder(nnx.Module):
  """Maps z [b, t, latent_dim] to waveforms of t hop samples or a few less."""

  def __init__(self, config: DacConfig, *, rngs: nnx.Rngs):
    width = config.decoder_width
    self.conv1 = conv(config.latent_dim, width, 7, rngs=rngs)
    self.block = nnx.List()
    for stride in reversed(config.strides):
      self.block.append(DecoderBlock(width, stride, rngs=rngs))
      width //= 2
    self.snake1 = Snake(width)
    self.conv2 = conv(width, config.channels, 7, rngs=rngs)

  def __call__(self, z: jax.Array) -> jax.Array:
    hidden = self.conv1(z)
    for block in self.block:
      hidden = block(hidden)
    return jnp.tanh(self.conv2(self.snake1(hidden)))

  @property
  def halo(self) -> int:
    """Latents on either side of one that its samples depend on."""
    steps = reach(self.conv2)
    for block in self.block[::-1]:
      steps = reach_up(steps + reach(block), block.conv_t1.stride)
    return steps + reach(self.conv1)


def _unit(x: jax.Array) -> jax.Array:
  """Scales vectors along the last axis to length 1."""
  norm = jnp.linalg.norm(x, axis=-1, keepdims=True)
  return x / jnp.maximum(norm, 1e-12)


class VectorQuantizer(nnx.Module):
  """One stage: a projection down, the code of least angle, a projection up."""

  def __init__(self, config: DacConfig, *, rngs: nnx.Rngs):
    project = lambda n, m: nnx.Conv(n, m, (1,), precision="highest", rngs=rngs)
    self.in_proj = project(config.latent_dim, config.codebook_dim)
    self.out_proj = project(config.codebook_dim, config.latent_dim)
    self.codebook = nnx.Embed(
      config.codebook_size, config.codebook_dim, rngs=rngs
    )

  def encode(self, residual: jax.Array) -> jax.Array:
    """Quantizes a residual [b, t, c] to codes int32 [b, t]."""
    encoded = _unit(self.in_proj(residual))
    table = _unit(self.codebook.embedding[...])
    cosine = jnp.matmul(encoded, table.T, precision="highest")
    return jnp.argmax(cosine, axis=-1).astype(jnp.int32)

  def __call__(self, codes: jax.Array) -> jax.Array:
    """Converts codes [b, t] to their part of z, [b, t, c]."""
    return self.out_proj(self.codebook(codes))


class ResidualQuantizer(Stages):
  """All stages."""

  def __init__(self, config: DacConfig, *, rngs: nnx.Rngs):
    stages = (
      VectorQuantizer(config, rngs=rngs) for _ in range(config.num_codebooks)
    )
    self.quantizers = nnx.List(stages)

  @property
  def stages(self) -> nnx.List:
    """The stages in order."""
    return self.quantizers


class Dac(LatentCodec):
  """The codec, with the interface of `autoencoder.Codec`."""

  def __init__(self, config: DacConfig, *, rngs: nnx.Rngs):
    super().__init__(config, rotates=True)
    self.encoder = Encoder(config, rngs=rngs)
    self.decoder = Decoder(config, rngs=rngs)
    self.quantizer = ResidualQuantizer(config, rngs=rngs)

  def encode(self, waveform: jax.Array) -> jax.Array:
    """Encodes a waveform [b, t, 1] to latents [b, ceil(t / hop), latent_dim].

    The end is padded with zeros. Latent `i` has the time
    (i + 1/2) / latent_rate seconds.
    """
    return self._standardised(self.encoder(padded(waveform, self.config.hop)))

  def decode(self, latents: jax.Array) -> jax.Array:
    """Decodes latents [b, t, c] to a waveform [b, t hop, 1].

    With odd strides (16 and 24 kHz) the network's output ends 8 samples, at
    most half a millisecond, early and is padded with zeros.
    """
    waveform = self.decoder(self._raw(latents))
    short = latents.shape[1] * self.config.hop - waveform.shape[1]
    return jnp.pad(waveform, [(0, 0), (0, short), (0, 0)])
