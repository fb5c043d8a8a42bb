"""The sections of a config and the settings classes that they become.

  config.<key>               `RootConfig`
  config.data                `DataConfig`
  config.model               the class in `MODELS` that `model.name` names, and
                             in `model.conditioner` that of `CONDITIONERS`
                             which the model's class names
  config.objective, .sampler the classes that their `name` names
  config.optimizer, .mesh, .parallel, .lora

A resolved config holds every key of every one of these classes, so that each
can be set and swept from the command line.
"""

import collections
from collections.abc import Iterator, Mapping
import dataclasses
from typing import Any

from data_pipelines.loader_config import LoaderConfig
from v2a_jax.basics import settings
from v2a_jax.basics.text import did_you_mean, one_of
from v2a_jax.codec.target import TARGETS
from v2a_jax.conditioning import CONDITIONERS
from v2a_jax.models import BACKBONES
from v2a_jax.models.lora import LoraConfig
from v2a_jax.objectives import OBJECTIVES
from v2a_jax.objectives.codec import CodecGANConfig
from v2a_jax.parallel.mesh import MeshConfig, ParallelConfig
from v2a_jax.sampling import SAMPLERS
from v2a_jax.sync.network import SyncConfig
from v2a_jax.training.optimizer import OptimizerConfig
from v2a_jax.training.run import RunConfig


class ConfigError(ValueError):
  """A config asks for what does not exist or does not fit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RootConfig(RunConfig):
  """The top-level keys of a config; see also `RunConfig`.

  Attributes:
    name: name of the experiment.
    codec: codec whose latents or codes are generated: a bundle (its folder, or
      its name in assets/), a folder with a DAC, or patches of the waveform
      itself, `patches:RATE:HOP:CHANNELS`; "" where no generator is trained.
    init_from: workdir or bundle whose weights a new run starts from; "" for
      fresh ones.
    init_fresh: parts that start fresh all the same, such as
      "backbone/interval", or "discriminator", which a codec's bundle lacks.
  """

  name: str = ""
  codec: str = ""
  init_from: str = ""
  init_fresh: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(LoaderConfig):
  """What is read and what is generated from it; see also `LoaderConfig`.

  Attributes:
    target: representation that a generator produces, `latents` or `codes`; ""
      where none is trained.
  """

  target: str = ""

  def __post_init__(self):
    super().__post_init__()
    settings.choose(self, target=("", *TARGETS))


# What is trained beside generators.
OTHERS = {"codec": CodecGANConfig, "sync": SyncConfig}
MODELS = collections.ChainMap(BACKBONES, OTHERS)
# Sections whose class is chosen by their `name`, and those of one class.
NAMED = {"model": MODELS, "objective": OBJECTIVES, "sampler": SAMPLERS}
FIXED = {
  "data": DataConfig,
  "optimizer": OptimizerConfig,
  "mesh": MeshConfig,
  "parallel": ParallelConfig,
  "lora": LoraConfig,
}
CONDITIONER = "model.conditioner"


def classes(names: Mapping[str, str]) -> dict[str, type]:
  """Returns the class of each section by its dotted name.

  Args:
    names: name of the model, the objective and, of a generator, the sampler.

  Raises:
    ConfigError: a name is missing or unknown; those that exist are listed.
  """
  found = {"": RootConfig, **FIXED}
  for section, name in names.items():
    table = NAMED[section]
    if name not in table:
      hint = did_you_mean(name, table)
      raise ConfigError(f"config.{section}.name={name!r} {one_of(table)}{hint}")
    found[section] = table[name]
  if names["model"] in BACKBONES:
    found[CONDITIONER] = CONDITIONERS[found["model"].conditioner]
  return found


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a config as plain dicts, with the default of every absent key.

  Raises:
    ConfigError: see `classes`.
  """
  if hasattr(config, "to_dict"):
    config = config.to_dict()
  found = {}
  for section, cls in classes(names_of(config)).items():
    values = settings.complete(cls, look_up(config, section) or {})
    if section == CONDITIONER:
      found["model"]["conditioner"] = values
    else:
      found |= {section: values} if section else values
  return found


def names_of(config: Mapping[str, Any]) -> dict[str, str]:
  """Returns the names that choose the classes of a config's sections."""
  # Where no generator is trained nothing is sampled.
  sections = [s for s in NAMED if config.get(s) or s != "sampler"]
  return {s: config.get(s, {}).get("name", "") for s in sections}


def build(
  cls: type, section: str, values: Mapping[str, Any], sources: Mapping[str, Any]
) -> Any:
  """Makes the settings object of one section.

  Args:
    cls: class of the section.
    section: its dotted name, "" for the top level.
    values: its keys.
    sources: values of `derived` fields; see `settings.build`.

  Raises:
    ConfigError: a key is unknown or missing, or a value is refused; names the
      key, the value and what is accepted.
  """
  skip = {"": {*FIXED, *NAMED}, "model": {"name", "conditioner"}}
  named = {"name"} if section in NAMED else set()
  try:
    return settings.build(
      cls, values, sources=sources, skip=skip.get(section, named)
    )
  except (TypeError, ValueError) as error:
    where = f"config.{section}" if section else "config"
    dot = "." if isinstance(error, settings.SettingError) else ": "
    raise ConfigError(f"{where}{dot}{error}") from None


def look_up(values: Mapping[str, Any], key: str) -> Any:
  """Returns what a dotted key of nested mappings holds; None if there is none."""
  found = values
  for part in key.split(".") if key else ():
    found = found.get(part) if isinstance(found, Mapping) else None
  return found


def help_lines(
  config: Mapping[str, Any],
) -> Iterator[tuple[str, str, Any, str]]:
  """Yields (dotted key, type, value, description) of every key of a config."""
  config = complete(config)
  for section, cls in classes(names_of(config)).items():
    values = look_up(config, section)
    if section in NAMED and "name" not in settings.describe(cls):
      known = ", ".join(NAMED[section])
      yield f"{section}.name", "str", values["name"], f"one of {known}"
    yield from _help_of(cls, values, f"{section}." if section else "")


def _help_of(cls: type, values: Mapping[str, Any], prefix: str):
  about = settings.describe(cls)
  for field in settings.keys(cls):
    value = values.get(field.name)
    nested = settings.class_of(cls, field, values)
    if isinstance(value, Mapping) and nested:
      yield from _help_of(nested, value, f"{prefix}{field.name}.")
      continue
    kind = getattr(field.type, "__name__", str(field.type))
    yield f"{prefix}{field.name}", kind, value, about.get(field.name, "")
