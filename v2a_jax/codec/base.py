"""What every codec shares: its rates, its calibration and its two views.

  latents = (z - mean) B / std,   z = (latents std) B^T + mean

where z is the encoder's output, which the quantizer and the decoder take; mean,
directions B (of published codecs the channels) and the deviation along each are
measured, not trained. A residual quantizer
represents z by the sum of what its stages make of one code each,

  r_0 = z,   k_i = encode_i(r_i),   r_{i+1} = r_i - stage_i(k_i).

The samples of one latent depend on `decoder_halo` latents on either side of
it. Going backwards from these samples, with h the steps beyond them on either
side,

  a convolution of k taps, dilation d      h <- h + d (k - 1) / 2
  an upsampling of kernel 2 s, stride s    h <- ceil((h + ceil(s / 2)) / s)

for an upsampling that leaves off floor(s / 2) or ceil(s / 2) steps at the start
(on either side there are ceil((h + s - p) / s) and ceil((h + p) / s) steps, for
p left off).
"""

from collections.abc import Sequence
import dataclasses
import math

from flax import nnx
import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Stage:
  """A part of a decoder that runs in windows of its own.

  Attributes:
    method: name of the codec's method that maps [b, t, c] to [b, t factor, d].
    halo: steps on either side of one that what it becomes depends on.
    factor: steps of the output a step of the input.
  """

  method: str
  halo: int
  factor: int


class Buffer(nnx.Variable):
  """A measured constant: saved with the weights, never trained."""


class Rates:
  """Rates of a config with `sample_rate` and `strides`."""

  @property
  def hop(self) -> int:
    """Samples per latent."""
    return math.prod(self.strides)

  @property
  def latent_rate(self) -> float:
    """Latents per second, in Hz."""
    return self.sample_rate / self.hop


def reach(module: nnx.Module) -> int:
  """Counts the steps to one side that convolutions in sequence depend on."""
  convs = (m for _, m in nnx.iter_modules(module) if isinstance(m, nnx.Conv))
  return sum(c.kernel_dilation[0] * (c.kernel_size[0] - 1) // 2 for c in convs)


def reach_up(steps: int, stride: int) -> int:
  """Converts steps after an upsampling to steps before it."""
  return -(-(steps + -(-stride // 2)) // stride)


def padded(waveform: jax.Array, hop: int) -> jax.Array:
  """Pads [b, t, channels] with zeros to a multiple of the hop."""
  short = -waveform.shape[1] % hop
  return jnp.pad(waveform, [(0, 0), (0, short), (0, 0)])


class Stages(nnx.Module):
  """A residual quantizer; a subclass has its stages.

  A stage's `encode` gives codes [b, t], and a call with codes its part of z.
  """

  stages: Sequence[nnx.Module]

  def quantize(
    self, z: jax.Array, num_codebooks: int | None = None
  ) -> jax.Array:
    """Quantizes z [b, t, c] to codes int32 [b, t, q] of the first q stages."""
    residual, codes = z, []
    for stage in list(self.stages)[:num_codebooks]:
      codes.append(stage.encode(residual))
      residual = residual - stage(codes[-1])
    return jnp.stack(codes, axis=-1)

  def dequantize(self, codes: jax.Array) -> jax.Array:
    """Sums what codes [b, t, n] of the first n <= q stages stand for: z."""
    count = codes.shape[-1]
    if count > len(self.stages):
      raise ValueError(
        f"dequantize: {count} codes a step, but the quantizer has only"
        f" {len(self.stages)} codebooks."
      )
    return sum(self.stages[i](codes[..., i]) for i in range(count))


class Calibrated(nnx.Module):
  """Latents that are standardised by measured means and deviations.

  A subclass has a `decoder`, or its own `decoder_halo`, and defines `encode`
  and `decode`.
  """

  def __init__(self, config, *, rotates: bool = False):
    """Makes the buffers, of which nothing is measured yet.

    Args:
      config: sizes; has `latent_dim`.
      rotates: whether deviations are along directions other than the channels.
    """
    size = config.latent_dim
    self.config = config
    self.latent_mean = Buffer(jnp.zeros((size,)))
    self.latent_std = Buffer(jnp.ones((size,)))
    self.latent_basis = Buffer(jnp.eye(size)) if rotates else None

  @property
  def decoder_halo(self) -> int:
    """Latents on either side of one that its samples depend on."""
    return self.decoder.halo

  def _standardised(self, z: jax.Array) -> jax.Array:
    centred = z - self.latent_mean[...]
    if self.latent_basis is not None:
      centred = jnp.matmul(centred, self.latent_basis[...], precision="highest")
    return centred / self.latent_std[...]

  def _raw(self, latents: jax.Array) -> jax.Array:
    scaled = latents * self.latent_std[...]
    if self.latent_basis is not None:
      scaled = jnp.matmul(scaled, self.latent_basis[...].T, precision="highest")
    return scaled + self.latent_mean[...]


class LatentCodec(Calibrated):
  """Calibrated latents and codes from an `encoder`, `quantizer` and `decoder`.

  A subclass makes these three and defines `encode` and `decode`.
  """

  def quantize(
    self, latents: jax.Array, num_codebooks: int | None = None
  ) -> jax.Array:
    """Quantizes latents [b, t, c] to codes int32 [b, t, num_codebooks].

    These are of the first codebooks; None for all.
    """
    return self.quantizer.quantize(self._raw(latents), num_codebooks)

  def dequantize(
    self, codes: jax.Array, num_codebooks: int | None = None
  ) -> jax.Array:
    """Converts the first codes of [b, t, q] to latents [b, t, c]; None: all."""
    z = self.quantizer.dequantize(codes[..., :num_codebooks])
    return self._standardised(z)
