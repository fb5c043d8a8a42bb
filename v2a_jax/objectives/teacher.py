"""Teachers of representation alignment: features of a frozen audio network.

A generator that also regresses what a network trained to understand sound makes
of the clean sound learns faster (REPA: Yu et al., "Representation alignment for
generation", arXiv:2410.06940). The teacher's features at the time of each
latent, less their mean over the batch, are regressed:

  loss = 1 - mean_t cos(prediction_t, feature_t - mean feature)

Without the mean, which all features share, every prediction would look good.
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
TEACHERS: dict[str, types.ModuleType] = {"mn04": mn04}


@dataclasses.dataclass(frozen=True)
class Taught:
  """Fills in the target, and `representation` [b t f] beside it.

  Attributes:
    target: fills in latents and their times.
    teacher: name of the teacher, one of `TEACHERS`.
    sample_rate: sample rate of the batch's audio in Hz.
  """

  target: Callable[[Any, Batch], Batch]
  teacher: str
  sample_rate: int

  def frozen(self, state: Any) -> dict[str, Any]:
    """Returns what a call takes: the target's `state`, and the teacher's weights.

    Raises:
      MissingWeightsError, WrongWeightsError: the weights cannot be had.
    """
    return {"target": state, "teacher": TEACHERS[self.teacher].load()}

  def __call__(self, frozen: Any, batch: Batch) -> Batch:
    """Fills in a batch; see `frozen` for the first argument."""
    teacher = TEACHERS[self.teacher]
    batch = self.target(frozen["target"], batch)
    mono = batch.audio.mean(axis=-1)
    sound = resample(mono, self.sample_rate, teacher.SAMPLE_RATE)
    features = teacher.frames(frozen["teacher"], sound)
    index = jnp.round(batch.target_times * teacher.FRAME_RATE)
    index = jnp.clip(index.astype(jnp.int32), 0, features.shape[1] - 1)
    features = features[:, index]
    mask = batch.target_mask[..., None]
    total = jnp.where(mask, features, 0.0).sum(axis=(0, 1))
    features = features - total / jnp.maximum(mask.sum(), 1)
    return batch.replace(representation=jax.lax.stop_gradient(features))


def resample(x: jax.Array, rate: int, new_rate: int) -> jax.Array:
  """Resamples sound [b samples] by its spectrum; jax has no resampler.

  Like `scipy.signal.resample` it takes the sound to be periodic; content at the
  lower Nyquist frequency itself is dropped.

  Args:
    x: sound [b samples].
    rate: its sample rate in Hz.
    new_rate: sample rate of the result in Hz.
  """
  samples = x.shape[1]
  count = round(samples * new_rate / rate)
  keep = (min(samples, count) + 1) // 2  # Below both Nyquist frequencies.
  spectrum = jnp.fft.rfft(x)[:, :keep]
  missing = count // 2 + 1 - keep
  spectrum = jnp.pad(spectrum, ((0, 0), (0, missing)))
  return jnp.fft.irfft(spectrum, n=count) * (count / samples)
