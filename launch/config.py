"""Config files on the command line: `--config=FILE --config.key=value`.

ml_collections parses the overrides. This adds where a config file is looked
for, the defaults of all keys that it leaves out, the sweeps in it, help for
every key, and errors of one line.
"""

from collections.abc import Callable, Iterator, Mapping
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
from v2a_jax.basics.text import did_you_mean

PACKAGED = pathlib.Path(__file__).resolve().parents[1]
SWEEP = "sweep_"


def find_config(name: str) -> str:
  """Returns the path of a config file, with its `:argument` if it has one.

  A path that does not exist is also looked for beside this package, so
  `configs/diffusion_tiny.py` works from any folder.

  Raises:
    UsageError: no such file; names the nearest one.
  """
  path, colon, argument = name.partition(":")
  for folder in (pathlib.Path(), PACKAGED):
    if (folder / path).is_file():
      return str((folder / path).resolve()) + colon + argument
  near = sorted((PACKAGED / "configs").glob("[!_]*.py"))
  known = [str(file.relative_to(PACKAGED)) for file in near]
  hint = did_you_mean(path, known) or f"; there are {', '.join(known)}"
  raise UsageError(f"no config file {path}{hint}")


def read(name: str) -> Any:
  """Runs the `get_config` of a config file, such as `configs/ar.py:large`.

  Raises:
    UsageError: there is no such file, or it fails; in one line.
  """
  path, _, argument = find_config(name).partition(":")
  try:
    get_config = runpy.run_path(path)["get_config"]
    return get_config(*[argument] if argument else [])
  except KeyError as error:
    raise UsageError(f"{name}: has no {error}") from None
  except Exception as error:  # A config file is the user's own code.
    raise UsageError(f"{name}: {error} [{type(error).__name__}]") from error


def parse(
  argv: list[str], *, values: flags.FlagValues | None = None
) -> config_dict.ConfigDict:
  """Reads `--config=FILE --config.a.b=value` and the flags in `values`.

  Args:
    argv: arguments, without a program's name.
    values: further flags, defined by the caller; filled in.

  Returns:
    The config with every key of every section, locked, overrides applied.

  Raises:
    UsageError: no `--config`, an unknown key or flag (with the nearest known
      one), a value of the wrong type, or a stray word.
    ConfigError: the file names a model, objective or sampler that is unknown.
  """
  values = flags.FlagValues() if values is None else values
  name, rest = _take_file(argv)
  config, argv = None, ["v2a", *rest]
  if name:
    config = _complete(read(name), rest)
  try:
    if name:
      config_flags.DEFINE_config_dict(
        "config", config, flag_values=values, sys_argv=argv
      )
    stray = values(argv)[1:]
  except flags.UnrecognizedFlagError as error:
    if error.flagname.startswith("config") and not name:
      raise _no_config() from None
    hint = did_you_mean(error.flagname, values)
    raise UsageError(f"unknown flag --{error.flagname}{hint}") from None
  except flags.Error as error:
    raise UsageError(str(error).strip()) from None
  except (AttributeError, KeyError, TypeError) as error:
    raise _unknown_key(config, rest) or error from None
  if stray:
    raise UsageError(
      f"unexpected {stray[0]!r}: overrides are --config.key=value"
    )
  if config is None:
    raise _no_config()
  return values.config


def _no_config() -> UsageError:
  return UsageError("no config: give --config=configs/diffusion_tiny.py")


def _take_file(argv: list[str]) -> tuple[str, list[str]]:
  """Splits `--config=FILE` or `--config FILE` from the other arguments."""
  name, rest, arguments = "", [], iter(argv)
  for arg in arguments:
    match = re.fullmatch(r"--?config(?:=(.*))?", arg)
    if match is None:
      rest.append(arg)
    else:
      name = match[1] if match[1] is not None else next(arguments, "")
  return name, rest


def _complete(config: Any, argv: list[str]) -> config_dict.ConfigDict:
  """Fills in the keys that a config leaves out.

  Overrides that choose a class (`--config.model.name=ar`) are applied first, so
  that the keys of the chosen one are filled in.
  """
  # Here, so that `v2a train --help` does not import jax.
  from v2a_jax.experiment import sections

  config = config_dict.ConfigDict(config, convert_dict=True)
  config.unlock()
  for arg in argv:
    match = re.fullmatch(r"--config\.([\w.]+)\.name=(\w*)", arg)
    if match and (node := _node(config, match[1])) is not None:
      node.name = match[2]
  completed = sections.complete(config)
  for key in _objects(completed):
    # A FieldReference of type object takes a value of any type.
    node, _, leaf = key.rpartition(".")
    section = _node(completed, node) if node else completed
    section[leaf] = config_dict.FieldReference(section[leaf], field_type=object)
  return config_dict.ConfigDict(completed).lock()


def _objects(config: Mapping[str, Any]) -> Iterator[str]:
  """Yields the keys whose values may be of more than one type."""
  yield "data.frame_size"
  for section in ("objective", "data"):
    if isinstance(config.get(section, {}).get("gain_db"), tuple):
      yield f"{section}.gain_db"


def _node(config: Mapping[str, Any], key: str) -> Any:
  """Returns the section of a dotted key; None if there is none."""
  for part in key.split("."):
    if not isinstance(config, Mapping | config_dict.ConfigDict):
      return None
    config = config.get(part)
  return config


def help_text(argv: list[str]) -> str:
  """Lists every key of a config: type, value, and what it is for."""
  from v2a_jax.experiment import sections

  lines = []
  for key, kind, value, about in sections.help_lines(parse(argv)):
    lines.append(f"config.{key}  {kind} = {value!r}")
    lines += textwrap.wrap(
      about, 78, initial_indent="    ", subsequent_indent="    "
    )
  return "\n".join(lines)


def override(key: str, value: Any) -> str:
  """Returns the argument that sets a dotted key, as it would be typed."""
  if isinstance(value, (tuple, list, dict)):
    value = repr(value).replace(" ", "")
  return f"--config.{key}={value}"


def sweeps(config_file: str) -> dict[str, Callable[[], Iterator[Mapping]]]:
  """Returns the config file's `sweep_NAME` generators, by NAME."""
  contents = runpy.run_path(config_file.partition(":")[0])
  return {
    name.removeprefix(SWEEP): function
    for name, function in contents.items()
    if name.startswith(SWEEP) and callable(function)
  }


def fingerprint(config: config_dict.ConfigDict) -> str:
  """Returns six hex digits of the resolved config, not of what was changed."""
  text = json.dumps(config.to_dict(), sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:6]


def _unknown_key(
  config: config_dict.ConfigDict, argv: list[str]
) -> UsageError | None:
  """Finds the override that names no key of the config."""
  for arg in argv:
    match = re.match(r"--?(?:no)?config\.([^=]+)", arg)
    if not match:
      continue
    node, seen = config, []
    for part in match[1].split("."):
      if not isinstance(node, Mapping | config_dict.ConfigDict):
        return UsageError(f"config.{'.'.join(seen)} has no keys in it: {arg}")
      if part not in node:
        key = ".".join([*seen, part])
        near = did_you_mean(part, node.keys())
        known = near or f"; there are {', '.join(node.keys())}"
        return UsageError(f"unknown config key {key!r}{known}")
      node = node[part]
      seen.append(part)
  return None
