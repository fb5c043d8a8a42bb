"""A config as an experiment: one object that everything else takes.

It is abstract: sizes are checked, shapes are known, and no weight is read or
allocated until it is asked for.
"""

from collections.abc import Mapping
import dataclasses
import functools
import math
from typing import Any

from flax import nnx
import jax
import numpy as np

from data_pipelines import example as example_lib
from data_pipelines import loader as loader_lib
from v2a_jax.basics import settings
from v2a_jax.batch import Batch
from v2a_jax.codec import frozen as codecs
from v2a_jax.codec.target import TARGETS
from v2a_jax.experiment import (
  agreement,
  cost,
  init_weights,
  jaxprs,
  sections,
)
from v2a_jax.experiment.sections import ConfigError, DataConfig, RootConfig
from v2a_jax.models import lora
from v2a_jax.models.generator import Generator
from v2a_jax.objectives import Objective
from v2a_jax.parallel import mesh as mesh_lib
from v2a_jax.training.optimizer import OptimizerConfig
from v2a_jax.training.state import abstract_model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
  """What a config describes; see `training.run.Trainable` for its use there.

  Attributes:
    run: top-level settings.
    data: data sets and the shape of examples.
    model: sizes of the backbone, of a codec with its critics, or of the judge
      of synchronisation.
    conditioner: sizes of the condition encoders; None but for generators.
    objective: gives the loss.
    sampler: turns a generator into latents or codes; None for others.
    optimizer: settings of the optimizer.
    mesh: sizes of the mesh's axes.
    parallel: how the devices share the work.
    lora: low-rank adaptation of the whole generator.
    codec: the frozen codec with shapes in place of weights; None where no
      generator is trained.
    names: name of the model, objective and sampler in a config.
  """

  run: RootConfig
  data: DataConfig
  model: Any
  conditioner: Any
  objective: Objective
  sampler: Any
  optimizer: OptimizerConfig
  mesh: mesh_lib.MeshConfig
  parallel: mesh_lib.ParallelConfig
  lora: lora.LoraConfig
  codec: codecs.FrozenCodec | None
  names: Mapping[str, str]

  @classmethod
  def from_config(
    cls, config: Mapping[str, Any], *, before: Mapping[str, Any] | None = None
  ) -> "Experiment":
    """Makes an experiment from a config; keys that are left out take defaults.

    Args:
      config: a ConfigDict or nested dicts.
      before: resolved config of the run that this one continues; sizes of
        published networks are taken from it.

    Raises:
      ConfigError: a key is unknown, a value is out of range, or two do not go
        together; names the key, the value and what is accepted.
      BundleError, MissingWeightsError, WrongWeightsError: the codec, or what is
        named to start from, is missing or of another kind.
    """
    config = sections.complete(config)
    names = sections.names_of(config)
    classes = sections.classes(names)
    sources: dict[str, Any] = {}

    def make(section: str) -> Any:
      values = sections.look_up(config, section)
      return sections.build(classes[section], section, values, sources)

    run, objective = make(""), make("objective")
    generates = names["model"] not in sections.OTHERS
    codec = _describe_codec(run.codec) if generates else None
    agreement.check_family(names, config["data"]["target"], codec, run.codec)
    sources |= {"seed": run.seed, "objective": objective}
    sources |= {"codec": codec and codec.config, "model": config["model"]}
    model = make("model")
    sources |= {"model": model, "codec": codec.config if codec else model}
    conditioner = None
    if codec:
      part = config["model"]["conditioner"]
      init_weights.fill_sizes(part, run.init_from, before)
      sources["data"] = config["data"]
      conditioner = make(sections.CONDITIONER)
    decodes = not config["data"]["features"] or bool(
      conditioner and conditioner.reads_frames
    )
    sources["features"] = {"decode_frames": decodes}
    experiment = cls(
      run=run,
      objective=objective,
      codec=codec,
      model=model,
      conditioner=conditioner,
      sampler=make("sampler") if codec else None,
      names=names,
      **{section: make(section) for section in sections.FIXED},
    )
    agreement.check_sections(experiment)
    return experiment

  @functools.cached_property
  def config(self) -> dict[str, Any]:
    """The resolved config: every key of every section, JSON-able."""
    config = settings.as_dict(self.run)
    parts = ("data", "model", "objective", "sampler")
    for section in (*parts, "optimizer", "mesh", "parallel", "lora"):
      if (part := getattr(self, section)) is not None:
        name = {"name": self.names[section]} if section in self.names else {}
        config[section] = name | settings.as_dict(part)
    if self.conditioner:
      config["model"]["conditioner"] = settings.as_dict(self.conditioner)
    return config

  @property
  def trains_generator(self) -> bool:
    """Whether a generator is trained; if not, one of `sections.OTHERS`."""
    return self.codec is not None

  @property
  def trains_codec(self) -> bool:
    """Whether a codec is trained."""
    return self.names["model"] == "codec"

  @property
  def codec_config(self) -> Any:
    """What has `sample_rate` and `channels` of the sound that is read.

    The codec's sizes, frozen or trained, or the judge's.
    """
    return self.codec.config if self.codec else self.model

  # The model.

  def make_model(self, rngs: nnx.Rngs) -> nnx.Module:
    """Makes a `Generator`, or one of `sections.OTHERS`; can be traced."""
    if not self.trains_generator:
      return self.model.make(rngs=rngs)
    backbone = self.model.make(rngs=rngs)
    model = Generator(self.conditioner.make(rngs=rngs), backbone)
    return lora.adapt(model, self.lora, rngs=rngs) if self.lora.rank else model

  @functools.cached_property
  def abstract(self) -> tuple[Any, Any, Any]:
    """(graphdef, params, buffers) of the model, with shapes for arrays."""
    return abstract_model(self.make_model)

  @functools.cached_property
  def abstract_conditioner(self) -> nnx.Module:
    """The condition encoders, with shapes for arrays."""
    return nnx.merge(*self.abstract).conditioner

  # What it learns to produce.

  @functools.cached_property
  def representation(self) -> Any:
    """What is generated: latents or codes of the codec (`codec.target`)."""
    return TARGETS[self.data.target].for_model(self.codec, self.model)

  @functools.cached_property
  def target(self) -> Any:
    """`target(frozen, batch) -> batch`; None but for generators."""
    if not self.trains_generator:
      return None
    rate = self.codec_config.sample_rate
    return self.objective.target(self.representation, sample_rate=rate)

  def frozen(self) -> Any:
    """Reads the arrays that `target` takes: weights of codec and teacher.

    Raises:
      MissingWeightsError, WrongWeightsError: the teacher's cannot be had.
    """
    if not self.trains_generator:
      return ()
    return self.target.frozen(codecs.load(self.run.codec).state)

  @functools.cached_property
  def abstract_frozen(self) -> Any:
    """Shapes of what `frozen` returns."""
    if not self.trains_generator:
      return ()
    return self.target.frozen(self.codec.state)

  # The data.

  @property
  def batch_size(self) -> int:
    """Number of rows of a global batch."""
    return self.data.batch_size

  @property
  def make_batch(self):
    """Makes a `Batch` of a loader's arrays."""
    return Batch.from_arrays

  def open_loader(
    self, split: str, *, step: int = 0, index: int = 0, count: int = 1
  ) -> loader_lib.Loader:
    """Opens the batches of a split; see `training.run.Trainable`.

    `val` is read in its own order, from the start of each record. Cached latents
    or codes must be those of the codec.

    Raises:
      DataError: there is no such data set, or nothing in that split.
    """
    data = self.data
    if data.cached_target:
      codec = codecs.load(self.run.codec).sha256
      data = dataclasses.replace(data, codec=codec)
    if split != "train":
      data = dataclasses.replace(
        data,
        split=split,
        shuffle=False,
        crop="start",
        random_caption=False,
        gain_db=0.0,
        num_workers=0,
      )
    return loader_lib.make_loader(
      data, start_step=step, process_index=index, process_count=count
    )

  def blank_batch(self, b: int) -> Batch:
    """Makes an empty batch of b examples, for tracing and counting."""
    blank = example_lib.blank_example(self.data.window, index=0)
    arrays = {
      k: np.broadcast_to(v, (b, *np.shape(v))) for k, v in blank.items()
    }
    batch = Batch.from_arrays(arrays)
    return batch.replace(**self._blank_target(b))

  def _blank_target(self, b: int) -> dict[str, Any]:
    """Returns what a batch has of cached latents or codes: zeros."""
    data = self.data
    if not data.cached_target:
      return {}
    sound = (b, data.window.num_samples, data.channels)
    target, std = jax.eval_shape(
      self.representation.distribution,
      self.representation.frozen(self.codec.state),
      jax.ShapeDtypeStruct(sound, np.float32),
    )
    zeros = lambda x: None if x is None else np.zeros(x.shape, x.dtype)
    return {"target": zeros(target), "target_std": zeros(std)}

  @functools.cached_property
  def abstract_batch(self):
    """`abstract_batch(b)`: b examples with their target filled in, of shapes."""

    @functools.cache
    def make(b: int) -> Batch:
      blank = self.blank_batch(b)
      if self.target is None:
        return blank
      return jax.eval_shape(self.target, self.abstract_frozen, blank)

    return make

  # The run.

  @property
  def meta(self) -> dict[str, Any]:
    """What each checkpoint says of the experiment."""
    return {"config": self.config}

  def step_flops(self, step: jaxprs.Jaxpr) -> float:
    """Counts the FLOPs of a training step on a global batch, on its jaxpr."""
    return cost.step_flops(self, step)

  @functools.cached_property
  def initial(self) -> init_weights.InitWeights:
    """Where the weights of a new run come from."""
    return init_weights.InitWeights.of(self)

  def first_weights(self) -> Mapping | None:
    """Reads the weights that a new run starts from; None for fresh ones.

    Raises:
      BundleError, CheckpointError, MissingWeightsError, WrongWeightsError: they
        are missing or of another model; every tensor that does not fit is
        named.
    """
    if not self.initial:
      return None
    _, params, buffers = self.abstract
    return self.initial.read(params, buffers)

  def sampler_with(self, changes: Mapping[str, Any] | None = None):
    """Makes the sampler with other values for some of its fields.

    Raises:
      ConfigError: a field is unknown, or its value is refused.
    """
    if not changes:
      return self.sampler
    section = dict(self.config["sampler"])
    guidance = section["guidance"] | dict(changes.get("guidance", {}))
    section |= dict(changes) | {"guidance": guidance}
    sampler = sections.build(type(self.sampler), "sampler", section, {})
    agreement.check_sections(dataclasses.replace(self, sampler=sampler))
    return sampler

  def abstract_mesh(
    self, devices: int | None = None
  ) -> jax.sharding.AbstractMesh:
    """Makes the mesh over so many devices, which need not exist.

    Args:
      devices: number of devices; None for the fewest that the axes allow.

    Raises:
      ConfigError: the axes do not multiply to `devices`.
    """
    if devices is None:
      devices = math.prod(size for size in self.mesh.shape if size > 0)
    try:
      shape = mesh_lib.resolve_shape(self.mesh, devices)
    except ValueError as error:
      raise ConfigError(f"config.{error}") from None
    return jax.sharding.AbstractMesh(
      shape,
      mesh_lib.AXES,
      axis_types=(jax.sharding.AxisType.Auto,) * len(mesh_lib.AXES),
    )


def _describe_codec(name: str) -> codecs.FrozenCodec:
  if not name:
    raise ConfigError(
      "config.codec='': name the codec that is generated for, such as"
      " 'codec_tiny'"
    )
  try:
    return codecs.describe(name)
  except settings.SettingError as error:
    raise ConfigError(f"config.codec={name!r}: {error}") from None
