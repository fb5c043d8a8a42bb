"""What a config would build, from shapes alone: nothing is allocated or compiled.

  parameters   by part of the model, and the frozen codec's
  FLOPs        of one clip: the models' closed forms, and a count over the
               jaxpr of the objective (`jaxprs.py`)
  memory       of one device of the mesh: the train state, and an estimate of
               the activations that a step works with
  shapes       of every stage, from the loader's arrays to the waveform

The mesh's devices need not be there: shardings are those of an abstract mesh.
"""

from collections.abc import Callable
import dataclasses
import functools
import math
from typing import Any

from flax import nnx
import jax
import numpy as np

from data_pipelines.loader import LoaderConfig
from v2a_jax import build, bundle, jaxprs
from v2a_jax.batch import Batch
from v2a_jax.codec.autoencoder import CodecConfig
from v2a_jax.objectives.base import Objective
from v2a_jax.parallel import mesh as mesh_lib
from v2a_jax.parallel import sharding
from v2a_jax.pretrained.dac import DacConfig
from v2a_jax.training import state as state_lib
from v2a_jax.training.experiment import Experiment
from v2a_jax.training.optimizer import OptimizerConfig, make_optimizer
from v2a_jax.training.step import cast_floats

ESTIMATE = (
  "the most intermediate values alive at once in the jaxpr of the gradient, in"
  " its order; not divided by the tensor axis. Compilers differ: for the tiny"
  " models XLA for CPU takes 1.0 to 2.8 times as much"
)

# What a key that is missing, or a size that makes no sense, ends as.
_BROKEN = (TypeError, AttributeError, LookupError, ArithmeticError)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """What a config describes, all of it abstract.

  Attributes:
    config: the config.
    codec: sizes of the codec, trained or frozen.
    frozen: the codec that a generator's target is of; None if a codec trains.
    loader: shapes of the data.
    make_model: `make_model(rngs)`.
    graphdef: of the model.
    params: its `nnx.Param` variables, of shapes.
    buffers: its other variables.
    objective: the loss.
    target: fills in what is learned; None if a codec trains.
    optimizer: how parameters are updated.
  """

  config: Any
  codec: CodecConfig | DacConfig
  frozen: build.FrozenCodec | None
  loader: LoaderConfig
  make_model: Callable[[nnx.Rngs], nnx.Module]
  graphdef: Any
  params: Any
  buffers: Any
  objective: Objective
  target: Callable[[Any, Batch], Batch] | None
  optimizer: OptimizerConfig

  @property
  def model(self) -> nnx.Module:
    return nnx.merge(self.graphdef, self.params, self.buffers)

  @property
  def crop(self) -> int:
    """Samples of a clip that a codec is trained on at a time."""
    samples = self.loader.window.num_samples
    return min(self.objective.crop or samples, samples)

  def run(self, field: str) -> Any:
    """A setting of the run, or its default (`workdir.RUN_FIELDS`)."""
    return self.config.get(field, getattr(Experiment, field))

  def batch(self, b: int) -> Batch:
    """An abstract batch of b examples, its target filled in."""
    blank = build.blank_batch(self.loader, b)
    if self.target is None:
      return blank
    return jax.eval_shape(self.target, self.frozen.state, blank)

  def loss(self, params, buffers, batch: Batch, *, seen: dict | None = None):
    """The mean loss, as a training step takes it (`training/step.py`).

    Args:
      params: the model's, float32.
      buffers: the model's.
      batch: with its target.
      seen: is given the shapes of what the model hands to the objective.
    """
    params = cast_floats(params, self.run("compute_dtype"))
    model = nnx.merge(self.graphdef, params, buffers)
    losses, _ = self.objective.loss(
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
    plan = make_plan(config)
    mesh = abstract_mesh(config, devices)
    clips = clips_at_a_time(plan, mesh)
    gradient = jax.make_jaxpr(jax.value_and_grad(plan.loss))(
      plan.params, plan.buffers, plan.batch(clips)
    ).jaxpr
    flops = count_flops(plan, gradient, clips=clips)
    memory = count_memory(plan, mesh, gradient, clips=clips)
    shapes = stage_shapes(plan)
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
    "seconds": plan.loader.seconds,
    "batch_size": plan.loader.batch_size,
    "mesh": dict(mesh.shape),
    "parameters": count_parameters(plan),
    "flops": flops,
    "memory": memory,
    "shapes": shapes,
  }


def make_plan(config) -> Plan:
  """Builds what a config describes, of shapes.

  Raises:
    ConfigError, BundleError: one line on what is wrong, and where.
  """
  training_codec = build.trains_codec(config)
  frozen = None if training_codec else build.describe_codec(config.codec)
  codec = build.codec_config(config) if training_codec else frozen.config
  make_model = build.model_maker(config, codec)
  if "sampler" in config:
    build.make_sampler(config)  # Refused here, not after training.
  graphdef, params, buffers = state_lib.abstract_model(make_model)
  return Plan(
    config=config,
    codec=codec,
    frozen=frozen,
    loader=build.loader_config(config, codec),
    make_model=make_model,
    graphdef=graphdef,
    params=params,
    buffers=buffers,
    objective=build.make_objective(config),
    target=None if training_codec else build.make_target(config, frozen),
    optimizer=build.fill(OptimizerConfig, config.optimizer, where="optimizer"),
  )


def abstract_mesh(config, devices: int | None) -> jax.sharding.AbstractMesh:
  """The config's mesh over so many devices, which need not be there.

  Raises:
    ConfigError: the axes do not multiply to `devices`.
  """
  asked = build.fill(mesh_lib.MeshConfig, config.mesh, where="mesh")
  if devices is None:
    devices = math.prod(size for size in asked.shape if size > 0)
  return jax.sharding.AbstractMesh(
    mesh_lib.resolve_shape(asked, devices),
    mesh_lib.AXES,
    axis_types=(jax.sharding.AxisType.Auto,) * len(mesh_lib.AXES),
  )


def count_parameters(plan: Plan) -> dict[str, Any]:
  """Numbers of trained parameters.

  Returns:
    `total`; `parts`, the number under each path of one or two names, such as
    `backbone` and `backbone/joint`; `layers`, the depth of each stack, such as
    `backbone/joint`; `frozen_codec`, which is not trained and not in the total.
  """
  parts, layers = {}, {}
  for path, leaf in bundle.flatten(plan.params).items():
    names = path.split("/")
    for part in {"/".join(names[:depth]) for depth in (1, 2)}:
      parts[part] = parts.get(part, 0) + leaf.size
    if "blocks" in names:
      layers["/".join(names[: names.index("blocks")])] = leaf.shape[0]
  return {
    "total": _size(plan.params),
    "parts": {part: parts[part] for part in sorted(parts)},
    "layers": layers,
    "frozen_codec": _size(plan.frozen and plan.frozen.state),
  }


def count_flops(plan: Plan, gradient, *, clips: int) -> dict[str, int]:
  """FLOPs of one clip.

  Args:
    plan: what is counted.
    gradient: the jaxpr of the gradient of the loss over `clips` clips.
    clips: how many.

  Returns:
    `forward`: of a generator the closed form, of which `conditioner` and
    `backbone` are the parts; of a codec a count, spectral losses and critics
    included (`encode`, `quantize`, `decode`: closed forms). `target`: the
    frozen codec's part. `training`: 3 `forward` + `target`. `forward_counted`
    and `training_counted`: by the jaxprs, so with the masked half of causal
    attention and with recomputation.
  """
  one = plan.batch(1)
  counted = jaxprs.flops_of(plan.loss, plan.params, plan.buffers, one)
  if plan.frozen is None:
    flops = plan.model.codec.flops(plan.crop) | {"forward": counted}
    target = 0
  else:
    flops = _generator_flops(plan)
    blank = build.blank_batch(plan.loader, 1)
    target = jaxprs.flops_of(plan.target, plan.frozen.state, blank)
  return flops | {
    "target": target,
    "training": 3 * flops["forward"] + target,
    "forward_counted": counted,
    "training_counted": jaxprs.count_flops(gradient) // clips + target,
  }


def _generator_flops(plan: Plan) -> dict[str, int]:
  cond = build.blank_batch(plan.loader, 1).cond
  forward = build.count_flops(plan.config, plan.codec, plan.loader)
  conditioner = plan.model.conditioner.flops(cond)
  return {
    "conditioner": conditioner,
    "backbone": forward - conditioner,
    "forward": forward,
  }


def stage_shapes(plan: Plan) -> dict[str, dict[str, Any]]:
  """`dtype` and `shape` of every stage of one batch, in the data's order."""
  seen = {}
  batch = plan.batch(plan.loader.batch_size)
  loss = functools.partial(plan.loss, seen=seen)
  jax.eval_shape(loss, plan.params, plan.buffers, batch)
  stages = {
    "audio": batch.audio,
    "frames": batch.cond.frames,
    "prompt": batch.cond.prompt,
    "transcript": batch.cond.transcript,
  }
  if plan.frozen is None:
    stages |= _codec_stages(plan)
  else:
    stages[plan.config.data["target"]] = batch.target
    for name in ("video", "text", "summary"):
      stages[f"{name} condition"] = getattr(seen.get("tokens"), name, None)
    stages["prediction"] = seen.get("prediction")
    stages["waveform"] = _decoded(plan, batch.target)
  return {
    name: {"dtype": str(x.dtype), "shape": list(x.shape)}
    for name, x in stages.items()
    if x is not None
  }


def _codec_stages(plan: Plan) -> dict[str, Any]:
  """Of the codec that is trained, for a crop of every example."""

  def stages(params, buffers, x):
    codec = nnx.merge(plan.graphdef, params, buffers).codec
    latents = codec.encode(x)
    return {
      "crop": x,
      "latents": latents,
      "codes": codec.quantize(latents),
      "waveform": codec.decode(latents),
    }

  shape = (plan.loader.batch_size, plan.crop, plan.codec.channels)
  x = jax.ShapeDtypeStruct(shape, np.float32)
  shapes = jax.eval_shape(stages, plan.params, plan.buffers, x)
  order = ("crop", "latents", "codes", "waveform")  # which jax does not keep
  return {name: shapes[name] for name in order}


def _decoded(plan: Plan, target):
  """The waveform that a target stands for."""
  if plan.config.data["target"] not in ("latents", "codes"):
    return None

  def decode(state, x):
    codec = plan.frozen.merge(state)
    if plan.config.data["target"] == "codes":
      x = codec.dequantize(x)
    return codec.decode(x)

  return jax.eval_shape(decode, plan.frozen.state, target)


def count_memory(
  plan: Plan, mesh: jax.sharding.AbstractMesh, gradient, *, clips: int
) -> dict[str, Any]:
  """Bytes on one device while training.

  Args:
    plan: what is counted.
    mesh: what it is laid out on.
    gradient: the jaxpr of the gradient of the loss over `clips` clips.
    clips: a device has at a time.

  Returns:
    `parameters`, `average`, `optimizer`, `buffers`, `frozen_codec` and
    `gradients`, laid out on the mesh; `activations`, an estimate
    (`activations_are` says of what), and `residuals`, the part of them that
    automatic differentiation keeps for the backward pass; `total`; `clips`.
  """
  init = state_lib.make_init(
    plan.make_model,
    make_optimizer(plan.optimizer, plan.config.num_train_steps),
    seed=0,
    ema=plan.run("ema_decay") > 0,
  )
  state = jax.eval_shape(init)
  params = device_bytes(state.params, mesh)
  memory = {
    "parameters": params,
    "average": device_bytes(state.ema, mesh),
    "optimizer": device_bytes(state.opt_state, mesh),
    "buffers": device_bytes(state.buffers, mesh),
    "frozen_codec": _bytes(plan.frozen and plan.frozen.state),
    # While microbatches add up there are their sum and the newest.
    "gradients": params * (2 if plan.run("accumulate") > 1 else 1),
    "activations": jaxprs.peak_bytes(gradient),
  }
  return memory | {
    "total": sum(memory.values()),
    "clips": clips,
    "activations_are": ESTIMATE,
    "residuals": jaxprs.residual_bytes(
      plan.loss, plan.params, plan.buffers, plan.batch(clips)
    ),
  }


def clips_at_a_time(plan: Plan, mesh: jax.sharding.AbstractMesh) -> int:
  """Rows of a microbatch on one device.

  Raises:
    ConfigError: they do not come out even.
  """
  rows = mesh.shape["data"] * mesh.shape["fsdp"]
  accumulate = plan.run("accumulate")
  parts = rows * accumulate
  if plan.loader.batch_size < 1 or plan.loader.batch_size % parts:
    raise build.ConfigError(
      f"config.data.batch_size={plan.loader.batch_size} does not divide over"
      f" accumulate={accumulate} and the {rows} devices of the mesh"
      f" axes data and fsdp: use a multiple of {parts}"
    )
  return plan.loader.batch_size // parts


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
