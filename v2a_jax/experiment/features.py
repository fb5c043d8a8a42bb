"""The frozen part of a condition encoder, on its own: cached features.

`v2a data precompute` runs it once over a data set (precompute.py), so that training
need not decode frames and encode them every time. What a run reads must come
from the encoder that it has: both sides are compared by `digest`.
"""

from collections.abc import Callable, Mapping
import hashlib
import json
from typing import Any

from flax import nnx
import jax
import numpy as np

from v2a_jax.experiment.experiment import Experiment
from v2a_jax.experiment.sections import ConfigError
from v2a_jax.weights import names


def digest(conditioner: nnx.Module, weights: Mapping[names.Name, Any]) -> str:
  """Returns the sha256 of all that a frame's feature depends on but the frame.

  Args:
    conditioner: condition encoders; their `frame_part` may be of shapes.
    weights: arrays of the whole model by name.
  """
  settings, parts = conditioner.frame_part
  mark = hashlib.sha256()
  mark.update(json.dumps(settings, sort_keys=True).encode())
  for name in sorted(weights, key=str):
    if any(name[: len(part)] == part for part in parts):
      array = np.asarray(weights[name], np.float32)
      mark.update(json.dumps([name[2:], array.shape]).encode())
      mark.update(array.tobytes())
  return mark.hexdigest()


def make_encoder(
  conditioner: nnx.Module, count: int
) -> Callable[[np.ndarray], np.ndarray]:
  """Returns a function from frames uint8 [n h w 3] to features float32 [n f].

  Args:
    conditioner: condition encoders whose frame part it is.
    count: number of frames that are encoded at a time; one program is compiled.
  """
  stream = conditioner.tuned_encoder
  graphdef, state = nnx.split(stream)

  @jax.jit
  def embed(state, frames, mask):
    return nnx.merge(graphdef, state).embed_frames(frames[None], mask[None])[0]

  def encode(frames):
    parts = [np.zeros((0, stream.feature_dim), np.float32)]
    for start in range(0, len(frames), count):
      part = frames[start : start + count]
      padding = ((0, count - len(part)), (0, 0), (0, 0), (0, 0))
      features = embed(
        state, np.pad(part, padding), np.arange(count) < len(part)
      )
      parts.append(np.asarray(features, np.float32)[: len(part)])
    return np.concatenate(parts)

  return encode


def first_model(experiment: Experiment) -> nnx.Module:
  """Makes the model that a new run would start from; fresh weights are zeros.

  Raises:
    ConfigError: all its weights would be fresh.
    BundleError, CheckpointError, MissingWeightsError, WrongWeightsError: see
      `Experiment.first_weights`.
  """
  weights = experiment.first_weights()
  if weights is None:
    raise ConfigError(
      "config.init_from='': name the run or bundle to start from"
    )
  graphdef, *parts = experiment.abstract
  zeros = lambda leaf: np.zeros(leaf.shape, leaf.dtype)
  filled = (names.fill(part, weights) for part in parts)
  is_shape = lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)
  full = lambda leaf: zeros(leaf) if is_shape(leaf) else leaf
  return nnx.merge(graphdef, *(jax.tree.map(full, part) for part in filled))


def check_sizes(experiment: Experiment) -> None:
  """Checks that cached features fit the encoder of an experiment.

  Raises:
    ConfigError: the encoder is not frozen, or has features of another size.
  """
  wanted, tune = experiment.data.features, experiment.conditioner.tune
  if tune != "frozen":
    raise ConfigError(
      f"config.data.features={wanted} needs an encoder that stays as it is, but"
      f" config.model.conditioner.tune={tune!r}: set 'frozen'"
    )
  size = experiment.abstract_conditioner.feature_dim
  if wanted != size:
    raise ConfigError(
      f"config.data.features={wanted}, but the encoder has {size} features per"
      f" frame: set data.features={size}"
    )
