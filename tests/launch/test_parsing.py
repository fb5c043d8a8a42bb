"""Parsers whose arguments are declared as they are shown."""

import argparse
import dataclasses
import os
import pathlib
import re

import pytest

from launch import parsing, sampler_flags
from launch.parsing import UsageError

TABLE = f"""
CLIP...               clip to read
[OUT]                 file to write to
--set DIR             folder of a data set (required)
--split NAME          split to read (default test)
-n, --num N           number of clips; 0 for all (default 64)
--jobs COUNT          number of processes (default 2)
--seed SEED           random seed (default 0)
--rate X              rate in hertz, 50 % of it (default 2.5)
--tag TEXT            tag of the run (repeatable)
--span START-END...   spans in seconds
--columns FIELD=COLUMN...
                      columns of a table,
                      with other names
--fast                skip what is slow
switches:
--mark, --no-mark     mark the output (default yes)
--music, --no-music   ask for music, or for none (default: either)
{parsing.OVERRIDES}"""


@pytest.fixture
def parser():
  return parsing.Parser("v2a try", "Tries a table.", TABLE, "v2a try a --set b")


def test_values_have_the_type_of_their_metavar_and_defaults_are_shown(parser):
  args = vars(parser.parse(["a", "--set=b"]))
  assert args == dict(
    clip=["a"],
    out=None,
    set="b",
    split="test",
    num=64,
    jobs=2,
    seed=0,
    rate=2.5,
    tag=None,
    span=None,
    columns=None,
    fast=False,
    mark=True,
    music=None,
    overrides=[],
  )
  typed = "a b c --set d --split val -n 0 --jobs=3 --rate 1e3 --fast --no-mark"
  typed += " --span 0-1.5 2-3 --columns file=path caption=text --no-music"
  typed += " --tag x --tag=y --seed 4294967295"
  args = parser.parse(typed.split())
  assert (args.clip, args.set, args.split) == (["a", "b", "c"], "d", "val")
  assert (args.num, args.jobs, args.rate) == (0, 3, 1000.0)
  assert (args.fast, args.mark, args.music) == (True, False, False)
  assert args.span == [(0.0, 1.5), (2.0, 3.0)]
  assert args.columns == [("file", "path"), ("caption", "text")]
  assert args.tag == ["x", "y"] and args.seed == 2**32 - 1


def test_the_help_shows_the_table(parser):
  page = parser.format_help()
  assert page.startswith(
    "usage: v2a try CLIP [CLIP ...] [OUT] --set DIR [options]\n\nTries a table."
  )
  assert "  --columns FIELD=COLUMN [FIELD=COLUMN ...]\n" in page
  assert "columns of a table, with other names\n" in page
  assert "rate in hertz, 50 % of it (default 2.5)\n" in page
  assert "\nswitches:\n  --mark, --no-mark " in page
  assert page.endswith("\nexample:\n  v2a try a --set b\n")


@pytest.mark.parametrize(
  "typed,words",
  [
    ("a", "required: --set (v2a try --help)"),
    ("--set b", "required: CLIP"),
    ("a --set", "--set: expected one argument"),
    ("a --set b --num -1", "argument -n/--num: -1 is not a whole number in [0"),
    ("a --set b --num 1.5", "1.5 is not a whole number in [0, inf)"),
    ("a --set b --jobs 0", "0 is not a whole number in [1, inf)"),
    ("a --set b --seed 4294967296", "whole number in [0, 4294967295]"),
    ("a --set b --rate fast", "invalid float value: 'fast'"),
    ("a --set b --span 1", "'1' is not a span in seconds, such as 1.5-2"),
    ("a --set b --columns text", "text is not FIELD=COLUMN"),
    ("a --set b --fast=yes", "ignored explicit argument 'yes'"),
    ("a --splt=val", "unknown flag --splt, did you mean --split?"),
    ("a --spli val --set b", "unknown flag --spli"),  # No abbreviations.
    ("a --set b -q", "unexpected argument '-q'"),
    ("a --set b --config.seed", "write --config.seed=VALUE"),
    ("a --set b --config=x", "unknown flag --config"),
  ],
)
def test_an_error_says_which_argument_and_where_help_is(typed, words, parser):
  with pytest.raises(UsageError) as error:
    parser.parse(typed.split())
  assert words in str(error.value)
  assert str(error.value).endswith(" (v2a try --help)")
  assert "\n" not in str(error.value)


def test_overrides_are_taken_out_in_order_whatever_is_in_them(parser):
  overrides = [
    "--config.data.paths=('a b', '--c')",
    "--config.name=",
    "--config.x.y=1=2",
  ]
  first, *rest = overrides
  args = parser.parse([first, "a", rest[0], "--set", "b", rest[1]])
  assert args.overrides == overrides
  assert (args.clip, args.set) == (["a"], "b")


def test_a_parser_without_overrides_refuses_them():
  parser = parsing.Parser("v2a try", "Tries.", "--json    print JSON", "x")
  with pytest.raises(UsageError, match="unknown flag --config.seed"):
    parser.parse(["--config.seed=1"])


def test_a_value_may_look_like_a_flag(parser):
  args = parser.parse(["--set", "--rain on tin", "--", "--clip.mp4", "-c"])
  assert args.set == "--rain on tin"
  assert args.clip == ["--clip.mp4", "-c"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """Options of a program.

  Attributes:
    rate: sample rate in Hz.
    gain: gain as a factor,
      50 % by default.
    path: file; empty for none.
    keep: keep the file.
  """

  rate: int = 16_000
  gain: float = 0.5
  path: str | os.PathLike = ""
  keep: bool = False


def test_fields_of_a_dataclass_are_flags():
  parser = parsing.Parser("x", "x", "--json    print JSON", "x")
  parser.add_fields(Options)
  page = parser.format_help()
  for names, text in (
    ("--rate N", "sample rate in Hz (default 16000)"),
    ("--gain X", "gain as a factor, 50 % by default (default 0.5)"),
    ("--path PATH", "file; empty for none"),
    ("--keep, --no-keep", "keep the file (default no)"),
  ):
    assert re.search(f"^  {names} +{re.escape(text)}$", page, re.M), names
  assert parsing.fill(Options, parser.parse([])) == Options()
  typed = ["--rate=8000", "--gain", "2", "--path=a", "--keep", "--json"]
  assert parsing.fill(Options, parser.parse(typed)) == Options(
    rate=8000, gain=2.0, path="a", keep=True
  )
  assert isinstance(parser.parse(typed).gain, float)


def test_flags_of_the_sampler_change_what_is_typed_and_nothing_else():
  parser = parsing.Parser("x", "x", sampler_flags.ARGUMENTS, "x")
  assert sampler_flags.overrides(parser.parse([])) == {}
  typed = ["--num_steps=0", "--solver=heun", "--guidance_prompt=1.5"]
  assert sampler_flags.overrides(parser.parse(typed)) == {
    "num_steps": 0,
    "solver": "heun",
    "guidance": {"prompt": 1.5},
  }
  typed = ["--guidance_negative_prompt", "0", "--temperature", "0.5"]
  assert sampler_flags.overrides(parser.parse(typed)) == {
    "temperature": 0.5,
    "guidance": {"negative_prompt": 0.0},
  }
  other = argparse.Namespace(**vars(parser.parse([])), prompt="rain", seed=3)
  assert sampler_flags.overrides(other) == {}


def test_every_flag_of_the_sampler_is_a_field_of_one():
  from v2a_jax.sampling import SAMPLERS
  from v2a_jax.sampling.guidance import Guidance
  from v2a_jax.sampling.solvers import SOLVERS

  fields = {
    f.name for cls in SAMPLERS.values() for f in dataclasses.fields(cls)
  }
  scales = {f"guidance_{f.name}" for f in dataclasses.fields(Guidance)}
  parser = parsing.Parser("x", "x", sampler_flags.ARGUMENTS, "x")
  flags = set(vars(parser.parse([]))) - {"overrides"}
  assert scales <= flags and flags - scales <= fields
  assert all(name in sampler_flags.ARGUMENTS for name in SOLVERS)


def test_a_command_gets_what_comes_after_its_name(capsys):
  def first(argv):
    """Do the first thing. And more."""
    assert argv == ["--help", "x"]

  def second(argv):
    """Do the second thing."""
    return 7

  run = lambda *argv: parsing.run_command(
    "v2a try", "Tries.", dict(first=first, second=second), argv, example="x"
  )
  assert run("first", "--help", "x") == 0
  assert run("second") == 7
  assert run("--help") == 0
  page = capsys.readouterr().out
  assert "\n  first   Do the first thing\n  second  Do the second" in page
  with pytest.raises(UsageError, match="'frist', did you mean first?"):
    run("frist")
  with pytest.raises(UsageError, match=r"'x'; there are first, second \(v2a"):
    run("x")


def test_a_path_that_must_exist(tmp_path):
  assert parsing.existing(str(tmp_path), "folder") == pathlib.Path(tmp_path)
  with pytest.raises(UsageError, match="^no clip at .*gone.mp4$"):
    parsing.existing(str(tmp_path / "gone.mp4"), "clip")
