"""Where the weights of a new run come from.

  fresh       initialised from the seed
  saved       those of another run or of a bundle (`config.init_from`)
  published   of a frozen tower or prompt encoder, from its folder

A model's sizes must not depend on a folder that may be gone when its weights
are used, so the sizes of published networks are part of the resolved config.
"""

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

from flax import nnx
import numpy as np

from v2a_jax.basics import settings
from v2a_jax.basics.paths import as_path
from v2a_jax.conditioning.mmaudio import SYNC_NETWORKS
from v2a_jax.conditioning.semantic import TOWERS
from v2a_jax.conditioning.text import NETWORKS
from v2a_jax.experiment import published, sections
from v2a_jax.experiment.sections import CONDITIONER, ConfigError, look_up
from v2a_jax.models import lora
from v2a_jax.objectives.codec import CodecGANConfig
from v2a_jax.training import restore
from v2a_jax.training.checkpoint import CheckpointError
from v2a_jax.weights import bundle, names


@dataclasses.dataclass(frozen=True)
class Part:
  """A part of the condition encoders that may be a published network.

  Attributes:
    section: name of its section of the conditioner's settings.
    place: name of its weights in the model.
    networks: networks by name, each with `config` (class of its sizes),
      `read_config(folder)` and `load(folder)`.
  """

  section: str
  place: names.Name
  networks: Mapping[str, Any]

  @property
  def key(self) -> str:
    """Dotted key of its section in a config."""
    return f"{CONDITIONER}.{self.section}"

  def read(self, section: Any) -> dict[names.Name, Any]:
    """Reads the network that a section names: weights by name in the model.

    Raises:
      ConfigError: no folder is named, or its network has other sizes.
      MissingWeightsError, WrongWeightsError: the folder cannot be used.
    """
    if not section.path:
      raise ConfigError(
        f"config.{self.key}.path='': a new run needs the folder of these"
        " weights, or config.init_from"
      )
    network = self.networks[section.name]
    sizes = network.read_config(section.path)
    for field in dataclasses.fields(sizes):
      ours, theirs = (getattr(x, field.name) for x in (section.sizes, sizes))
      if ours != theirs:
        raise ConfigError(
          f"config.{self.key}.sizes.{field.name}={ours!r}, but {section.path}"
          f" has {theirs!r}"
        )
    arrays = names.flatten(nnx.state(network.load(section.path)))
    return {(*self.place, *name): array for name, array in arrays.items()}


PARTS = (
  Part("semantic", ("conditioner", "semantic", "tower"), TOWERS),
  Part("prompt_encoder", ("conditioner", "prompt", "encoder"), NETWORKS),
  Part("clip", ("conditioner", "clip"), TOWERS),
  Part("sync", ("conditioner", "sync"), SYNC_NETWORKS),
)


def fill_sizes(
  conditioner: dict[str, Any],
  init_from: str,
  before: Mapping[str, Any] | None,
) -> None:
  """Fills in the sizes of published networks that are left out.

  They are those of `before`, of `init_from`, or else of the network's folder.

  Args:
    conditioner: completed section `model.conditioner`; changed in place.
    init_from: workdir or bundle that a new run starts from, or "".
    before: resolved config of the run that this one continues, or None.

  Raises:
    ConfigError: nothing says them.
    BundleError, MissingWeightsError, WrongWeightsError: the source cannot be
      read.
  """
  for part in PARTS:
    section = conditioner.get(part.section, {"name": ""})
    if section["name"] not in part.networks or section["sizes"]:
      continue
    if before is None and init_from:
      before = source_config(init_from)
    earlier = look_up(before or {}, part.key) or {}
    same = all(section[key] == earlier.get(key) for key in ("name", "path"))
    if same and earlier.get("sizes"):
      section["sizes"] = earlier["sizes"]
    elif section["path"]:
      network = part.networks[section["name"]]
      section["sizes"] = settings.as_dict(network.read_config(section["path"]))
    else:
      raise ConfigError(
        f"config.{part.key}.path='': name the folder of this"
        f" {section['name']}, with config.json and model.safetensors"
      )


def source_config(name: str) -> dict[str, Any]:
  """Reads the config of what `init_from` names.

  Raises:
    BundleError, ConfigError, MissingWeightsError: there is nothing of that
      name, or not all of it.
  """
  if system := published.find(name):
    return sections.complete(system.config(name))
  return bundle.read_config(_folder(name))


def source_tokenizers(name: str) -> dict[str, str]:
  """Returns the `LoaderConfig` fields of the tokenizers of what `init_from`
  names; raises as `source_config` does."""
  if system := published.find(name):
    return system.tokenizers(name)
  return bundle.tokenizers(_folder(name))


def _folder(name: str) -> pathlib.Path:
  folder = as_path(name)
  is_workdir = (folder / bundle.TOKENIZER).is_file()
  return folder if is_workdir else bundle.find(folder)


@dataclasses.dataclass(frozen=True)
class InitWeights:
  """Where the weights of a new run come from; false if all start fresh.

  Attributes:
    source: workdir, bundle or published generator whose weights are taken; ""
      for none.
    fresh: parts that start fresh all the same, such as "backbone/interval".
    published: published parts, each with its section's settings.
    model: sizes of the backbone, or of a codec with its critics.
    conditioner: sizes of the condition encoders.
  """

  source: str
  fresh: tuple[str, ...]
  published: tuple[tuple[Part, Any], ...]
  model: Any
  conditioner: Any

  @classmethod
  def of(cls, experiment) -> "InitWeights":
    """Returns where an experiment's first weights come from."""
    published = []
    for part in PARTS if experiment.conditioner else ():
      section = getattr(experiment.conditioner, part.section, None)
      if section and section.name in part.networks:
        published.append((part, section))
    run = experiment.run
    return cls(
      run.init_from,
      run.init_fresh,
      tuple(published),
      experiment.model,
      experiment.conditioner,
    )

  def __bool__(self) -> bool:
    return bool(self.source or self.published)

  def read(self, params: Any, buffers: Any) -> dict[names.Name, Any]:
    """Reads them: host arrays by name; weights that start fresh are absent.

    Weights that low-rank adaptation adds always start fresh.

    Args:
      params: shapes of the model's parameters.
      buffers: shapes of its other variables.

    Raises:
      ConfigError: the model has nothing under a name in `fresh`.
      BundleError, CheckpointError, MissingWeightsError, WrongWeightsError: a
        source is missing or of another model; every tensor that does not fit
        is named.
    """
    wanted = names.flatten(params) | names.flatten(buffers)
    self._check_fresh(wanted)
    wanted = {
      name: leaf
      for name, leaf in wanted.items()
      if name[-1] not in lora.NEW and not _under(name, self.fresh)
    }
    if self.source:
      arrays = self._saved()
      arrays = {k: v for k, v in arrays.items() if not _under(k, self.fresh)}
      _compare(self.source, arrays, wanted)
      return {k: np.asarray(v, wanted[k].dtype) for k, v in arrays.items()}
    arrays = {}
    for part, section in self.published:
      theirs, depth = part.read(section), len(part.place)
      ours = {k: v for k, v in wanted.items() if k[:depth] == part.place}
      _compare(section.path, theirs, ours)
      arrays |= theirs
    return arrays

  def _saved(self) -> dict[names.Name, Any]:
    if system := published.find(self.source):
      return system.read(self.source, self.model, self.conditioner)
    arrays = read_saved(self.source)
    trains_codec = isinstance(self.model, CodecGANConfig)
    if trains_codec and all(name[0] != "codec" for name in arrays):
      # A bundle: the codec without its critics.
      return {("codec", *name): array for name, array in arrays.items()}
    return arrays

  def _check_fresh(self, wanted) -> None:
    for part in self.fresh:
      if not any(_under(name, (part,)) for name in wanted):
        parts = sorted({"/".join(name[:2]) for name in wanted})
        raise ConfigError(
          f"config.init_fresh: the model has nothing at {part!r}; its parts are"
          f" {', '.join(parts)}"
        )


def read_saved(name: str) -> dict[names.Name, Any]:
  """Reads the weights of a run (its average, if it kept one) or of a bundle.

  Raises:
    BundleError, CheckpointError: there is none, or it is damaged.
  """
  if restore.list_steps(restore.checkpoint_root(name)):
    state = restore.restore_params(name).state
    return state["params"] | state["buffers"]
  return bundle.read_arrays(bundle.find(name))


def _under(name: names.Name, parts: tuple[str, ...]) -> bool:
  return f"{'/'.join(name)}/".startswith(tuple(f"{p}/" for p in parts))


def _compare(source, arrays, wanted) -> None:
  if faults := names.compare(arrays, wanted):
    raise CheckpointError(
      f"{source}: {faults}; use the config it was trained with, or start parts"
      " afresh with config.init_fresh"
    )
