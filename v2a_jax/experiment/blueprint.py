"""What a config describes, as shapes: nothing is allocated or compiled.

The mesh's devices need not be there: shardings are those of an abstract mesh.
"""

from collections.abc import Callable
import dataclasses
import math
from typing import Any

from flax import nnx
import jax

from data_pipelines.loader import LoaderConfig
from v2a_jax.batch import Batch
from v2a_jax.codec import frozen as frozen_codec
from v2a_jax.codec.autoencoder import CodecConfig
from v2a_jax.codec.dac import DacConfig
from v2a_jax.experiment import build, sections
from v2a_jax.objectives.base import Objective
from v2a_jax.parallel import mesh as mesh_lib
from v2a_jax.training import state as state_lib
from v2a_jax.training.experiment import Experiment
from v2a_jax.training.optimizer import OptimizerConfig
from v2a_jax.training.step import cast_floats


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blueprint:
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
    given: what the target needs.
    optimizer: how parameters are updated.
  """

  config: Any
  codec: CodecConfig | DacConfig
  frozen: frozen_codec.FrozenCodec | None
  loader: LoaderConfig
  make_model: Callable[[nnx.Rngs], nnx.Module]
  graphdef: Any
  params: Any
  buffers: Any
  objective: Objective
  target: Callable[[Any, Batch], Batch] | None
  given: Any
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
    return jax.eval_shape(self.target, self.given, blank)

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
    out = self._model(*args, **kwargs)
    # Beside a prediction there may be a representation.
    self._seen["prediction"] = out[0] if isinstance(out, tuple) else out
    return out


def make_blueprint(config) -> Blueprint:
  """Builds what a config describes, of shapes.

  Raises:
    ConfigError, BundleError: one line on what is wrong, and where.
  """
  training_codec = build.trains_codec(config)
  frozen = None if training_codec else frozen_codec.describe(config.codec)
  codec = frozen_codec.sizes(config) if training_codec else frozen.config
  make_model = build.model_maker(config, codec)
  if "sampler" in config:
    build.make_sampler(config)  # Refused here, not after training.
  graphdef, params, buffers = state_lib.abstract_model(make_model)
  return Blueprint(
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
    given=None if training_codec else build.make_frozen(config, frozen),
    optimizer=sections.fill(
      OptimizerConfig, config.optimizer, where="optimizer"
    ),
  )


def abstract_mesh(config, devices: int | None) -> jax.sharding.AbstractMesh:
  """The config's mesh over so many devices, which need not be there.

  Raises:
    ConfigError: the axes do not multiply to `devices`.
  """
  asked = sections.fill(mesh_lib.MeshConfig, config.mesh, where="mesh")
  if devices is None:
    devices = math.prod(size for size in asked.shape if size > 0)
  return jax.sharding.AbstractMesh(
    mesh_lib.resolve_shape(asked, devices),
    mesh_lib.AXES,
    axis_types=(jax.sharding.AxisType.Auto,) * len(mesh_lib.AXES),
  )


def clips_at_a_time(
  blueprint: Blueprint, mesh: jax.sharding.AbstractMesh
) -> int:
  """Rows of a microbatch on one device.

  Raises:
    ConfigError: they do not come out even.
  """
  rows = mesh.shape["data"] * mesh.shape["fsdp"]
  accumulate = blueprint.run("accumulate")
  parts = rows * accumulate
  if blueprint.loader.batch_size < 1 or blueprint.loader.batch_size % parts:
    raise build.ConfigError(
      f"config.data.batch_size={blueprint.loader.batch_size} does not divide over"
      f" accumulate={accumulate} and the {rows} devices of the mesh"
      f" axes data and fsdp: use a multiple of {parts}"
    )
  return blueprint.loader.batch_size // parts
