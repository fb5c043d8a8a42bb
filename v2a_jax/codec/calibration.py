"""Measures the mean, the directions and the deviations of latents (`base.py`).

Latents are rotated to the principal directions of the training data and scaled
so that each varies by 1 where sounds differ by more than a codec's own noise,

  std_i^2 = variance along direction i + the noise's power along it,

so directions in which a codec says nothing are not blown up.
"""

from collections.abc import Callable, Iterable
import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.codec.base import Buffer, Calibrated


@dataclasses.dataclass(frozen=True)
class Calibration:
  """What is measured of a codec's latents before they are standardised.

  Attributes:
    latent_mean: float64 [c].
    latent_std: float64 [c], along the directions, falling.
    latent_basis: float64 [c, c], a direction in each column.
  """

  latent_mean: np.ndarray
  latent_std: np.ndarray
  latent_basis: np.ndarray

  @classmethod
  def none(cls, size: int) -> "Calibration":
    """Returns that with which latents of a size stay as they are."""
    return cls(np.zeros(size), np.ones(size), np.eye(size))

  @property
  def effective_rank(self) -> float:
    """Number of directions that the latents' variance fills: (Σs²)² / Σs⁴."""
    variance = np.square(self.latent_std)
    return float(variance.sum() ** 2 / np.square(variance).sum())

  def put_into(self, codec: Calibrated) -> None:
    """Sets a codec's buffers."""
    for field in dataclasses.fields(self):
      value = jnp.asarray(getattr(self, field.name), jnp.float32)
      setattr(codec, field.name, Buffer(value))


def encoded(
  codec: nnx.Module,
  method: Callable[[nnx.Module, jax.Array], tuple[jax.Array, jax.Array]],
  waveforms: Iterable[np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
  """Encodes many sounds by a method of a codec that returns two [b, t, c].

  Args:
    codec: the codec.
    method: `method(codec, waveform [b, t, channels])`.
    waveforms: batches float32 [b, t, channels] of one shape.

  Returns:
    Both results, [n, c] in float64.

  Raises:
    ValueError: there is no waveform.
  """
  graphdef, state = nnx.split(codec)
  encode = jax.jit(lambda s, x: method(nnx.merge(graphdef, s), x))
  parts = [encode(state, x) for x in waveforms]
  if not parts:
    raise ValueError("calibrate: no waveforms; give at least one batch.")
  flat = lambda x: np.asarray(x, np.float64).reshape(-1, x.shape[-1])
  one, two = (np.concatenate([flat(x) for x in part]) for part in zip(*parts))
  return one, two


def measure(z: np.ndarray, noise: np.ndarray) -> Calibration:
  """Measures latents.

  Args:
    z: float64 [n, c], the encoder's output for many sounds.
    noise: float64 [c, c], covariance of the noise that a codec adds to z.
  """
  mean = z.mean(axis=0)
  variance, basis = np.linalg.eigh(np.cov(z, rowvar=False, ddof=0))
  power = np.einsum("ij,ik,kj->j", basis, noise, basis)
  std = np.sqrt(np.maximum(variance, 0.0) + power)
  order = np.argsort(-std)
  return Calibration(mean, std[order], basis[:, order])
