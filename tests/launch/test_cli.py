"""What a person meets at the prompt: help, errors of one line, exit codes."""

import argparse
import os
import pathlib
import subprocess
import sys

import pytest

from launch import cli, sampler_flags

ROOT = pathlib.Path(__file__).resolve().parents[2]
AR = ("--config=configs/ar_tiny.py", "--workdir=/nonexistent/run")
TINY = ("diffusion_tiny", "--set=no/such/set", "-o", "no/such/out")
CONFIG = """
from ml_collections import config_dict

def get_config():
  config = config_dict.ConfigDict()
  config.num_train_steps = 5
  config.model = dict(depth=2, betas=(0.9, 0.99))
  return config
"""


def v2a(*args, python=(sys.executable,)):
  """Runs the command in a process of its own."""
  return subprocess.run(
    [*python, "-m", "launch.cli", *args],
    capture_output=True,
    text=True,
    cwd=ROOT,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
  )


@pytest.fixture
def config(tmp_path):
  file = tmp_path / "config.py"
  file.write_text(CONFIG)
  return str(file)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_shows_an_example(verb, capsys):
  assert cli.main([verb, "--help"]) == 0
  shown = capsys.readouterr().out
  assert "example:" in shown
  assert f"v2a {verb}" in shown.split("example:")[1]


def test_help_lists_every_verb_and_needs_nothing_but_python():
  # -I -S: no site-packages, so nothing that is installed can be imported.
  code = "import sys; sys.path.insert(0, '.'); from launch import cli;"
  run = subprocess.run(
    [sys.executable, "-I", "-S", "-c", code + "sys.exit(cli.main(['--help']))"],
    capture_output=True,
    text=True,
    cwd=ROOT,
  )
  assert run.returncode == 0, run.stderr
  assert all(f"\n  {verb} " in run.stdout for verb in cli.VERBS)


@pytest.mark.parametrize(
  "args,said",
  [
    (["genrate"], "did you mean generate?"),
    (["zzz"], "v2a --help"),
    (["train", "--wrkdir=x"], "did you mean workdir?"),
    (["train"], "--config="),
    (["train", "--config=configs/difusion_tiny.py"], "diffusion_tiny.py?"),
    (["sweep", "status", "no/such/sweep"], "no plan in no/such/sweep"),
    (["sweep", "plan", "--confg=x"], "--config"),
    (["train", "--config=configs/ar.py:smal"], "py:smal: size 'smal' is not"),
    (["weights", "fetch", "mn05"], "did you mean mn04?"),
    (["doctor", "--jsn"], "did you mean --json?"),
    (["report", "no.json", "-o", "x.html"], "no.json"),
    (["generate", "no/such.mp4", "-o", "x"], "no/such.mp4"),
    (["generate", "x", "-o", "y", "--num_candidate=3"], "--num_candidates?"),
    (["generate", "x", "-o", "y", "--regenerate", "2"], "'2' is no span"),
    (["watermark", "detect", "no/such.mp4"], "no/such.mp4"),
    (["eval", "no/such/run", "--set=x", "-o", "y"], "no/such/run"),
    (["eval", *TINY, "--solver=eulr"], "solver='eulr'"),
    (["eval", *TINY, "--temperature=1"], "sampler: no key temperature"),
    (["data", "report", "no/such/set"], "no/such/set"),
    (["train", *AR, "--config.data.paths=('no/such',)"], "no/such"),
    (["train", *AR, "--config.codec=no/such"], "bundled here: codec_tiny"),
    (["data", "build", "no/such/dir", "-o", "x"], "no/such/dir"),
  ],
)
def test_an_error_is_one_line_that_says_what_to_do(args, said, capsys):
  assert cli.main(args) == 2
  shown = capsys.readouterr()
  assert said in shown.err
  assert shown.err.count("\n") == 1
  assert shown.err.startswith("v2a")
  assert not shown.out


def test_flags_of_the_sampler_change_what_is_typed_and_nothing_else():
  parser = argparse.ArgumentParser()
  sampler_flags.add_to(parser)
  assert sampler_flags.overrides(parser.parse_args([])) == {}
  typed = ["--num_steps=0", "--solver=heun", "--guidance_prompt=1.5"]
  assert sampler_flags.overrides(parser.parse_args(typed)) == {
    "num_steps": 0,
    "solver": "heun",
    "guidance": {"prompt": 1.5},
  }


@pytest.mark.parametrize(
  "override,said",
  [
    ("--config.model.deth=3", "'model.deth', did you mean depth?"),
    ("--config.modle.depth=3", "'modle', did you mean model?"),
    ("--config.qqq=3", "there are model, num_train_steps"),
    ("--config.model.depth.x=3", "has no keys in it"),
    ("--config.model.depth=many", "many"),
  ],
)
def test_a_mistyped_config_key_names_the_nearest(
  override, said, config, tmp_path, capsys
):
  args = [f"--config={config}", override, f"--workdir={tmp_path / 'run'}"]
  assert cli.main(["train", *args]) == 2
  shown = capsys.readouterr().err
  assert said in shown
  assert shown.count("\n") == 1
  assert not (tmp_path / "run").exists()


def test_overrides_reach_the_config(config, capsys):
  args = [f"--config={config}", "--config.model.depth=7", "--print_config"]
  args += ["--config.model.betas=(0.5,0.6)"]
  assert cli.main(["train", *args]) == 0
  shown = capsys.readouterr().out
  assert "depth: 7" in shown
  assert "- 0.5" in shown


def test_a_module_is_the_same_as_its_verb():
  run = subprocess.run(
    [sys.executable, "-m", "launch.train", "--confg=x"],
    capture_output=True,
    text=True,
    cwd=ROOT,
  )
  assert run.returncode == 2
  assert run.stderr == v2a("train", "--confg=x").stderr


def test_debug_shows_the_traceback():
  run = v2a("sweep", "status", "no/such", "--debug")
  assert "Traceback" in run.stderr
  assert "no plan in no/such" in run.stderr
