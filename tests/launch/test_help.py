"""The help of every command, as a stranger reads it."""

import re
import shlex

import pytest

from launch import cli, parsing, sampler_flags
from tests.launch.commands import python, succeeds

# Verbs, and the commands of those that have some.
COMMANDS = {
  "data": (
    *("build", "scenes", "precompute", "bench"),
    *("measure", "annotate", "columns", "report"),
  ),
  "listen": ("make", "score"),
  "sweep": ("plan", "launch", "status", "resume", "cancel"),
  "watermark": ("detect",),
  "weights": ("list", "fetch", "convert", "calibrate", "export"),
}
PAGES = [()]
for verb in cli.VERBS:
  PAGES += [(verb,), *((verb, name) for name in COMMANDS.get(verb, ()))]
PAGES.append(("eval", "distort"))
# Pages that list flags, not commands.
LEAVES = [
  page for page in PAGES if page and page not in [(v,) for v in COMMANDS]
]
page_name = lambda page: " ".join(page) or "v2a"


@pytest.fixture
def page(request, capsys):
  return succeeds(capsys, *request.param, "--help")


def flags_of(page: str) -> dict[str, str]:
  """Returns the description of each flag and argument of a help page."""
  body = page.partition("example:")[0]
  entries = re.split(r"\n  (?=[-A-Z])", body)[1:]
  pairs = (re.split(r"  +|\n +", entry, maxsplit=1) for entry in entries)
  return {names: " ".join(text.split()) for names, text in pairs}


@pytest.mark.parametrize("page", PAGES, indirect=True, ids=page_name)
def test_lines_fit_a_terminal(page):
  assert [line for line in page.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("names", PAGES, ids=page_name)
def test_a_page_starts_with_its_usage_and_ends_with_an_example(names, capsys):
  page = succeeds(capsys, *names, "--help")
  command = " ".join(["v2a", *names])
  assert page.startswith(f"usage: {command} ")
  example = page.partition("\nexample:\n")[2]
  assert example.startswith(f"  {command}") and example.endswith("\n")
  for short in ["-h"] if names else ["-h", "help"]:
    assert succeeds(capsys, *names, short) == page


@pytest.mark.parametrize("page", LEAVES, indirect=True, ids=page_name)
def test_every_argument_is_described_by_a_phrase(page):
  described = flags_of(page)
  assert "-h, --help" in described
  for names, text in described.items():
    assert len(text.split()) >= 2, names
    # A noun phrase or a command, not the rest of a sentence.
    assert not re.match(r"(of|for|in|to|which|that) ", text), (names, text)
    assert not text.endswith("."), (names, text)


@pytest.mark.parametrize("page", LEAVES, indirect=True, ids=page_name)
def test_a_number_says_what_it_is_by_default(page):
  for names, text in flags_of(page).items():
    if re.search(r" (N|X|COUNT|SEED|SECONDS)$", names):
      # Their heading says it: as in the config of the checkpoint.
      sampler = f"\n{names.split()[0]} " in sampler_flags.ARGUMENTS
      processes = names.startswith(("--num_processes", "--process_id"))
      limit = names.startswith("--limit")
      assert "(default" in text or sampler or processes or limit, names


def test_the_list_of_commands_is_complete(capsys):
  page = succeeds(capsys, "--help")
  listed = re.findall(r"^  (\w+)  +[A-Z]", page, re.M)
  assert listed == list(cli.VERBS)
  for verb, names in COMMANDS.items():
    page = succeeds(capsys, verb, "--help")
    assert re.findall(r"^  (\w+)  +[A-Z]", page, re.M) == list(names)


@pytest.mark.parametrize("verb", [None, *COMMANDS])
def test_without_a_command_the_list_is_shown_with_status_2(verb, capsys):
  page = succeeds(capsys, *[verb] if verb else [], "--help")
  assert cli.main([verb] if verb else []) == 2
  assert capsys.readouterr().out == page


def test_no_help_and_no_mistyped_flag_imports_jax():
  """In one process: a module that is imported stays."""
  mistyped = [[*names, "--nosuchflag"] for names in LEAVES]
  mistyped += [["nosuch"], ["data", "nosuch"], ["train", "--workdir=x"]]
  helps = [[*names, "--help"] for names in PAGES]
  code = f"""
import contextlib, io, sys
from launch import cli
for status, lines in ((0, {helps!r}), (2, {mistyped!r})):
  for args in lines:
    with contextlib.redirect_stdout(io.StringIO()):
      with contextlib.redirect_stderr(io.StringIO()):
        assert cli.main(args) == status, args
    heavy = {{"jax", "flax", "grain", "orbax", "wandb"}} & set(sys.modules)
    assert not heavy, (args, heavy)
"""
  run = python(code)
  assert run.returncode == 0, run.stderr


def test_the_list_of_commands_takes_half_a_second_of_a_processor_at_most():
  """Processor time of the process: the machine may be busy with other work."""
  code = (
    "import sys; from launch import cli; cli.main(['--help']);"
    "import time; print(time.process_time(), file=sys.stderr)"
  )
  run = python(code)
  assert float(run.stderr) < 0.5


EXAMPLES = {
  # What each example lacks here; one whose flags do not parse would end with
  # its own --help instead.
  ("data", "build"): "no folder clips",
  ("data", "precompute"): "runs/a",
  ("data", "report"): "data/clips",
  ("eval",): "runs/diffusion",
  ("report",): "runs/eval/diffusion",
  ("generate",): "no video at clip.mp4",
  ("sweep", "launch"): "no plan in runs/ar",
  ("sweep", "status"): "no plan in runs/ar",
  ("sweep", "resume"): "no plan in runs/ar",
  ("sweep", "cancel"): "no plan in runs/ar",
  ("watermark", "detect"): "no file at out/clip/clip__c01_s0000.mp4",
  ("weights", "calibrate"): "dac_44khz",
  ("weights", "export"): "runs/diffusion_tiny",
  ("train",): "data/scenes",
}


@pytest.mark.parametrize("names", EXAMPLES, ids=page_name)
def test_an_example_can_be_typed(names, capsys, tmp_path, monkeypatch):
  page = succeeds(capsys, *names, "--help")
  text = page.partition("\nexample:\n")[2].replace("\\\n", " ")
  words = shlex.split(text.strip().splitlines()[0])
  assert words[0] == "v2a"
  monkeypatch.chdir(tmp_path)
  assert cli.main(words[1:]) == 2
  line = capsys.readouterr().err
  assert EXAMPLES[names] in line and "--help)" not in line


def test_the_example_of_a_plan_writes_its_runs(capsys, tmp_path, monkeypatch):
  page = succeeds(capsys, "sweep", "plan", "--help")
  lines = page.partition("\nexample:\n")[2].replace("\\\n", " ").splitlines()
  monkeypatch.chdir(tmp_path)
  for line, count in zip(lines, (6, 2), strict=True):
    shown = succeeds(capsys, *shlex.split(line)[1:])
    assert f"\n{count} runs written to " in shown


def test_options_of_a_data_set_are_those_of_its_dataclass(capsys):
  from data_pipelines.build import SceneOptions

  shown = flags_of(succeeds(capsys, "data", "scenes", "--help"))
  args = parsing.Parser("x", "about", "", "x")
  args.add_fields(SceneOptions)
  assert parsing.fill(SceneOptions, args.parse([])) == SceneOptions()
  assert shown["--fps X"] == "frames a second, at least 1 (default 25)"
  typed = args.parse(["--fps", "12.5", "--size=32"])
  assert parsing.fill(SceneOptions, typed) == SceneOptions(fps=12.5, size=32)
