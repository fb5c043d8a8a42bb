"""A config's sections as dataclasses, and what is said where they do not fit."""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any


class ConfigError(ValueError):
  """A config asks for what does not exist or does not fit."""


def fill(cls, section: Mapping[str, Any], *, where: str, **more):
  """Makes the dataclass `cls` from a config section.

  Raises:
    ConfigError: a key is stray or missing, or a value is refused.
  """
  known = {f.name for f in dataclasses.fields(cls)}
  # A name that is no field has chosen the class.
  given = {k: v for k, v in section.items() if k != "name" or k in known}
  values = {k: _tuples(v) for k, v in given.items()} | more
  stray = sorted(values.keys() - known)
  if stray:
    raise ConfigError(
      f"config.{where}: no key {', '.join(stray)};"
      f" {cls.__name__} has {', '.join(sorted(known))}"
    )
  try:
    return cls(**values)
  except (TypeError, ValueError) as error:
    raise ConfigError(f"config.{where}: {error}") from None


def pick(table: Mapping[str, Any], name: str, *, where: str):
  """Looks a name up; a wrong one is answered with those there are."""
  if name not in table:
    raise ConfigError(
      f"config.{where}={name!r} is not one of {', '.join(sorted(table))}"
    )
  return table[name]


def look_up(config: Mapping[str, Any], key: str):
  """What a dotted key of a config holds; {} if it is not there."""
  return functools.reduce(lambda c, k: c.get(k, {}), key.split("."), config)


def _tuples(value):
  if isinstance(value, list | tuple):
    return tuple(_tuples(v) for v in value)
  return value
