"""Commands that are written down can be typed: flags, values, config keys."""

import ast
import re
import shlex

import pytest

from launch import cli
from launch import config as config_lib
from tests.launch.commands import ROOT

PAGES = [ROOT / "README.md", ROOT / "launch" / "README.md"]
PAGES += sorted((ROOT / "docs").glob("*.md"))
CONFIGS = sorted((ROOT / "configs").glob("*.py"))


def commands(text: str) -> list[list[str]]:
  """Returns the words of each line that is a command, settings before it."""
  text = text.replace("\\\n", " ")
  lines = re.findall(r"^ *(?:[A-Z_]+=\S+ +)*v2a (.+)$", text, re.M)
  rows = [shlex.split(line, comments=True) for line in lines]
  return [row for row in rows if row and row[0] in cli.VERBS]


def check(words: list[str], capsys) -> None:
  """Parses a command as it is typed, and shows its help in place of running."""
  capsys.readouterr()
  assert cli.main([*words, "--help"]) == 0, capsys.readouterr().err
  assert capsys.readouterr().out.startswith("usage: v2a ")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_of_a_page_have_known_flags(page, capsys):
  for words in commands(page.read_text()):
    check(words, capsys)


@pytest.mark.parametrize("file", CONFIGS, ids=lambda p: p.stem)
def test_the_commands_of_a_config_take_its_keys(file, capsys):
  rows = commands(ast.get_docstring(ast.parse(file.read_text())) or "")
  for words in rows:
    check(words, capsys)
    for arg in words:
      if arg.startswith("--config="):
        overrides = [a for a in words if a.startswith("--config.")]
        config_lib.parse(arg.removeprefix("--config="), overrides)
  trains = [words for words in rows if words[0] == "train"]
  assert trains or file.stem == "common"


def test_the_readme_shows_every_command(capsys):
  text = PAGES[0].read_text() + PAGES[1].read_text()
  shown = {words[0] for words in commands(text)}
  shown |= {verb for verb in cli.VERBS if f"`v2a {verb}" in text}
  assert shown == set(cli.VERBS)
