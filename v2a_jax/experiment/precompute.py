"""A copy of a data set with what a run would compute of each clip again.

`v2a data precompute` makes media of the size that the model reads, features of
frames by the frozen encoder, and latents or codes by the frozen codec. What a
run reads must come from the encoder and codec that it has: digests of their
weights are compared.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

from flax import nnx
import jax
import numpy as np

from data_pipelines import derive, manifest, stored, targets
from data_pipelines import example as example_lib
from data_pipelines import features as cached
from data_pipelines.assemble import OutputOptions
from data_pipelines.decoding import decode_media
from data_pipelines.derive import Change, CopyOptions
from data_pipelines.features import FeatureFacts, Features
from v2a_jax.codec import frozen as codecs
from v2a_jax.experiment import features
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.experiment.footage import Footage
from v2a_jax.experiment.sections import ConfigError
from v2a_jax.models import lora
from v2a_jax.weights import names


def write(
  experiment: Experiment,
  source,
  *,
  out,
  options: CopyOptions,
  output: OutputOptions,
  model: Callable[[], nnx.Module],
  log=print,
) -> dict[str, Any]:
  """Writes a data set again with what a run would compute of it.

  Args:
    experiment: says how frames and sound are read, and names the codec.
    source: folder of the data set.
    out: folder of the new one.
    options: what is computed.
    output: options of the written data set.
    model: makes the `Generator` whose encoder gives features; called if it is
      needed.
    log: takes lines for people.

  Returns:
    The manifest.

  Raises:
    ConfigError: the experiment has no codec, of which targets were asked.
    DataError, BuildError: see `derive.copy_with`.
  """
  manifest.read_manifest(source)  # Before anything is compiled.
  window = dataclasses.replace(
    experiment.data.window, frames=True, sound=True, features=0
  )
  changes: list[Change] = []
  facts: dict[str, Any] = {}
  if "features" in options.add:
    change, facts[cached.KEY] = _features(model(), experiment, log)
    changes.append(change)
  if "target" in options.add:
    change, facts[targets.KEY] = _target(experiment, window, log)
    changes.append(change)
  if options.media != "keep":
    shrink = functools.partial(stored.shrink, form=options.media, window=window)
    changes.append(shrink)
    facts[stored.KEY] = stored.facts_of(options.media, window)
    log(f"pictures and sound: {options.media}, {facts[stored.KEY]}")
  return derive.copy_with(
    source,
    out=out,
    change=lambda record: functools.reduce(
      lambda r, change: change(r), changes, record
    ),
    facts=facts,
    output=output,
    log=log,
  )


def _features(model: nnx.Module, experiment: Experiment, log):
  """Returns what adds features to a record, and the manifest's entry.

  Low-rank changes of the model are merged into it.
  """
  conditioner = lora.merge(model).conditioner
  window = dataclasses.replace(
    experiment.data.window, features=conditioner.feature_dim, frames=True
  )
  if conditioner.config.views:
    whole, encode = False, _of_footage(conditioner, window)
  else:
    stream = conditioner.tuned_encoder
    whole = not stream.sees_neighbours
    encode = features.make_encoder(conditioner, window.num_frames)
    encode = derive.of_frames(encode, window, whole=whole)
  mark = features.digest(conditioner, names.flatten(nnx.state(model)))
  log(f"{window.features} features per frame, of encoder {mark[:12]}")
  facts = FeatureFacts(
    encoder=mark,
    dim=window.features,
    fps=window.fps,
    frame_size=window.frame_size,
    seconds=0.0 if whole else window.seconds,
  )

  def change(record: dict[str, Any]) -> dict[str, Any]:
    found = encode(record)
    if not len(found.times):
      return record
    arrays = dataclasses.asdict(found)
    return record | {
      "features": cached.pack_arrays(arrays, onto=record["features"])
    }

  return change, dataclasses.asdict(facts)


def _of_footage(conditioner, window) -> derive.Encode:
  """Makes features of the window at a record's start, by towers of footage."""
  footage = Footage(conditioner, seconds=window.seconds)
  times = np.arange(window.num_frames) / window.fps

  def encode(record) -> Features:
    if not record["video"]:
      return Features(times[:0], np.zeros((0, window.features), np.float32))
    return Features(times, footage.packed(record["video"]), whole=False)

  return encode


def _target(experiment: Experiment, window, log):
  """Returns what adds latents or codes to a record, and the manifest's entry."""
  if not experiment.trains_generator:
    raise ConfigError(
      f"config.model.name={experiment.names['model']!r} generates nothing, so"
      " there are no latents or codes to compute: leave out --add target"
    )
  window = dataclasses.replace(window, frames=False)
  codec = codecs.load(experiment.run.codec)
  representation = experiment.representation
  encode = jax.jit(representation.distribution)
  state = representation.frozen(codec.state)

  def arrays_of(record) -> dict[str, np.ndarray]:
    content = decode_media(record, window)
    cut = example_lib.cut_audio(content, window, 0.0, record["duration"])
    target, std = encode(state, cut["audio"][None])
    std = None if std is None else np.asarray(std)[0]
    return targets.arrays_of(np.asarray(target)[0], std, cut["duration"])

  def change(record: dict[str, Any]) -> dict[str, Any]:
    packed = cached.pack_arrays(arrays_of(record), onto=record["features"])
    return record | {"features": packed}

  silence = (1, window.num_samples, window.channels)
  target, std = jax.eval_shape(
    encode, state, jax.ShapeDtypeStruct(silence, np.float32)
  )
  facts = targets.TargetFacts(
    kind=experiment.data.target,
    codec=codec.sha256,
    seconds=window.seconds,
    shape=target.shape[1:],
    dtype=str(target.dtype),
    std=std is not None,
  )
  log(f"{facts.kind} {list(facts.shape)} of codec {codec.sha256[:12]}")
  return change, dataclasses.asdict(facts)
