"""What a config would build, from shapes alone: nothing is allocated or compiled.

parameters   by part of the model, and the frozen codec's
FLOPs        of one clip: the models' closed forms, and a count over the
             jaxpr of the objective (`jaxprs.py`)
memory       of one device of the mesh: the train state, and an estimate of
             the activations that a step works with
shapes       of every stage, from the loader's arrays to the waveform
"""

import functools
import math
from typing import Any

from flax import nnx
import jax
import numpy as np

from v2a_jax.experiment import build
from v2a_jax.experiment import cost as jaxprs
from v2a_jax.experiment.blueprint import (
  Blueprint,
  abstract_mesh,
  clips_at_a_time,
  make_blueprint,
)
from v2a_jax.models import lora
from v2a_jax.parallel import sharding
from v2a_jax.training import state as state_lib
from v2a_jax.training.optimizer import make_optimizer
from v2a_jax.weights import bundle

ESTIMATE = (
  "the most intermediate values alive at once in the jaxpr of the gradient, in"
  " its order; not divided by the tensor axis. Compilers differ: for the tiny"
  " models XLA for CPU takes 1.0 to 2.8 times as much"
)

# What a key that is missing, or a size that makes no sense, ends as.
_BROKEN = (TypeError, AttributeError, LookupError, ArithmeticError)


def inspect(config, *, devices: int | None = None) -> dict[str, Any]:
  """Everything that is known of a config before it runs, ready for JSON.

  Args:
    config: as `v2a train` takes it. Its data need not be there.
    devices: how many the mesh is laid over; the fewest that it can take by
      default.

  Returns:
    `name`, `model`, `objective`, `seconds`, `batch_size`, `mesh`,
    `parameters`, `flops`, `memory` and `shapes`; see the functions below.

  Raises:
    ConfigError, BundleError: one line on what is wrong, and where.
  """
  try:
    blueprint = make_blueprint(config)
    mesh = abstract_mesh(config, devices)
    clips = clips_at_a_time(blueprint, mesh)
    gradient = jax.make_jaxpr(jax.value_and_grad(blueprint.loss))(
      blueprint.params, blueprint.buffers, blueprint.batch(clips)
    ).jaxpr
    flops = count_flops(blueprint, gradient, clips=clips)
    memory = count_memory(blueprint, mesh, gradient, clips=clips)
    encoder = encoder_costs(blueprint)
    shapes = stage_shapes(blueprint)
  except _BROKEN as error:
    first = str(error).strip().partition("\n")[0]
    raise build.ConfigError(
      f"this config cannot be built: {first}"
      f" [{type(error).__name__}; --debug shows where]"
    ) from error
  return {
    "name": config.name,
    "model": config.model.get("name", "codec"),
    "objective": config.objective["name"],
    "seconds": blueprint.loader.seconds,
    "batch_size": blueprint.loader.batch_size,
    "mesh": dict(mesh.shape),
    "parameters": count_parameters(blueprint),
    "flops": flops,
    "encoder": encoder,
    "memory": memory,
    "shapes": shapes,
  }


def count_parameters(blueprint: Blueprint) -> dict[str, Any]:
  """Numbers of trained parameters.

  Returns:
    `total`; `parts`, the number under each path of one or two names, such as
    `backbone` and `backbone/joint`; `layers`, the depth of each stack, such as
    `backbone/joint`; `frozen` and `frozen_codec`, of the model and of the
    codec, which are not trained and not in the total.
  """
  parts, layers = {}, {}
  for path, leaf in bundle.flatten(blueprint.params).items():
    names = path.split("/")
    for part in {"/".join(names[:depth]) for depth in (1, 2)}:
      parts[part] = parts.get(part, 0) + leaf.size
    if "blocks" in names:
      layers["/".join(names[: names.index("blocks")])] = leaf.shape[0]
  return {
    "total": _size(blueprint.params),
    "parts": {part: parts[part] for part in sorted(parts)},
    "layers": layers,
    "frozen": _size(nnx.filter_state(blueprint.buffers, lora.Frozen)),
    "frozen_codec": _size(blueprint.frozen and blueprint.frozen.state),
  }


def count_flops(
  blueprint: Blueprint, gradient, *, clips: int
) -> dict[str, int]:
  """FLOPs of one clip.

  Args:
    blueprint: what is counted.
    gradient: the jaxpr of the gradient of the loss over `clips` clips.
    clips: how many.

  Returns:
    `forward`: of a generator the closed form, of which `conditioner` and
    `backbone` are the parts; of a codec a count, spectral losses and critics
    included (`encode`, `quantize`, `decode`: closed forms). `target`: the
    frozen codec's part. `training`: 3 `forward` + `target`, less `spared`: what
    does not go back through a frozen or adapted encoder. `forward_counted`
    and `training_counted`: by the jaxprs, so with the masked half of causal
    attention and with recomputation.
  """
  one = blueprint.batch(1)
  counted = jaxprs.flops_of(
    blueprint.loss, blueprint.params, blueprint.buffers, one
  )
  if blueprint.frozen is None:
    flops = blueprint.model.codec.flops(blueprint.crop) | {"forward": counted}
    target = 0
  else:
    flops = _generator_flops(blueprint)
    blank = build.blank_batch(blueprint.loader, 1)
    target = jaxprs.flops_of(blueprint.target, blueprint.given, blank)
  spared = flops.get("spared", 0)
  return flops | {
    "target": target,
    "training": 3 * flops["forward"] + target - spared,
    "forward_counted": counted,
    "training_counted": jaxprs.count_flops(gradient) // clips + target,
  }


def _generator_flops(blueprint: Blueprint) -> dict[str, int]:
  cond = build.blank_batch(blueprint.loader, 1).cond
  model = blueprint.model
  forward, step = build.count_flops(model, blueprint.codec, blueprint.loader)
  conditioner = model.conditioner.flops(cond)
  return {
    "conditioner": conditioner,
    "backbone": forward - conditioner,
    "forward": forward,
    "spared": 3 * forward - step,
  }


def encoder_costs(blueprint: Blueprint) -> dict[str, dict[str, float]]:
  """What each stream of the condition encoder costs a clip.

  Returns:
    By stream (`Conditioner.streams`): `flops` of a forward pass, and their
    `share` of the model's; `training`, FLOPs of a step, and `training_share` of
    the model's; `parameters`, with frozen ones. Empty where a codec trains.
  """
  if blueprint.frozen is None:
    return {}
  cond = build.blank_batch(blueprint.loader, 1).cond
  model = blueprint.model
  forward, step = build.count_flops(model, blueprint.codec, blueprint.loader)
  encoder, costs = model.conditioner, {}
  spared = encoder.spared_flops(cond)
  for name, flops in encoder.stream_flops(cond).items():
    training = 3 * flops - spared.get(name, 0)
    costs[name] = {
      "flops": flops,
      "share": flops / forward,
      "training": training,
      "training_share": training / step,
      "parameters": _size(nnx.state(encoder.streams[name])),
    }
  return costs


def stage_shapes(blueprint: Blueprint) -> dict[str, dict[str, Any]]:
  """`dtype` and `shape` of every stage of one batch, in the data's order."""
  seen = {}
  batch = blueprint.batch(blueprint.loader.batch_size)
  loss = functools.partial(blueprint.loss, seen=seen)
  jax.eval_shape(loss, blueprint.params, blueprint.buffers, batch)
  stages = {
    "audio": batch.audio,
    "frames": batch.cond.frames,
    "features": batch.cond.features,
    "prompt": batch.cond.prompt,
    "transcript": batch.cond.transcript,
  }
  if blueprint.frozen is None:
    stages |= _codec_stages(blueprint)
  else:
    stages[blueprint.config.data["target"]] = batch.target
    stages["representation"] = batch.representation
    for name in ("sync", "video", "text", "summary"):
      stages[f"{name} condition"] = getattr(seen.get("tokens"), name, None)
    stages["prediction"] = seen.get("prediction")
    stages["waveform"] = _decoded(blueprint, batch.target)
  return {
    name: {"dtype": str(x.dtype), "shape": list(x.shape)}
    for name, x in stages.items()
    if x is not None
  }


def _codec_stages(blueprint: Blueprint) -> dict[str, Any]:
  """Of the codec that is trained, for a crop of every example."""

  def stages(params, buffers, x):
    codec = nnx.merge(blueprint.graphdef, params, buffers).codec
    latents = codec.encode(x)
    return {
      "crop": x,
      "latents": latents,
      "codes": codec.quantize(latents),
      "waveform": codec.decode(latents),
    }

  shape = (
    blueprint.loader.batch_size,
    blueprint.crop,
    blueprint.codec.channels,
  )
  x = jax.ShapeDtypeStruct(shape, np.float32)
  shapes = jax.eval_shape(stages, blueprint.params, blueprint.buffers, x)
  order = ("crop", "latents", "codes", "waveform")  # which jax does not keep
  return {name: shapes[name] for name in order}


def _decoded(blueprint: Blueprint, target):
  """The waveform that a target stands for."""

  def decode(state, x):
    codec = blueprint.frozen.merge(state)
    if blueprint.config.data["target"] == "codes":
      x = codec.dequantize(x)
    return codec.decode(x)

  return jax.eval_shape(decode, blueprint.frozen.state, target)


def count_memory(
  blueprint: Blueprint, mesh: jax.sharding.AbstractMesh, gradient, *, clips: int
) -> dict[str, Any]:
  """Bytes on one device while training.

  Args:
    blueprint: what is counted.
    mesh: what it is laid out on.
    gradient: the jaxpr of the gradient of the loss over `clips` clips.
    clips: a device has at a time.

  Returns:
    `parameters`, `average`, `optimizer`, `buffers`, `frozen_codec` (and a
    teacher, if there is one) and `gradients`, laid out on the mesh; `activations`, an estimate
    (`activations_are` says of what), and `residuals`, the part of them that
    automatic differentiation keeps for the backward pass; `total`; `clips`.
  """
  init = state_lib.make_init(
    blueprint.make_model,
    make_optimizer(blueprint.optimizer, blueprint.config.num_train_steps),
    seed=0,
    ema=blueprint.run("ema_decay") > 0,
  )
  state = jax.eval_shape(init)
  params = device_bytes(state.params, mesh)
  memory = {
    "parameters": params,
    "average": device_bytes(state.ema, mesh),
    "optimizer": device_bytes(state.opt_state, mesh),
    "buffers": device_bytes(state.buffers, mesh),
    "frozen_codec": _bytes(blueprint.given),
    # While microbatches add up there are their sum and the newest.
    "gradients": params * (2 if blueprint.run("accumulate") > 1 else 1),
    "activations": jaxprs.peak_bytes(gradient),
  }
  return memory | {
    "total": sum(memory.values()),
    "clips": clips,
    "activations_are": ESTIMATE,
    "residuals": jaxprs.residual_bytes(
      blueprint.loss,
      blueprint.params,
      blueprint.buffers,
      blueprint.batch(clips),
    ),
  }


def device_bytes(tree, mesh: jax.sharding.AbstractMesh) -> int:
  """Bytes of a pytree of variables on one device, laid out on `mesh`."""
  shardings = jax.tree.leaves(sharding.state_shardings(tree, mesh))
  return sum(
    math.prod(layout.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf, layout in zip(jax.tree.leaves(tree), shardings, strict=True)
  )


def _size(tree) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _bytes(tree) -> int:
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
