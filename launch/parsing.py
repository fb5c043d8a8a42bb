"""Parsers of the command line: errors of one line, help of 80 columns."""

import argparse
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import inspect
import math
import os
import pathlib
import re
from typing import Any, NoReturn, get_args

from v2a_jax.basics.paths import local_path
from v2a_jax.basics.settings import describe
from v2a_jax.basics.text import did_you_mean

MAX_SEED = 2**32 - 1
OVERRIDES = """
--config.KEY=VALUE    value of a config key, dotted: --config.model.depth=4;
                      repeatable (v2a train --help_config lists the keys)
"""
CONFIG = f"""
--config FILE         Python file that defines get_config(), such as
                      configs/ar_tiny.py; its argument follows a colon:
                      configs/ar.py:large{OVERRIDES}"""
COMMANDS = """usage: {prog} COMMAND [arguments]

{about}

commands:
{rows}

{prog} COMMAND --help describes the arguments of a command.
{prog} COMMAND --debug shows the traceback of an error.

example:
  {example}
"""


class UsageError(ValueError):
  """A command line that cannot be followed; the message says what to type."""


class _Formatter(argparse.RawDescriptionHelpFormatter):
  """Shows required arguments in the usage line, and each metavar once."""

  def add_usage(self, usage, actions, groups, prefix=None):
    words = [self._prog]
    for action in actions:
      if not action.option_strings:
        words.append(self._format_args(action, action.metavar))
    for action in actions:
      if action.required and action.option_strings:
        words.append(f"{action.option_strings[0]} {action.metavar}")
    super().add_usage(usage or " ".join([*words, "[options]"]), [], [], prefix)

  def _format_action_invocation(self, action):
    if not action.option_strings or action.nargs == 0:
      return super()._format_action_invocation(action)
    values = self._format_args(action, action.metavar)
    return f"{', '.join(action.option_strings)} {values}"


class Parser(argparse.ArgumentParser):
  """argparse with arguments declared as they are shown, and errors of one line.

  An entry of `arguments` is names and help, two spaces apart:

    --split NAME           a flag (default test)
    -o, --output DIR       a flag with a short name (required)
    --set DIR              a flag that is collected in a list (repeatable)
    --regenerate SPAN...   a flag with several values
    --overwrite            a switch
    --music, --no-music    a switch with a third state, None
    VIDEO...               a positional argument, one or more times
    [FILE]                 an optional one; [FILE...] any number of times
    title:                 what follows is listed under a title

  The type of a value goes by its metavar; see `TYPES`.
  """

  def __init__(self, prog: str, about: str, arguments: str, example: str):
    super().__init__(
      prog=prog,
      description=inspect.cleandoc(about),
      epilog=f"example:\n  {example}",
      formatter_class=lambda prog: _Formatter(prog, 2, 28, 80),
      allow_abbrev=False,
    )
    self._positionals.title = "arguments"
    self._takes_overrides = OVERRIDES in arguments
    section = self
    for entry in re.split(r"\n(?=\S)", arguments.strip()):
      names, *text = re.split(r" {2,}|\n", entry.strip(), maxsplit=1)
      if text:
        _add(section, names, " ".join(text[0].split()))
      else:
        section = self.add_argument_group(names.rstrip(":"))

  def add_fields(self, cls: type) -> None:
    """Adds a flag for each field of an options dataclass.

    Name, type and default are the field's; the help is from the docstring.
    """
    for field in dataclasses.fields(cls):
      default, name = field.default, f"--{field.name}"
      text = describe(cls)[field.name].removesuffix(".").replace("%", "%%")
      if isinstance(default, bool):
        how = {"action": argparse.BooleanOptionalAction}
        text += f" (default {'yes' if default else 'no'})"
      else:
        shown = f"{default:g}" if isinstance(default, float) else default
        text += f" (default {shown})" if default != "" else ""
        # A field of None has a type such as `int | None`.
        kind = type(default) if default is not None else get_args(field.type)[0]
        metavar = {int: "N", float: "X", str: "PATH"}[kind]
        how = {"type": kind, "metavar": metavar}
      self.add_argument(name, default=default, help=text, **how)

  def error(self, message: str) -> NoReturn:
    raise UsageError(f"{message} ({self.prog} --help)")

  def parse(self, argv: Sequence[str]) -> argparse.Namespace:
    """Parses `argv`.

    Raises:
      UsageError: an unknown flag, or a value that does not fit.
    """
    known, overrides, rest = self._option_string_actions, [], []
    arguments = iter(argv)
    for arg in arguments:
      flag, equals, _ = arg.partition("=")
      if arg == "--":
        rest += [arg, *arguments]
      elif arg.startswith("-") and flag not in known and os.path.exists(arg):
        self.error(f"{arg} reads as a flag: name the file ./{arg}")
      elif self._takes_overrides and flag.startswith("--config."):
        if not equals:
          self.error(f"{arg} has no value: write {arg}=VALUE")
        overrides.append(arg)
      elif flag.startswith("--") and " " not in flag and flag not in known:
        # Before argparse, which would first ask for what is required.
        self.error(f"unknown flag {flag}{did_you_mean(flag, known)}")
      else:
        rest.append(arg)
    args, unknown = self.parse_known_args(rest)
    if unknown:
      self.error(f"unexpected argument {unknown[0]!r}")
    args.overrides = overrides
    return args


def _add(section, names: str, text: str) -> None:
  """Adds one entry of a table of arguments; see `Parser`."""
  *flags, last = names.replace(",", "").split()
  notes = re.search(r"\(([^()]*)\)$", text)
  notes = notes[1].split(", ") if notes else []
  how = {"help": text.replace("%", "%%")}
  for note in notes:
    if note.startswith("default "):
      how["default"] = note.removeprefix("default ")
  if last.startswith("-"):
    flags.append(last)
    how["action"] = "store_true"
    if "=" in last:  # For the help alone: `parse` takes these out.
      how["default"] = argparse.SUPPRESS
    if last.startswith("--no-"):
      del flags[-1]
      how["action"] = argparse.BooleanOptionalAction
      how["default"] = {"yes": True, "no": False}.get(how.get("default"))
  else:
    metavar = how["metavar"] = last.strip("[.]")
    how["type"] = TYPES.get(metavar, str)
    if last.endswith(("...", "]")):
      many, optional = "..." in last, last.startswith("[")
      how["nargs"] = ("*" if optional else "+") if many else "?"
    if flags and "required" in notes:
      how["required"] = True
    if "repeatable" in notes:
      how["action"] = "append"
    if not flags:
      flags = [metavar.lower()]
  section.add_argument(*flags, **how)


def _whole(low: int, high: float = math.inf) -> Callable[[str], int]:
  """Returns an argparse type: whole numbers from `low` to `high`."""

  def convert(text: str) -> int:
    try:
      number = int(text)
    except ValueError:
      number = low - 1
    if not low <= number <= high:
      interval = f"[{low}, {high}{']' if high < math.inf else ')'}"
      raise argparse.ArgumentTypeError(
        f"{text} is not a whole number in {interval}"
      )
    return number

  return convert


def _step(text: str) -> int | str:
  """Converts a training step, or the name of that of the best checkpoint."""
  return text if text == "best" else _whole(0)(text)


def _steps(text: str) -> int | str:
  """Converts a training step, or the name of that of the best or of all."""
  return text if text == "each" else _step(text)


def _dtype(text: str) -> str:
  """Checks the type that weights are stored in."""
  if text not in (known := ("float32", "float16", "bfloat16")):
    raise argparse.ArgumentTypeError(f"{text} is not one of {', '.join(known)}")
  return text


def _pair(metavar: str) -> Callable[[str], tuple[str, str]]:
  """Returns an argparse type: two texts with `=` between them."""

  def convert(text: str) -> tuple[str, str]:
    first, equals, second = text.partition("=")
    if not equals:
      raise argparse.ArgumentTypeError(f"{text} is not {metavar}")
    return first, second

  return convert


def _factor(text: str) -> float:
  try:
    number = float(text)
  except ValueError:
    number = 0.0
  if not 0 < number < math.inf:
    raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
  return number


def _length(text: str) -> float:
  """Converts the seconds of a clip that are judged."""
  try:
    seconds = float(text)
  except ValueError:
    seconds = 0.0
  if not 0.5 <= seconds < math.inf:
    raise argparse.ArgumentTypeError(f"{text} is not 0.5 seconds or more")
  return seconds


def _span(text: str) -> tuple[float, float]:
  start, _, end = text.partition("-")
  try:
    return float(start), float(end)
  except ValueError:
    raise argparse.ArgumentTypeError(
      f"{text!r} is not a span in seconds, such as 1.5-2"
    ) from None


def _prompt_span(text: str) -> tuple[float, float, str]:
  span, colon, prompt = text.partition(":")
  if not colon or not prompt.strip():
    raise argparse.ArgumentTypeError(
      f"{text!r} is not a span in seconds and a text, such as 2-4.5:thunder"
    )
  return *_span(span), prompt.strip()


def _layer(text: str) -> tuple[str, str]:
  kind, colon, prompt = text.partition(":")
  if not colon:
    raise argparse.ArgumentTypeError(
      f"{text!r} is not a kind and a text, such as music:slow strings"
    )
  return kind.strip(), prompt.strip()


# By metavar; other values are text.
TYPES = {
  "N": _whole(0),
  "COUNT": _whole(1),
  "RATE": _whole(8000, 192_000),
  "STEP": _step,
  "STEPS": _steps,
  "DTYPE": _dtype,
  "SEED": _whole(0, MAX_SEED),
  "X": float,
  "SECONDS": float,
  "LENGTH": _length,
  "LUFS": float,
  "FACTOR": _factor,
  "START-END": _span,
  "FIELD=COLUMN": _pair("FIELD=COLUMN"),
  "NAME=VALUE": _pair("NAME=VALUE"),
  "START-END:TEXT": _prompt_span,
  "KIND:TEXT": _layer,
}


def names(flag: str, text: str | None) -> list[str] | None:
  """Splits names at commas; None where the flag was not given.

  Raises:
    UsageError: there is no name, or an empty one.
  """
  if text is None:
    return None
  found = [name.strip() for name in text.split(",")]
  if not all(found):
    raise UsageError(f"{flag} {text!r}: give names, separated by commas")
  return found


def fill(cls: type, args: argparse.Namespace) -> Any:
  """Makes the dataclass `cls` from the arguments of the same names.

  A flag that was not given and has no default leaves the field's.
  """
  names = {field.name for field in dataclasses.fields(cls)}
  given = {k: v for k, v in vars(args).items() if v is not None}
  return cls(**{k: value for k, value in given.items() if k in names})


def existing(path: str, what: str) -> pathlib.Path:
  """Returns the path of something that must exist.

  Raises:
    UsageError, PathError: nothing is there, it is neither file nor folder, or
      not on this machine; the message calls it `what`.
  """
  local = local_path(path, f"the {what}")
  if not local.exists():
    raise UsageError(f"no {what} at {path}")
  if not (local.is_file() or local.is_dir()):
    raise UsageError(f"{path} is a pipe or a device, not a {what}")
  return local


def run_command(
  prog: str,
  about: str,
  commands: Mapping[str, Callable[[list[str]], int | None]],
  argv: list[str],
  *,
  example: str,
) -> int:
  """Runs the command that comes first in `argv`; without one shows the help.

  Args:
    prog: what is typed before the command.
    about: description for the help.
    commands: function of the other arguments by name; the help shows the first
      line of its docstring.
    argv: command and arguments.
    example: command line for the help.

  Raises:
    UsageError: there is no such command; names the nearest one.
  """
  if not argv or argv[0] in ("-h", "--help", "help"):
    width = max(map(len, commands))
    rows = [
      f"  {name:<{width}}  {function.__doc__.partition('.')[0]}"
      for name, function in commands.items()
    ]
    fields = dict(prog=prog, about=inspect.cleandoc(about), example=example)
    print(COMMANDS.format(rows="\n".join(rows), **fields), end="")
    return 0 if argv else 2
  name, *rest = argv
  if name not in commands:
    hint = did_you_mean(name, commands) or f"; there are {', '.join(commands)}"
    raise UsageError(f"no command {name!r}{hint} ({prog} --help)")
  return commands[name](rest) or 0
