"""The frozen part of a condition encoder, on its own: cached features.

`v2a data features` runs it once over a data set (`write`), so that training
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

from data_pipelines import featurize, manifest
from data_pipelines.assemble import OutputOptions
from v2a_jax.codec import frozen as frozen_codec
from v2a_jax.conditioning.encoder import Conditioner
from v2a_jax.experiment import build
from v2a_jax.models import lora
from v2a_jax.weights import names


def digest(conditioner: Conditioner, weights: Mapping[tuple, Any]) -> str:
  """sha256 of everything that a frame's feature depends on but the frame.

  Args:
    conditioner: whose frame part it is; may be of shapes.
    weights: arrays by name (`names.flatten`) of the whole model.
  """
  stream = conditioner.looking
  where = "video" if conditioner.semantic is None else "semantic"
  mark = hashlib.sha256()
  known = [type(stream).__name__, stream.settings, conditioner.config.dtype]
  mark.update(json.dumps(known, sort_keys=True).encode())
  for name in sorted(weights, key=str):
    if name[:2] == ("conditioner", where) and name[2] in stream.frame_part:
      array = np.asarray(weights[name], np.float32)
      mark.update(json.dumps([name[2:], array.shape]).encode())
      mark.update(array.tobytes())
  return mark.hexdigest()


def make_encoder(
  conditioner: Conditioner, count: int
) -> Callable[[np.ndarray], np.ndarray]:
  """Returns frames uint8 [n h w 3] -> features float32 [n f].

  Args:
    conditioner: whose frame part it is.
    count: frames that are encoded at a time; one program is compiled.
  """
  graphdef, state = nnx.split(conditioner.looking)

  @jax.jit
  def look(state, frames, mask):
    return nnx.merge(graphdef, state).look(frames[None], mask[None])[0]

  def encode(frames):
    parts = [np.zeros((0, conditioner.looking.feature_dim), np.float32)]
    for start in range(0, len(frames), count):
      part = frames[start : start + count]
      rest = ((0, count - len(part)), (0, 0), (0, 0), (0, 0))
      made = look(state, np.pad(part, rest), np.arange(count) < len(part))
      parts.append(np.asarray(made, np.float32)[: len(part)])
    return np.concatenate(parts)

  return encode


def write(
  model: nnx.Module, config, source, *, out, output: OutputOptions, log=print
) -> dict[str, Any]:
  """Writes a data set again with the features of its frames.

  Args:
    model: a `Generator`; changes of low rank are merged into it.
    config: that built it; says how frames are read.
    source: a data set's folder.
    out: the new one's.
    output: how the data set is written.
    log: takes lines for people.

  Returns:
    The manifest.

  Raises:
    DataError, BuildError: see `featurize.add_features`.
  """
  manifest.read_manifest(source)  # Before anything is compiled.
  conditioner = lora.merge(model).conditioner
  codec = frozen_codec.describe(config.codec).config
  loader = build.loader_config(
    config, codec, features=conditioner.looking.feature_dim, frames=True
  )
  mark = digest(conditioner, names.flatten(nnx.state(model)))
  log(
    f"{conditioner.looking.feature_dim} numbers a frame, of encoder {mark[:12]}"
  )
  return featurize.add_features(
    source,
    out=out,
    encode=make_encoder(conditioner, loader.window.num_frames),
    encoder=mark,
    window=loader.window,
    whole=not conditioner.looking.sees_neighbours,
    output=output,
    log=log,
  )


def check(
  config, conditioner: Conditioner, weights: Mapping[tuple, Any]
) -> dict[str, str]:
  """What a loader of cached features must find.

  Args:
    config: of the run.
    conditioner: of its model; may be of shapes.
    weights: of the model that will train, by name.

  Returns:
    `encoder` of `LoaderConfig`; nothing where features are not cached.

  Raises:
    ConfigError: the encoder is not frozen, or has features of another size.
  """
  wanted = config.data.get("features", 0)
  if not wanted:
    return {}
  if conditioner.config.tune != "frozen":
    raise build.ConfigError(
      f"config.data.features={wanted} needs an encoder that stays as it is, but"
      f" config.model.conditioner.tune={conditioner.config.tune!r}: set 'frozen'"
    )
  if wanted != conditioner.looking.feature_dim:
    raise build.ConfigError(
      f"config.data.features={wanted}, but the encoder gives"
      f" {conditioner.looking.feature_dim} numbers a frame: set that"
    )
  return {"encoder": digest(conditioner, weights)}
