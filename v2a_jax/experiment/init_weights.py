"""The weights that a new run starts from: another model's, or published ones.

A model's sizes must not depend on a folder that may be gone when its weights
are used, so those of a published part are written into the config.
"""

from collections.abc import Callable, Mapping
import copy
import dataclasses
import pathlib
from typing import Any

from flax import nnx
import jax
import numpy as np

from v2a_jax.codec import frozen as frozen_codec
from v2a_jax.conditioning import text
from v2a_jax.experiment import build, build_conditioner, sections
from v2a_jax.experiment import load as trained
from v2a_jax.experiment.sections import ConfigError
from v2a_jax.models import lora
from v2a_jax.pretrained import vit
from v2a_jax.training.state import abstract_model
from v2a_jax.weights import bundle, names


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
  """A part of a generator whose weights were published by others.

  Attributes:
    key: of its section in a config, with `path` and `sizes`.
    place: of its weights in the model.
    describe: from a config to what `build` makes of the section; None if the
      model has no such part.
    network: from that to what reads a folder: `read_config` and `load`.
  """

  key: str
  place: tuple[str, ...]
  describe: Callable[[Any], Any]
  network: Callable[[Any], Any]

  def sizes(self, config) -> Any:
    """The dataclass of its sizes; None if the model has no such part."""
    found = self.describe(config)
    return found and found.sizes

  def section(self, config) -> Mapping[str, Any]:
    return sections.look_up(config, self.key) or {}

  def read(self, config) -> tuple[str, dict[tuple, Any]]:
    """Its folder, and its weights by their names in the model.

    Raises:
      ConfigError: no folder is named, or it is not what the config says.
      MissingWeightsError, WrongWeightsError: the folder cannot be used.
    """
    path = self.section(config).get("path")
    if not path:
      raise ConfigError(
        f"config.{self.key}.path='': a new run needs the folder of these"
        " weights, or config.init_from"
      )
    network = self.network(self.describe(config))
    wanted, found = self.sizes(config), network.read_config(path)
    for field in dataclasses.fields(wanted):
      old, new = (getattr(sizes, field.name) for sizes in (wanted, found))
      if old != new:
        raise ConfigError(
          f"config.{self.key}.sizes.{field.name}={old!r}, but {path} has {new!r}"
        )
    arrays = names.flatten(nnx.state(network.load(path)))
    return path, {(*self.place, *name): leaf for name, leaf in arrays.items()}


PARTS = (
  Part(
    key="model.conditioner.semantic",
    place=("conditioner", "semantic", "tower"),
    describe=build_conditioner.semantic,
    network=lambda _: vit,
  ),
  Part(
    key="model.conditioner.prompt_encoder",
    place=("conditioner", "prompt", "encoder"),
    describe=build_conditioner.prompt_encoder,
    network=lambda found: text.NETWORKS[found.name],
  ),
)


def published(config) -> list[Part]:
  """The parts of a config's model that come from elsewhere."""
  if build.trains_codec(config):
    return []
  return [part for part in PARTS if part.sizes(config) is not None]


def with_sizes(config, workdir: pathlib.Path):
  """The config with the sizes of every published part written into it.

  They are those that the workdir or `init_from` has for the same network, or
  else the folder's own.

  Raises:
    ConfigError, MissingWeightsError, WrongWeightsError: nothing says them.
  """
  if build.trains_codec(config):
    return config
  before = {}
  if trained.has_checkpoints(workdir):  # What it started from may be gone.
    before = bundle.read_config(workdir)
  elif config.get("init_from"):
    before = bundle.read_config(source_folder(config))
  config = copy.deepcopy(config)
  for part in PARTS:
    section = part.section(config)
    if not section.get("path") or section.get("sizes"):
      continue
    named = {key: section[key] for key in ("name", "path")}
    known = part.section(before)
    if named.items() <= known.items():
      sizes = known["sizes"]
    else:
      sizes = dataclasses.asdict(part.sizes(config))
    with config.unlocked():
      section["sizes"] = sizes
  return config


def source_folder(config) -> pathlib.Path:
  """The folder that `init_from` names.

  Raises:
    BundleError: there is nothing of that name.
  """
  folder = pathlib.Path(config["init_from"])
  is_workdir = (folder / bundle.TOKENIZER).is_file()
  return folder if is_workdir else bundle.find(folder)


def initial_weights(config, make_model):
  """Returns a function that reads weights to start from, or None.

  They are those of `init_from`, or of the published parts; host arrays by name.
  Those that low-rank adaptation adds start fresh, and those under `init_fresh`.

  Raises:
    ConfigError: the model has nothing under a name of `init_fresh`.
    BundleError, CheckpointError, MissingWeightsError, WrongWeightsError: what
      is named is missing, or of another model; every tensor that does not fit
      is named.
  """
  source, parts = config.get("init_from"), published(config)
  if not (source or parts):
    return None

  def read():
    _, *model = abstract_model(make_model)
    wanted = {k: v for part in model for k, v in names.flatten(part).items()}
    fresh = tuple(config.get("init_fresh", ()))
    _check_parts(fresh, wanted)
    old = {
      name: array
      for name, array in wanted.items()
      if name[-1] not in lora.NEW and not _within(name, fresh)
    }
    if source:
      given = trained.load(source)
      found = names.flatten(nnx.state(given.model))
      found = {k: v for k, v in found.items() if not _within(k, fresh)}
      names.compare(given.source["path"], old, found)
      return found
    found = {}
    for part in parts:
      path, theirs = part.read(config)
      place = part.place
      ours = {k: v for k, v in old.items() if k[: len(place)] == place}
      names.compare(path, ours, theirs)
      found |= theirs
    return found

  return read


def _within(name: tuple[str, ...], parts: tuple[str, ...]) -> bool:
  return f"{'/'.join(name)}/".startswith(tuple(f"{p}/" for p in parts))


def _check_parts(fresh: tuple[str, ...], wanted) -> None:
  for part in fresh:
    if not any(_within(name, (part,)) for name in wanted):
      parts = sorted({"/".join(name[:2]) for name in wanted})
      raise ConfigError(
        f"config.init_fresh: the model has nothing at {part!r}; its parts are"
        f" {', '.join(parts)}"
      )


def first_model(config) -> nnx.Module:
  """What a new run would start from; weights that nobody gives are zero.

  Raises:
    ConfigError: nothing gives any; and as `initial_weights`.
  """
  codec = frozen_codec.describe(config.codec).config
  make_model = build.model_maker(config, codec)
  read = initial_weights(config, make_model)
  if read is None:
    raise ConfigError(
      "config.init_from='': name the run or bundle to start from"
    )
  given = read()
  graphdef, *parts = abstract_model(make_model)
  filled = []
  for part in parts:
    leaves = [
      given[name] if name in given else np.zeros(leaf.shape, leaf.dtype)
      for name, leaf in names.flatten(part).items()
    ]
    filled.append(jax.tree.unflatten(jax.tree.structure(part), leaves))
  return nnx.merge(graphdef, *filled)
