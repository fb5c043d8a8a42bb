"""What the verbs share: an argument parser that answers in one line."""

import argparse
from collections.abc import Iterator, Sequence
import dataclasses
import pathlib
from typing import Any, NoReturn

from v2a_jax.basics.settings import describe
from v2a_jax.basics.text import did_you_mean


class UsageError(ValueError):
  """A command line that cannot be followed; the message says what to type."""


class Parser(argparse.ArgumentParser):
  """argparse whose errors are one line that names the nearest known flag."""

  def error(self, message: str) -> NoReturn:
    raise UsageError(f"{message} ({self.prog} --help)")

  def parse(self, argv: list[str]) -> argparse.Namespace:
    """Parses `argv`.

    Raises:
      UsageError: an unknown flag, or a value that does not fit.
    """
    args, unknown = self.parse_known_args(argv)
    if unknown:
      word = unknown[0].split("=")[0]
      kind = "flag" if word.startswith("-") else "argument"
      self.error(f"unknown {kind} {word}{did_you_mean(word, _flags(self))}")
    return args


def make_parser(prog: str, *, about: str, example: str) -> Parser:
  """A parser that takes whole flags only and ends its help with an example."""
  return Parser(
    prog=prog,
    description=about,
    epilog=f"example:\n  {example}",
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )


def add_command(commands, name: str, *, about: str, example: str) -> Parser:
  """Adds `name` to what `add_subparsers` returned."""
  return commands.add_parser(
    name,
    help=about,
    description=about,
    epilog=f"example:\n  {example}",
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )


def existing(path: str, what: str, *, then: str = "") -> pathlib.Path:
  """The path, which must exist.

  Args:
    path: as typed.
    what: what should be there, for the message.
    then: what to do about it.

  Raises:
    UsageError: nothing is there.
  """
  found = pathlib.Path(path)
  if not found.exists():
    raise UsageError(f"no {what} at {path}{'; ' + then if then else ''}")
  return found


def add_fields(parser: Parser, cls: type, *, skip: Sequence[str] = ()) -> None:
  """A flag for each field of an options dataclass: one name everywhere.

  Type and default are the field's, the help is from the class's docstring.
  """
  about = describe(cls)
  for field in dataclasses.fields(cls):
    if field.name in skip:
      continue
    text = about.get(field.name, "").replace("%", "%%")
    kind = type(field.default)
    if field.default is None or kind is bool:
      boolean = kind is bool or "bool" in str(field.type)
      how = {"action": argparse.BooleanOptionalAction} if boolean else {}
    else:
      how = {"type": kind}
      text += f" (default {field.default})" if field.default != "" else ""
    parser.add_argument(
      f"--{field.name}", default=field.default, help=text, **how
    )


def fill(cls: type, args: argparse.Namespace, **more) -> Any:
  """The dataclass with what was typed; `more` is set as given."""
  typed = vars(args)
  names = [field.name for field in dataclasses.fields(cls)]
  return cls(**{name: typed[name] for name in names if name in typed} | more)


def _flags(parser: argparse.ArgumentParser) -> Iterator[str]:
  for action in parser._actions:
    yield from action.option_strings
    if isinstance(action, argparse._SubParsersAction):
      for command in action.choices.values():
        yield from _flags(command)
