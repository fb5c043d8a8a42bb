"""Config files on the command line: `--config=F --config.key=value`.

The parsing is ml_collections' own; this adds where a config file is looked
for, the sweeps in it, and errors of one line.
"""

from collections.abc import Callable, Iterator, Mapping
import hashlib
import json
import pathlib
import re
import runpy
from typing import Any

from absl import flags
from ml_collections import config_dict, config_flags

from launch.parsing import UsageError, did_you_mean

PACKAGED = pathlib.Path(__file__).resolve().parents[1]
SWEEP = "sweep_"


def find_config(name: str) -> str:
  """The path of a config file, with its `:argument` if it has one.

  A path that is not there is also looked for beside this package, so
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


def parse(
  argv: list[str], *, values: flags.FlagValues | None = None
) -> config_dict.ConfigDict:
  """Reads `--config=FILE --config.a.b=value` and the flags in `values`.

  Args:
    argv: the arguments, without a program's name.
    values: further flags, defined by the caller; filled in.

  Returns:
    The config, read afresh, locked, with its overrides applied.

  Raises:
    UsageError: no `--config`, an unknown key or flag (with the nearest known
      one), a value of the wrong type, or a stray word.
  """
  values = flags.FlagValues() if values is None else values
  argv = ["v2a", *_with_found_config(argv)]
  config_flags.DEFINE_config_file(
    "config", None, "a config file", flag_values=values, sys_argv=argv
  )
  try:
    stray = values(argv)[1:]
  except flags.UnrecognizedFlagError as error:
    hint = did_you_mean(error.flagname, values)
    raise UsageError(f"unknown flag --{error.flagname}{hint}") from None
  except flags.Error as error:
    raise UsageError(_last_line(error)) from None
  except (AttributeError, KeyError) as error:
    raise _unknown_key(argv) or error from None
  if stray:
    raise UsageError(
      f"unexpected {stray[0]!r}: overrides are --config.key=value"
    )
  if values.config is None:
    raise UsageError("say which: --config=configs/diffusion_tiny.py")
  return values.config


def _last_line(error: flags.Error) -> str:
  """What is wrong; of a config file that fails, without its traceback."""
  text = str(error).strip()
  if "Traceback" not in text:
    return text
  kind, _, message = text.splitlines()[-1].strip().partition(": ")
  where = text.partition(": Error whilst")[0].removeprefix("flag ")
  return f"{where}: {message or kind}"


def override(key: str, value: Any) -> str:
  """The argument that sets a dotted key, as it would be typed."""
  if isinstance(value, (tuple, list, dict)):
    value = repr(value).replace(" ", "")
  return f"--config.{key}={value}"


def sweeps(config_file: str) -> dict[str, Callable[[], Iterator[Mapping]]]:
  """The config file's `sweep_NAME` generators, by NAME."""
  contents = runpy.run_path(config_file.partition(":")[0])
  return {
    name.removeprefix(SWEEP): function
    for name, function in contents.items()
    if name.startswith(SWEEP) and callable(function)
  }


def fingerprint(config: config_dict.ConfigDict) -> str:
  """Six hex digits of the fully resolved config, not of what was changed."""
  text = json.dumps(config.to_dict(), sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:6]


def _with_found_config(argv: list[str]) -> list[str]:
  found = []
  for i, arg in enumerate(argv):
    follows = i > 0 and argv[i - 1] in ("--config", "-config")
    match = re.match(r"(--?config=)(.*)", arg)
    if match:
      arg = match[1] + find_config(match[2])
    elif follows:
      arg = find_config(arg)
    found.append(arg)
  return found


def _unknown_key(argv: list[str]) -> UsageError | None:
  """Finds the override that names no key of the config."""
  plain = [arg for arg in argv[1:] if re.match(r"--?config(=|$)", arg)]
  index = argv.index(plain[0])
  plain = argv[index : index + (1 if "=" in plain[0] else 2)]
  config = parse(plain)
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
