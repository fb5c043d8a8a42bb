"""Config files on the command line: `--config=FILE --config.KEY=VALUE`.

ml_collections parses the overrides. This module adds where a config file is
looked for, the defaults of all keys that it leaves out, its sweeps, help for
every key, and errors of one line.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import functools
import hashlib
import json
import pathlib
import re
import runpy
import textwrap
from typing import Any

from absl import flags
from ml_collections import config_dict, config_flags

from launch.parsing import UsageError
from v2a_jax.basics.paths import local_path
from v2a_jax.basics.text import did_you_mean

PACKAGED = pathlib.Path(__file__).resolve().parents[1]
SWEEP = "sweep_"
EVALUATE = "evaluate_"


def find_config(name: str) -> str:
  """Returns the path of a config file, with its `:argument` if it has one.

  A path that does not exist is also looked for beside this package, so
  `configs/diffusion_tiny.py` works from any folder.

  Raises:
    UsageError: no such file; names the nearest one.
  """
  if not name:
    raise UsageError("no config: give --config=configs/diffusion_tiny.py")
  local_path(name, "a config file")
  path, colon, argument = name.partition(":")
  for folder in (pathlib.Path(), PACKAGED):
    if (folder / path).is_file():
      return str((folder / path).resolve()) + colon + argument
  files = sorted((PACKAGED / "configs").rglob("[!_]*.py"))
  known = [str(file.relative_to(PACKAGED)) for file in files]
  hint = did_you_mean(path, known) or f"; there are {', '.join(known)}"
  raise UsageError(f"no config file {path}{hint}")


def read(name: str) -> Any:
  """Calls the `get_config` of a config file, such as `configs/ar.py:large`.

  What follows the colon is its argument, or arguments by name:
  `configs/sweeps/ar_vs_diffusion.py:arm=ar,size=small`.
  """
  contents = _run_file(name)
  if "get_config" not in contents:
    raise UsageError(f"{name} defines no get_config()")
  argument = name.partition(":")[2]
  with _one_line(name):
    if "=" in argument:
      pairs = (part.partition("=")[::2] for part in argument.split(","))
      return contents["get_config"](**dict(pairs))
    return contents["get_config"](*[argument] if argument else [])


def _run_file(name: str) -> dict[str, Any]:
  """Runs a config file and returns its globals."""
  path = find_config(name).partition(":")[0]
  with _one_line(name):
    return runpy.run_path(path)


@contextlib.contextmanager
def _one_line(name: str) -> Iterator[None]:
  """Turns any error of a config file, which is the user's code, into one line."""
  try:
    yield
  except Exception as error:
    raise UsageError(f"{name}: {error} [{type(error).__name__}]") from error


def parse(name: str, overrides: Sequence[str] = ()) -> config_dict.ConfigDict:
  """Reads a config file and applies `--config.KEY=VALUE` arguments.

  Returns:
    The config with every key of every section, locked.

  Raises:
    UsageError: no such file, an unknown key (with the nearest known one), or a
      value of the wrong type.
    ConfigError: the file names a model, objective or sampler that is unknown.
  """
  config = _complete(read(name), overrides)
  values, argv = flags.FlagValues(), ["v2a", *overrides]
  try:
    config_flags.DEFINE_config_dict(
      "config", config, flag_values=values, sys_argv=argv
    )
    values(argv)
  except (flags.Error, AttributeError, KeyError, TypeError) as error:
    raise _refusal(config, overrides, error) or error from None
  return values.config


def _complete(config: Any, overrides: Sequence[str]) -> config_dict.ConfigDict:
  """Fills in the keys that a config leaves out.

  Overrides that choose a class (`--config.model.name=ar`) are applied first, so
  that the keys of the chosen one are filled in.
  """
  # Here, so that `v2a train --help` does not import jax.
  from v2a_jax.experiment import sections

  config = config_dict.ConfigDict(config, convert_dict=True).to_dict()
  for arg in overrides:
    match = re.fullmatch(r"--config\.([\w.]+)\.name=(\w*)", arg)
    section = match and sections.look_up(config, match[1])
    if isinstance(section, dict):
      section["name"] = match[2]
  config = sections.complete(config)
  _allow_any(config["data"], "frame_size")  # a number or a pair
  for section in config.values():
    if isinstance(section, dict):
      for key in [key for key, value in section.items() if value is None]:
        _allow_any(section, key)  # required, and not in the file
  return config_dict.ConfigDict(config).lock()


def _allow_any(section: dict[str, Any], key: str) -> None:
  """Lets an override of a key have another type than its value."""
  section[key] = config_dict.FieldReference(section[key], field_type=object)


def check(config: config_dict.ConfigDict) -> None:
  """Builds the sections that need no codec, to refuse values out of range.

  Raises:
    ConfigError: names the key, the value and what is accepted.
  """
  from v2a_jax.experiment import sections

  config = config.to_dict()
  for section, cls in sections.classes(sections.names_of(config)).items():
    if not section.startswith("model"):
      values = sections.look_up(config, section)
      sections.build(cls, section, values, {})


def help_text(config: config_dict.ConfigDict) -> str:
  """Lists every key of a config: type, value, and meaning."""
  from v2a_jax.experiment import sections

  lines = []
  for key, kind, value, about in sections.help_lines(config):
    shown = "required" if value is None else repr(value)
    lines.append(f"config.{key}  {kind} = {shown}")
    lines += textwrap.wrap(
      about, 78, initial_indent="    ", subsequent_indent="    "
    )
  return "\n".join(lines)


def override(key: str, value: Any) -> str:
  """Returns the argument that sets a dotted key, as it would be typed."""
  return f"--config.{key}={value}"


def sweeps(
  name: str, prefix: str = SWEEP
) -> dict[str, list[Mapping[str, Any]]]:
  """Returns what each `sweep_NAME` of a config file yields, by NAME.

  Args:
    name: config file.
    prefix: what the names of the functions begin with.
  """
  contents, points = _run_file(name), {}
  for key, function in contents.items():
    if key.startswith(prefix) and callable(function):
      with _one_line(f"{name}: {key}"):
        points[key.removeprefix(prefix)] = [dict(point) for point in function()]
  return points


def fingerprint(config: config_dict.ConfigDict) -> str:
  """Returns six hex digits of the resolved config, not of what was changed."""
  text = json.dumps(config.to_dict(), sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:6]


def _refusal(
  config: config_dict.ConfigDict, overrides: Sequence[str], error: Exception
) -> UsageError | None:
  """Returns what is wrong with the first override that cannot be applied."""
  for arg in overrides:
    key, _, text = arg.removeprefix("--config.").partition("=")
    node, seen = config, []
    for part in key.split("."):
      if not isinstance(node, config_dict.ConfigDict):
        return UsageError(f"config.{'.'.join(seen)} has no keys in it: {arg}")
      if part not in node:
        return UsageError(f"unknown config key {_nearest(config, seen, part)}")
      node = node[part]
      seen.append(part)
    if str(error).startswith(f"flag {arg}:"):
      kind = f"of type {type(node).__name__}"
      kind = "a section" if kind.endswith("ConfigDict") else kind
      return UsageError(f"config.{key} is {kind}, not {text!r}")
  return None


def _nearest(
  config: config_dict.ConfigDict, seen: Sequence[str], part: str
) -> str:
  """Quotes an unknown key and names what may be meant."""
  node = functools.reduce(lambda node, name: node[name], seen, config)
  key = repr(".".join([*seen, part]))
  if near := did_you_mean(part, node):
    return key + near
  for section, keys in config.items():  # The right key without its section?
    if isinstance(keys, config_dict.ConfigDict) and part in keys:
      return f"{key}, did you mean {section}.{part}?"
  return f"{key}; there are {', '.join(node) or 'none'}"
