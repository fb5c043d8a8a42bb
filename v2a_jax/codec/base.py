"""What every codec shares: its rates, its calibration and its two views.

  latents = (z - mean) / std,   z = latents std + mean

where z is what the encoder gives and the quantizer and the decoder take; mean
and deviation of each channel are measured, not trained.

The samples of one latent depend on `decoder_halo` latents on either side of
it. Backwards from these samples, with h the steps beyond them on either side,

  a convolution of k taps, dilation d      h <- h + d (k - 1) / 2
  an upsampling of kernel 2 s, stride s    h <- ceil((h + ceil(s / 2)) / s)

for an upsampling that leaves off floor(s / 2) or ceil(s / 2) steps at the start
(on either side there are ceil((h + s - p) / s) and ceil((h + p) / s) steps, for
p left off).
"""

import math

from flax import nnx
import jax
import jax.numpy as jnp


class Buffer(nnx.Variable):
  """A measured constant: saved with the weights, never trained."""


class Rates:
  """Of a config with `sample_rate` and `strides`."""

  @property
  def hop(self) -> int:
    """Samples a latent."""
    return math.prod(self.strides)

  @property
  def latent_rate(self) -> float:
    """Latents a second, in hertz."""
    return self.sample_rate / self.hop


def reach(module: nnx.Module) -> int:
  """Steps that the convolutions in `module`, run in a row, see to one side."""
  convs = (m for _, m in nnx.iter_modules(module) if isinstance(m, nnx.Conv))
  return sum(c.kernel_dilation[0] * (c.kernel_size[0] - 1) // 2 for c in convs)


def reach_up(steps: int, stride: int) -> int:
  """`steps` on the fine side of an upsampling as steps on its coarse side."""
  return -(-(steps + -(-stride // 2)) // stride)


def padded(waveform: jax.Array, hop: int) -> jax.Array:
  """[b, t, channels] with zeros up to a multiple of the hop."""
  short = -waveform.shape[1] % hop
  return jnp.pad(waveform, [(0, 0), (0, short), (0, 0)])


class LatentCodec(nnx.Module):
  """Calibrated latents and codes, of `encoder`, `quantizer` and `decoder`.

  A subclass makes these three, and writes `encode` and `decode`.
  """

  def __init__(self, config):
    self.config = config
    self.latent_mean = Buffer(jnp.zeros((config.latent_dim,)))
    self.latent_std = Buffer(jnp.ones((config.latent_dim,)))

  def quantize(
    self, latents: jax.Array, num_codebooks: int | None = None
  ) -> jax.Array:
    """Latents [b, t, c] to codes int32 [b, t, num_codebooks]; None for all."""
    return self.quantizer.quantize(self._raw(latents), num_codebooks)

  def dequantize(
    self, codes: jax.Array, num_codebooks: int | None = None
  ) -> jax.Array:
    """Codes [b, t, q] to latents [b, t, c].

    Args:
      codes: int [b, t, q].
      num_codebooks: how many of the codes to use; None for all.
    """
    z = self.quantizer.dequantize(codes[..., :num_codebooks])
    return self._standardised(z)

  @property
  def decoder_halo(self) -> int:
    """Latents on either side of one that its samples depend on."""
    return self.decoder.halo

  def _standardised(self, z: jax.Array) -> jax.Array:
    return (z - self.latent_mean[...]) / self.latent_std[...]

  def _raw(self, latents: jax.Array) -> jax.Array:
    return latents * self.latent_std[...] + self.latent_mean[...]
