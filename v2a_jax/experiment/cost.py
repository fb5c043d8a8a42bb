"""What an experiment costs, counted on traces: nothing is allocated or compiled.

parameters   by part of the model, and the frozen codec's
FLOPs        of one clip, over the jaxprs of the objective (`jaxprs.py`), by the
             part of the model whose `jax.named_scope` they are in
memory       of one device of the mesh: the train state and its gradients
shapes       of every stage, from the loader's arrays to the waveform
"""

import dataclasses
import functools
import math
from typing import Any

from flax import nnx
import jax

from v2a_jax.codec import frozen as codecs
from v2a_jax.experiment import jaxprs, shapes
from v2a_jax.experiment.sections import ConfigError
from v2a_jax.models import attend, lora
from v2a_jax.training.program import make_program
from v2a_jax.training.step import cast_floats
from v2a_jax.weights import names

# What a key that is missing, or a size that makes no sense, ends as.
_BROKEN = (TypeError, AttributeError, LookupError, ArithmeticError)


def inspect(experiment, *, devices: int | None = None) -> dict[str, Any]:
  """Counts everything that is known of an experiment before it runs.

  Args:
    experiment: an `Experiment`; its data need not be there.
    devices: number of devices of the mesh; None for the fewest it allows.

  Returns:
    `name`, `model`, `objective`, `seconds`, `batch_size`, `mesh`,
    `parameters`, `flops`, `encoder`, `memory`, `shapes`, and `latents`, their
    `channels` and `effective_rank` (null if it was not measured) of a model that
    generates them; ready for JSON. See the functions below.

  Raises:
    ConfigError: the experiment cannot be built or laid out, in one line.
  """
  experiment = _countable(experiment)
  try:
    mesh = experiment.abstract_mesh(devices)
    clips = clips_at_a_time(experiment, mesh)
    gradient = _gradient(experiment, clips)
    once = _with(experiment, remat="none")
    needed = gradient if once is experiment else _gradient(once, clips)
    seen: dict[str, Any] = {}
    forward = _forward(once, seen)
    return {
      "name": experiment.run.name,
      "model": experiment.names["model"],
      "objective": experiment.names["objective"],
      "seconds": experiment.data.seconds,
      "batch_size": experiment.batch_size,
      "mesh": dict(mesh.shape),
      "parameters": count_parameters(experiment),
      "flops": count_flops(experiment, forward, needed, gradient, clips=clips),
      "encoder": encoder_costs(experiment, forward, needed, clips=clips),
      "memory": count_memory(experiment, mesh, gradient, clips=clips),
      "shapes": shapes.stage_shapes(experiment, seen),
      "latents": _latents(experiment),
    }
  except _BROKEN as error:
    first = str(error).strip().partition("\n")[0]
    raise ConfigError(
      f"this config cannot be built: {first}"
      f" [{type(error).__name__}; --debug shows where]"
    ) from error


def _latents(experiment) -> dict[str, Any] | None:
  if not experiment.codec:
    return None
  return {
    "channels": experiment.codec.config.latent_dim,
    "effective_rank": codecs.effective_rank(experiment.run.codec),
  }


def clips_at_a_time(experiment, mesh: jax.sharding.AbstractMesh) -> int:
  """Returns the rows of a microbatch on one device.

  Raises:
    ConfigError: the batch does not divide over the devices.
  """
  rows = mesh.shape["data"] * mesh.shape["fsdp"]
  accumulate = experiment.run.accumulate
  parts = rows * accumulate
  _check_tensor(experiment, mesh.shape["tensor"])
  if experiment.batch_size % parts:
    raise ConfigError(
      f"config.data.batch_size={experiment.batch_size} does not divide over"
      f" accumulate={accumulate} and the {rows} devices of the mesh axes data and"
      f" fsdp: use a multiple of {parts}"
    )
  return experiment.batch_size // parts


def _check_tensor(experiment, tensor: int) -> None:
  """Refuses to cut a head or the hidden units of a feed-forward layer.

  Raises:
    ConfigError: names the sizes that would do.
  """
  parts = {"model": ("num_heads", "mlp_dim")}
  if experiment.conditioner:
    parts["conditioner"] = ("spatial_heads",)
  for part, fields in parts.items():
    section = "model" if part == "model" else "model.conditioner"
    for field in fields:
      size = getattr(getattr(experiment, part), field, tensor)
      if size % tensor:
        divisors = [n for n in range(1, size + 1) if size % n == 0]
        raise ConfigError(
          f"config.mesh.tensor={tensor} does not divide"
          f" config.{section}.{field}={size}: use one of {divisors[:12]}"
        )


def loss(experiment, params, buffers, batch, *, seen: dict | None = None):
  """Computes the mean loss as a training step does (`training/step.py`).

  Args:
    experiment: an `Experiment`.
    params: the model's parameters, float32.
    buffers: its other variables.
    batch: a batch with its target.
    seen: if given, the shapes of what the model returns are noted in it.
  """
  params = cast_floats(params, experiment.run.compute_dtype or None)
  model = nnx.merge(experiment.abstract[0], params, buffers)
  losses, _ = experiment.objective.loss(
    model if seen is None else _Watched(model, seen),
    batch,
    key=jax.random.key(0),
    train=True,
  )
  return losses.mean()


class _Watched:
  """A model that notes the shapes of what it returns."""

  def __init__(self, model: nnx.Module, seen: dict[str, Any]):
    self._model, self._seen = model, seen

  def __getattr__(self, name):
    return getattr(self._model, name)

  def encode(self, cond):
    self._seen["tokens"] = tokens = self._model.encode(cond)
    return tokens

  def __call__(self, *args, **kwargs):
    self._seen["prediction"] = out = self._model(*args, **kwargs)
    return out

  def represent(self, *args, **kwargs):
    out = self._model.represent(*args, **kwargs)
    self._seen["prediction"] = out[0]
    return out


def _gradient(experiment, clips: int) -> jaxprs.Jaxpr:
  """Traces the gradient of the loss over so many clips."""
  _, params, buffers = experiment.abstract
  function = jax.value_and_grad(functools.partial(loss, experiment))
  return jax.make_jaxpr(function)(
    params, buffers, experiment.abstract_batch(clips)
  ).jaxpr


def _with(experiment, **values):
  """Returns the same experiment with these values in every part that has them."""
  parts = {}
  for name in ("model", "conditioner"):
    part = getattr(experiment, name)
    if new := {k: v for k, v in values.items() if getattr(part, k, v) != v}:
      parts[name] = dataclasses.replace(part, **new)
  return dataclasses.replace(experiment, **parts) if parts else experiment


def _countable(experiment):
  """Returns the same experiment with the products of attention in sight.

  A fused kernel hides them, and may not run on the devices that are here.
  """
  asked = getattr(experiment.model, "attention", "auto")
  if asked == "auto" and attend.platform() == "cpu":
    return experiment  # It is XLA's already.
  return _with(experiment, attention="xla")


def _forward(experiment, seen: dict[str, Any]) -> jaxprs.Jaxpr:
  """Traces the loss on one clip; notes what the model returns in `seen`."""
  _, params, buffers = experiment.abstract
  function = functools.partial(loss, experiment, seen=seen)
  batch = experiment.abstract_batch(1)
  return jax.make_jaxpr(function)(params, buffers, batch).jaxpr


def flops_of_clip(experiment) -> tuple[int, int]:
  """Counts the FLOPs of a training step on one clip.

  Returns:
    (those that the model needs, those with what rematerialisation repeats).
  """
  experiment = _countable(experiment)
  once = _with(experiment, remat="none")
  target = _target_flops(experiment)
  needed = run = jaxprs.count_flops(_gradient(once, 1)) + target
  if once is not experiment:
    run = jaxprs.count_flops(_gradient(experiment, 1)) + target
  return needed, run


def step_flops(experiment, step: jaxprs.Jaxpr) -> float:
  """Counts the FLOPs of a training step on a global batch.

  Args:
    experiment: an `Experiment`.
    step: jaxpr of the step. If blocks are rematerialised or attention may be a
      fused kernel, the gradient is traced without that instead: work that is
      done twice counts once, and hidden work counts.
  """
  once = _with(_countable(experiment), remat="none")
  if once is experiment:
    return jaxprs.count_flops(step)
  return experiment.batch_size * flops_of_clip(once)[0]


def _target_flops(experiment) -> int:
  if experiment.target is None:
    return 0
  return jaxprs.flops_of(
    experiment.target, experiment.abstract_frozen, experiment.blank_batch(1)
  )


def count_parameters(experiment) -> dict[str, Any]:
  """Counts the trained parameters.

  Returns:
    `total`; `parts`, the number under each name of one or two words, such as
    `backbone` and `backbone/joint`; `layers`, the depth of each stack, such as
    `backbone/joint`; `frozen` and `frozen_codec`, those of the model and of the
    codec that are not trained and not in the total.
  """
  _, params, buffers = experiment.abstract
  parts, layers = {}, {}
  for name, leaf in names.flatten(params).items():
    for part in {"/".join(name[:depth]) for depth in (1, 2)}:
      parts[part] = parts.get(part, 0) + leaf.size
    if "blocks" in name:
      layers["/".join(name[: name.index("blocks")])] = leaf.shape[0]
  return {
    "total": _size(params),
    "parts": {part: parts[part] for part in sorted(parts)},
    "layers": layers,
    "frozen": _size(nnx.filter_state(buffers, lora.Frozen)),
    "frozen_codec": _size(experiment.codec.state if experiment.codec else ()),
  }


def count_flops(
  experiment,
  forward: jaxprs.Jaxpr,
  needed: jaxprs.Jaxpr,
  gradient: jaxprs.Jaxpr,
  *,
  clips: int,
) -> dict[str, int]:
  """Counts the FLOPs of one clip.

  Args:
    experiment: an `Experiment`.
    forward: jaxpr of the loss on one clip.
    needed: jaxpr of the gradient of the loss over `clips` clips, with nothing
      computed twice.
    gradient: the same as it is run.
    clips: number of clips.

  Returns:
    `forward`: the loss; of a generator `conditioner` and `backbone` are its
    parts, of a codec spectral losses and critics are in it, and `encode`,
    `quantize` and `decode` stand beside it. `target`: the frozen codec (and
    teacher). `training`: a step, without what is computed twice; `recomputed`:
    that part.
  """
  flops = _codec_flops(experiment) if experiment.trains_codec else {}
  if experiment.trains_generator:
    flops = jaxprs.count_by_scope(forward, ("conditioner", "backbone"))
    flops.pop("", None)
  target = _target_flops(experiment)
  step, run = (jaxprs.count_flops(x) // clips for x in (needed, gradient))
  return flops | {
    "forward": jaxprs.count_flops(forward),
    "target": target,
    "training": step + target,
    "recomputed": run - step,
  }


def _codec_flops(experiment) -> dict[str, int]:
  """Counts the FLOPs of a codec's methods on one crop."""
  config = experiment.model
  codec = nnx.merge(*experiment.abstract).codec
  graphdef, state = nnx.split(codec)
  run = lambda name: (
    lambda state, x: getattr(nnx.merge(graphdef, state), name)(x)
  )
  sound = jax.ShapeDtypeStruct(
    (1, shapes.crop(experiment), config.channels), "float32"
  )
  latents = jax.eval_shape(run("encode"), state, sound)
  inputs = {"encode": sound, "quantize": latents, "decode": latents}
  return {
    name: jaxprs.flops_of(run(name), state, x) for name, x in inputs.items()
  }


def encoder_costs(
  experiment, forward: jaxprs.Jaxpr, needed: jaxprs.Jaxpr, *, clips: int
) -> dict[str, dict[str, float]]:
  """Counts what each stream of the condition encoder costs a clip.

  Args are those of `count_flops`.

  Returns:
    By stream (`Conditioner.streams`): `flops` of a forward pass and their
    `share` of the model's; `training`, FLOPs of a step, and `training_share` of
    the model's; `parameters`, with frozen ones. Empty but for generators.
  """
  if not experiment.trains_generator:
    return {}
  streams = experiment.abstract_conditioner.streams
  once = jaxprs.count_by_scope(forward, tuple(streams))
  step = jaxprs.count_by_scope(needed, tuple(streams))
  return {
    name: {
      "flops": once.get(name, 0),
      "share": once.get(name, 0) / sum(once.values()),
      "training": step.get(name, 0) // clips,
      "training_share": step.get(name, 0) / sum(step.values()),
      "parameters": _size(nnx.state(module)),
    }
    for name, module in streams.items()
  }


def count_memory(
  experiment,
  mesh: jax.sharding.AbstractMesh,
  gradient: jaxprs.Jaxpr,
  *,
  clips: int,
) -> dict[str, Any]:
  """Counts the bytes that one device holds while it trains.

  Args:
    experiment: an `Experiment`.
    mesh: mesh that it is laid out on.
    gradient: jaxpr of the gradient of the loss over `clips` clips.
    clips: number of clips that a device has at a time.

  Returns:
    `parameters`, `average`, `optimizer`, `buffers`, `frozen_codec` (and a
    teacher, if there is one) and `gradients`, laid out on the mesh, and
    `total`. What a step works with besides, `activations`, is left out: only a
    compiler knows (`plan.py`).
  """
  memory = step_memory(experiment, mesh, gradient)
  del memory["activations"]
  return memory | {"total": sum(memory.values()), "clips": clips}


def gradient_of_device(
  experiment, mesh: jax.sharding.AbstractMesh
) -> jaxprs.Jaxpr:
  """Traces the gradient of the loss over the rows of one device."""
  return _gradient(experiment, clips_at_a_time(experiment, mesh))


def step_memory(
  experiment,
  mesh: jax.sharding.AbstractMesh,
  gradient: jaxprs.Jaxpr,
) -> dict[str, int]:
  """Counts the bytes of one device in a training step, by kind.

  Args are those of `count_memory`. `activations` is an estimate, the most that
  is alive at a time in the order of the jaxpr.
  """
  program = make_program(experiment, mesh)
  on_device = functools.partial(device_bytes, program)
  # While microbatches add up there are their sum and the newest.
  gradients = 2 if experiment.run.accumulate > 1 else 1
  return {
    "parameters": on_device("params"),
    "average": on_device("ema") + on_device("averages"),
    "optimizer": on_device("opt_state"),
    "buffers": on_device("buffers"),
    "frozen_codec": tree_bytes(experiment.abstract_frozen),
    "gradients": on_device("params") * gradients,
    "activations": jaxprs.peak_bytes(gradient),
  }


def device_bytes(program, part: str) -> int:
  """Returns the bytes of a part of the train state on one device."""
  leaves = jax.tree.leaves(getattr(program.state, part))
  shardings = jax.tree.leaves(getattr(program.shardings, part))
  return sum(
    math.prod(layout.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf, layout in zip(leaves, shardings, strict=True)
  )


def _size(tree) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def tree_bytes(tree) -> int:
  """Returns the bytes of a pytree of arrays or of their shapes."""
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
