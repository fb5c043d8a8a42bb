"""Teachers of representation alignment: features of a frozen audio network.

A generator that also regresses the features of a pretrained network on the
clean sound learns faster (REPA: Yu et al., "Representation alignment for
generation", arXiv:2410.06940). The regression's target is the teacher's feature
at the time of each latent, minus the mean over the batch:

  error = 1 - mean_t cos(prediction_t, feature_t - mean feature)

All features share much of their mean, so without the subtraction any prediction
near it would score well.
"""

from collections.abc import Callable
import dataclasses
import types
from typing import Any

import jax
import jax.numpy as jnp

from v2a_jax.batch import Batch
from v2a_jax.objectives.base import masked_mean
from v2a_jax.parallel import rows
from v2a_jax.pretrained import mn04

# A teacher is a module with `load()`, which reads its weights,
# `frames(weights, sound)`, which computes features of sound at SAMPLE_RATE, and
# their FRAME_RATE and FRAME_DIM.
TEACHERS: dict[str, types.ModuleType] = {"mn04": mn04}


@dataclasses.dataclass(frozen=True)
class Taught:
  """Fills in a batch's target and its `representation` [b t f].

  Attributes:
    target: fills in latents and their times.
    teacher: name of the teacher, one of `TEACHERS`.
    sample_rate: sample rate of the batch's audio in Hz.
  """

  target: Callable[[Any, Batch], Batch]
  teacher: str
  sample_rate: int

  def frozen(self, state: Any) -> dict[str, Any]:
    """Returns the argument of a call: target's state and teacher's weights.

    Raises:
      MissingWeightsError, WrongWeightsError: the weights cannot be read.
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
    total = rows.total(jnp.where(mask, features, 0.0).sum(axis=(0, 1)))
    features = features - total / jnp.maximum(rows.total(mask.sum()), 1)
    return batch.replace(representation=jax.lax.stop_gradient(features))


def representation_error(prediction, batch: Batch):
  """Computes 1 - cosine of a prediction [b t f] and the features, [b]."""
  features = batch.representation
  norm = lambda x: jnp.sqrt(jnp.square(x).sum(axis=-1) + 1e-8)
  cosine = (prediction * features).sum(axis=-1)
  cosine = cosine / (norm(prediction) * norm(features))
  return masked_mean(1 - cosine, batch.target_mask)


def resample(x: jax.Array, rate: int, new_rate: int) -> jax.Array:
  """Resamples sound [b samples] from `rate` to `new_rate` Hz by its spectrum.

  Like `scipy.signal.resample` it assumes periodic sound; content at the lower
  Nyquist frequency itself is dropped.
  """
  samples = x.shape[1]
  count = round(samples * new_rate / rate)
  keep = (min(samples, count) + 1) // 2  # below both Nyquist frequencies
  spectrum = jnp.fft.rfft(x)[:, :keep]
  missing = count // 2 + 1 - keep
  spectrum = jnp.pad(spectrum, ((0, 0), (0, missing)))
  return jnp.fft.irfft(spectrum, n=count) * (count / samples)
