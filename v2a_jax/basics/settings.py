"""Settings: frozen dataclasses that check themselves and explain themselves.

A settings class states in `__post_init__` what it accepts,

  check(self, width="[1, inf)", cond_drop_rate="[0, 1]", learning_rate="(0, inf)")
  choose(self, schedule=SCHEDULES)

marks the fields that are taken from another part of the program and never set
by hand,

  channels: int = derived("codec.latent_dim")

and describes its fields in the `Attributes:` section of its docstring, which is
also where command-line help comes from.
"""

from collections.abc import Collection, Iterator, Mapping
import dataclasses
import functools
import inspect
import math
import re
from typing import Any, TypeVar, get_args, get_type_hints

from v2a_jax.basics.text import did_you_mean, one_of

T = TypeVar("T")
_PLAIN = (bool, int, float, str)


class SettingError(ValueError):
  """A value is refused; the message begins with the field's name."""


def derived(source: str, **options) -> Any:
  """Declares a field that is filled in from elsewhere.

  Args:
    source: dotted place of the value, such as `codec.latent_dim`; see `build`.
    **options: further arguments of `dataclasses.field`.
  """
  return dataclasses.field(metadata={"derived": source}, **options)


def named(table: Mapping[str, Any]) -> Any:
  """Declares an optional nested section, None if empty.

  Its class is the entry of `table` that the field `name` beside it names, or
  that entry's `config`.
  """
  return dataclasses.field(default=None, metadata={"named": table})


def keys(cls: type) -> list[dataclasses.Field]:
  """Lists the fields of a settings class that may be set by hand."""
  return [f for f in dataclasses.fields(cls) if "derived" not in f.metadata]


def class_of(
  cls: type, field: dataclasses.Field, values: Mapping[str, Any]
) -> type | None:
  """Returns the settings class of a nested section; None for a plain field.

  Args:
    cls: class that the field belongs to.
    field: one of its fields.
    values: values of the fields beside it, among them a `name`.
  """
  if "named" in field.metadata:
    entry = field.metadata["named"].get(values.get("name"))
    return getattr(entry, "config", entry)
  kind = _hints(cls)[field.name]
  return kind if dataclasses.is_dataclass(kind) else None


_hints = functools.cache(get_type_hints)


def check(settings: Any, /, **ranges: str) -> None:
  """Checks that numbers lie in intervals.

  Args:
    settings: dataclass instance. Tuples are checked number by number; None is
      not checked.
    **ranges: interval by field name, such as `[0, 1)`; whole numbers are
      required where the field's type has int and not float.

  Raises:
    SettingError: names the field, the value and the interval.
  """
  for name, interval in ranges.items():
    value = getattr(settings, name)
    kinds = _leaves(_hints(type(settings))[name])
    whole = int in kinds and float not in kinds
    for number in _numbers(value):
      if not _inside(number, interval):
        raise SettingError(f"{name}={value!r} is not in {interval}")
      if whole and isinstance(number, float):
        raise SettingError(f"{name}={value!r} is not a whole number")


def choose(settings: Any, /, **choices: Collection[Any]) -> None:
  """Checks that values are among the known ones.

  Raises:
    SettingError: names the field, the value and the choices.
  """
  for name, known in choices.items():
    value = getattr(settings, name)
    if value not in known:
      raise SettingError(f"{name}={value!r} {one_of(known)}")


def _numbers(value: Any) -> Iterator[Any]:
  """Yields a value, or what is in its nested tuples, without None."""
  if isinstance(value, tuple | list):
    for item in value:
      yield from _numbers(item)
  elif value is not None:
    yield value


def _leaves(kind: Any) -> set[type]:
  """Returns the types that a type such as `tuple[int, ...] | None` is made of."""
  return set().union({kind}, *map(_leaves, get_args(kind)))


def _inside(number: Any, interval: str) -> bool:
  low, high = (float(end) for end in interval[1:-1].split(","))
  if isinstance(number, bool) or not isinstance(number, int | float):
    return False
  above = low <= number if interval[0] == "[" else low < number
  below = number <= high if interval[-1] == "]" else number < high
  return math.isfinite(number) and above and below


def build(
  cls: type[T],
  values: Mapping[str, Any],
  *,
  sources: Mapping[str, Any] | None = None,
  skip: Collection[str] = (),
) -> T:
  """Makes a settings object from a mapping, nested sections included.

  Lists become tuples.

  Args:
    cls: settings class.
    values: value by key; keys that are left out take their defaults.
    sources: objects or mappings by name, from which `derived` fields are
      taken; those whose source is absent take their defaults.
    skip: keys of `values` that belong to someone else, such as the `name` that
      chose the class.

  Raises:
    SettingError: a key is unknown or missing, or a value is refused; the
      message begins with the dotted key.
  """
  known = {field.name: field for field in keys(cls)}
  found = {}
  for key, value in values.items():
    if key in known and value is None and _required(known[key]):
      continue  # refused below
    if key in known:
      found[key] = _convert(cls, known[key], value, values, sources)
    elif key not in skip:
      raise SettingError(f"{key}: {_unknown(cls, key)}")
  for field in dataclasses.fields(cls):
    value = _look_up(sources or {}, field.metadata.get("derived", ""))
    if value is not None:
      found[field.name] = value
    elif field.name not in found and _required(field):
      kind = getattr(field.type, "__name__", field.type)
      raise SettingError(f"{field.name} is missing: set it ({kind})")
  return cls(**found)


def _convert(cls, field, value, values, sources) -> Any:
  """Checks the type of one value; builds nested sections."""
  nested = class_of(cls, field, values)
  if "named" in field.metadata and not value:
    return None
  if nested and isinstance(value, Mapping):
    try:
      return build(nested, value, sources=sources)
    except SettingError as error:
      raise SettingError(f"{field.name}.{error}") from None
  kind = _hints(cls)[field.name]
  if kind in _PLAIN and not _fits(value, kind):
    raise SettingError(f"{field.name}={value!r} is not of type {kind.__name__}")
  return _tuples(value)


def _fits(value: Any, kind: type) -> bool:
  if isinstance(value, bool) or kind is bool:
    return isinstance(value, bool) and kind is bool
  return isinstance(value, (int, float) if kind is float else kind)


def _unknown(cls: type, key: str) -> str:
  for field in dataclasses.fields(cls):
    if field.name == key:
      source = field.metadata["derived"]
      return f"cannot be set; it is taken from {source}"
  known = sorted(field.name for field in keys(cls))
  near = did_you_mean(key, known) or f"; there are {', '.join(known)}"
  return f"no such key{near}"


def _required(field: dataclasses.Field) -> bool:
  missing = dataclasses.MISSING
  return field.default is missing and field.default_factory is missing


def _look_up(sources: Mapping[str, Any], place: str) -> Any:
  found = sources
  for part in place.split(".") if place else ():
    if isinstance(found, Mapping):
      found = found.get(part)
    else:
      found = getattr(found, part, None)
    if found is None:
      return None
  return found if place else None


def _tuples(value: Any) -> Any:
  if isinstance(value, list | tuple):
    return tuple(_tuples(item) for item in value)
  return value


def complete(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
  """Returns `values` with the default of every key that is left out.

  Nested sections are completed, too; keys without a default become None, and
  unknown ones stay in, for `build` to refuse.
  """
  found = {k: v for k, v in values.items()}
  for field in keys(cls):
    if field.name in found:
      value = found[field.name]
    elif _required(field):
      value = None
    elif field.default is not dataclasses.MISSING:
      value = field.default
    else:
      value = field.default_factory()
    nested = class_of(cls, field, found)
    if dataclasses.is_dataclass(value):
      value = as_dict(value)
    if "named" in field.metadata:
      value = value or {}
      nested = nested if value else None
    found[field.name] = complete(nested, value) if nested else value
  return found


def as_dict(settings: Any) -> dict[str, Any]:
  """Returns the keys of a settings object that may be set, nested, by name."""
  found = {}
  for field in keys(type(settings)):
    value = getattr(settings, field.name)
    if "named" in field.metadata and value is None:
      value = {}
    is_settings = dataclasses.is_dataclass(value)
    found[field.name] = as_dict(value) if is_settings else value
  return found


@functools.cache
def describe(cls: type) -> dict[str, str]:
  """Returns what the class's docstring says of each field, by name.

  It is read from the `Attributes:` sections of the class and of those that it
  inherits from.
  """
  found = {}
  for base in reversed(cls.__mro__):
    section = (inspect.getdoc(base) or "") if base is not object else ""
    section = section.partition("Attributes:\n")[2]
    entries = re.split(r"^ {2}(?=\w)", section, flags=re.M)[1:]
    pairs = (entry.partition(":") for entry in entries)
    found |= {name: " ".join(text.split()) for name, _, text in pairs}
  return found
