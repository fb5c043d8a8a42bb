"""What the verbs share: an argument parser that answers in one line."""

import argparse
from collections.abc import Iterable, Iterator
import difflib
import pathlib
from typing import NoReturn


class UsageError(ValueError):
  """A command line that cannot be followed; the message says what to type."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
  """`, did you mean X?` for the nearest known word, or an empty string."""
  close = difflib.get_close_matches(word, list(known), n=1)
  return f", did you mean {close[0]}?" if close else ""


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


def _flags(parser: argparse.ArgumentParser) -> Iterator[str]:
  for action in parser._actions:
    yield from action.option_strings
    if isinstance(action, argparse._SubParsersAction):
      for command in action.choices.values():
        yield from _flags(command)
