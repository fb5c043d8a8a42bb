"""Shapes of every stage of an experiment, from the loader to the waveform."""

from typing import Any

from flax import nnx
import jax
import numpy as np


def crop(experiment) -> int:
  """Returns the samples of a clip that a codec is trained on at a time."""
  samples = experiment.data.window.num_samples
  return min(experiment.objective.crop or samples, samples)


def stage_shapes(experiment, seen: dict[str, Any]) -> dict[str, dict[str, Any]]:
  """Returns `dtype` and `shape` of every stage of a batch, in the data's order.

  Args:
    experiment: an `Experiment`.
    seen: shapes that the model returned for one clip (`cost.loss`).
  """
  b = experiment.batch_size
  batch = experiment.abstract_batch(b)
  of_batch = lambda x: jax.ShapeDtypeStruct((b, *x.shape[1:]), x.dtype)
  seen = jax.tree.map(of_batch, seen)
  stages = {
    "audio": batch.audio,
    "frames": batch.cond.frames,
    "features": batch.cond.features,
    "prompt": batch.cond.prompt,
    "transcript": batch.cond.transcript,
  }
  if experiment.trains_codec:
    stages |= _codec_stages(experiment)
  elif not experiment.trains_generator:
    stages["logits"] = seen.get("prediction")
  else:
    stages[experiment.data.target] = batch.target
    stages["representation"] = batch.representation
    for name in ("sync", "video", "text", "summary"):
      stages[f"{name} condition"] = getattr(seen.get("tokens"), name, None)
    stages["prediction"] = seen.get("prediction")
    stages["waveform"] = _decoded(experiment, batch.target)
  return {
    name: {"dtype": str(x.dtype), "shape": list(x.shape)}
    for name, x in stages.items()
    if x is not None
  }


def _codec_stages(experiment) -> dict[str, Any]:
  """Returns the stages of the codec that is trained, for a crop of each clip."""
  graphdef, params, buffers = experiment.abstract

  def stages(params, buffers, x):
    codec = nnx.merge(graphdef, params, buffers).codec
    latents = codec.encode(x)
    codes, waveform = codec.quantize(latents), codec.decode(latents)
    return x, latents, codes, waveform

  shape = (experiment.batch_size, crop(experiment), experiment.model.channels)
  x = jax.ShapeDtypeStruct(shape, np.float32)
  shapes = jax.eval_shape(stages, params, buffers, x)
  return dict(zip(("crop", "latents", "codes", "waveform"), shapes))


def _decoded(experiment, target):
  """Returns the shape of the waveform that a target stands for."""

  def decode(state, x):
    codec = experiment.codec.merge(state)
    return codec.decode(experiment.representation.latents(state, x))

  return jax.eval_shape(decode, experiment.codec.state, target)
