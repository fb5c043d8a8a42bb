"""Targets of representation alignment: what a frozen network hears, and when.

A generator that must also say what a network trained to understand sound hears
in the clean sound learns faster (Yu et al., "Representation alignment for
generation", arXiv:2410.06940). The one there is is mn04, whose weights
`v2a weights` knows. Its features at the time of each latent, less their mean
over the batch, are what is to be said:

  loss = 1 - mean_t cos(guess_t, feature_t - mean feature)

Without the mean, which they all share, every guess would look good.
"""

from collections.abc import Callable
import dataclasses
import types
from typing import Any

import jax
import jax.numpy as jnp

from v2a_jax.batch import Batch
from v2a_jax.pretrained import mn04

# A teacher is a module with `load()` of its weights, `frames(weights, sound)` at
# SAMPLE_RATE, and their FRAME_RATE and FRAME_DIM.
TEACHERS = {"mn04": mn04}


@dataclasses.dataclass(frozen=True)
class Taught:
  """Fills in the target, and beside it `representation` [b, t, f].

  Attributes:
    target: of the latents; sets their times.
    teacher: of `TEACHERS`.
    sample_rate: of the batch's audio, hertz.
  """

  target: Callable[[Any, Batch], Batch]
  teacher: types.ModuleType
  sample_rate: int

  def __call__(self, frozen: Any, batch: Batch) -> Batch:
    """`frozen` holds `target`, what the target needs, and `teacher`."""
    batch = self.target(frozen["target"], batch)
    sound = resample(
      batch.audio.mean(axis=-1), self.sample_rate, self.teacher.SAMPLE_RATE
    )
    heard = self.teacher.frames(frozen["teacher"], sound)
    at = jnp.round(batch.target_times * self.teacher.FRAME_RATE).astype(
      jnp.int32
    )
    heard = heard[:, jnp.clip(at, 0, heard.shape[1] - 1)]
    there = batch.target_mask[..., None]
    total = jnp.where(there, heard, 0.0).sum(axis=(0, 1))
    heard = heard - total / jnp.maximum(there.sum(), 1)
    return batch.replace(representation=jax.lax.stop_gradient(heard))


def resample(x: jax.Array, rate: int, new_rate: int) -> jax.Array:
  """Sound [b, samples] at another rate, by its spectrum.

  jax has no resampler. As `scipy.signal.resample`, which takes the sound to be periodic; what lies
  at the lower Nyquist frequency itself is left out.
  """
  samples = x.shape[1]
  count = round(samples * new_rate / rate)
  keep = (min(samples, count) + 1) // 2  # Below both Nyquist frequencies.
  spectrum = jnp.fft.rfft(x)[:, :keep]
  missing = count // 2 + 1 - keep
  spectrum = jnp.pad(spectrum, ((0, 0), (0, missing)))
  return jnp.fft.irfft(spectrum, n=count) * (count / samples)
