"""The templates parse, and what they call is there."""

import pathlib
import re
import shlex
import subprocess

import pytest
import yaml

from launch import cli, parsing, train
from tests.launch.commands import ROOT

TEMPLATES = ROOT / "launch" / "templates"


def parse_train(words):
  """Parses what a template gives to `v2a train`, as that would."""
  return parsing.Parser("x", "x", train.ARGUMENTS, "x").parse(words)


def stub(folder: pathlib.Path, name: str) -> None:
  """Writes a program that prints the arguments it gets, one a line."""
  (folder / name).write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
  (folder / name).chmod(0o755)


@pytest.mark.parametrize("name", ["slurm.sbatch", "tpu_vm.sh"])
def test_shell_parses_and_explains_itself(name):
  script = TEMPLATES / name
  subprocess.run(["bash", "-n", script], check=True)
  bare = subprocess.run(
    ["bash", script], capture_output=True, text=True, env={"PATH": "/bin"}
  )
  assert bare.returncode != 0
  assert re.search("usage|slice", bare.stderr)


def slurm(tmp_path, **env):
  """Runs the template with programs that print what they get."""
  for name in ("srun", "scontrol"):
    stub(tmp_path, name)
  with (tmp_path / "srun").open("a") as file:
    file.write('exit "${CODE:-0}"\n')
  activate = tmp_path / ".venv" / "bin" / "activate"
  activate.parent.mkdir(parents=True)
  activate.touch()
  return subprocess.run(
    ["bash", TEMPLATES / "slurm.sbatch", "c.py", "out", "--config.seed=1"],
    capture_output=True,
    text=True,
    env={
      "PATH": f"{tmp_path}:/bin:/usr/bin",
      "SLURM_SUBMIT_DIR": str(tmp_path),
      "SLURM_JOB_ID": "7",
      **env,
    },
  )


@pytest.mark.parametrize(
  "code,restarts,again",
  [(75, 0, True), (143, 99, True), (2, 0, False), (75, 100, False)],
)
def test_slurm_requeues_what_may_go_better(code, restarts, again, tmp_path):
  run = slurm(tmp_path, CODE=str(code), SLURM_RESTART_COUNT=str(restarts))
  assert run.returncode == code
  assert run.stdout.endswith("requeue\n7\n") == again


def test_slurm_starts_a_process_on_every_gpu(tmp_path):
  run = slurm(tmp_path)
  assert run.returncode == 0, run.stderr
  words = run.stdout.split("\n")[:-1]
  assert words[2:5] == ["python", "-m", "launch.train"]
  args = parse_train(words[5:])
  assert args.distributed
  assert (args.config, args.workdir) == ("c.py", "out")
  assert args.overrides == ["--config.seed=1"]
  directives = (TEMPLATES / "slurm.sbatch").read_text()
  for option in ("gpus-per-node", "ntasks-per-node"):
    assert f"#SBATCH --{option}=8\n" in directives


def test_a_sweep_on_slurm_is_planned_as_the_template_says(tmp_path):
  """The command in the header of the template, with another config."""
  text = (TEMPLATES / "slurm.sbatch").read_text()
  command = re.search(r"# *v2a (sweep plan .*)", text)[1]
  command = command.replace("runs/depth", str(tmp_path))
  words = shlex.split(command.replace("...", "configs/ar_tiny.py"))
  assert cli.main([*words, "--quick"]) == 0
  text = (tmp_path / "train.sbatch").read_text()
  subprocess.run(["bash", "-n", tmp_path / "train.sbatch"], check=True)
  # A task for every GPU of a machine, of one machine a run.
  for directive in ("array=0-2", "nodes=1", "ntasks-per-node=8"):
    assert f"#SBATCH --{directive}\n" in text
  assert "#SBATCH --gpus-per-node=8\n" in text


def tpu_vm(tmp_path, *words, **env):
  """Runs the template with a `gcloud` that prints what it gets."""
  stub(tmp_path, "gcloud")
  return subprocess.run(
    ["bash", TEMPLATES / "tpu_vm.sh", *words],
    capture_output=True,
    text=True,
    env={"PATH": f"{tmp_path}:/bin:/usr/bin", **env},
  )


SLICE = dict(TPU="slice", ZONE="us-east5-a")


@pytest.mark.parametrize("command", ["setup", "train", "log", "stop"])
def test_what_runs_on_a_tpu_slice_is_shell(command, tmp_path):
  words = ["c.py", "gs://b/r"] * (command == "train")
  run = tpu_vm(tmp_path, command, *words, **SLICE)
  assert run.returncode == 0, run.stderr
  head, _, remote = run.stdout.partition("--command\n")
  assert head.split()[:5] == ["compute", "tpus", "tpu-vm", "ssh", "slice"]
  assert "--zone=us-east5-a" in head
  assert ("--worker=0" if command == "log" else "--worker=all") in head
  subprocess.run(["bash", "-n"], input=remote, text=True, check=True)


def test_a_tpu_slice_trains_with_the_arguments_as_they_were_typed(tmp_path):
  override = "--config.data.paths=('a b', \"it's\")"
  run = tpu_vm(tmp_path, "train", "c.py", "gs://b/r", override, **SLICE)
  line = re.search(r"launch\.train (.*?)\\?\n? *>> train.log", run.stdout, re.S)
  args = parse_train(shlex.split(line[1].replace("\\\n", " ")))
  assert args.distributed
  assert (args.config, args.workdir) == ("c.py", "gs://b/r")
  assert args.overrides == [override]


@pytest.mark.parametrize(
  "words,env,message",
  [
    (["train", "c.py"], SLICE, "WORKDIR, on storage that every host sees"),
    (["restart"], SLICE, "usage: TPU=NAME ZONE=ZONE"),
    (["log"], {"TPU": "slice"}, "zone of the slice"),
  ],
)
def test_a_tpu_slice_that_is_not_named_is_refused(
  words, env, message, tmp_path
):
  run = tpu_vm(tmp_path, *words, **env)
  assert run.returncode != 0 and message in run.stderr
  assert not run.stdout


def test_dockerfile_copies_what_exists():
  text = (TEMPLATES / "Dockerfile").read_text()
  for line in re.findall(r"^COPY (.*)", text, re.M):
    *sources, _ = line.split()
    assert all((ROOT / source).exists() for source in sources), line
  command = re.search(r'CMD \["v2a", "(\w+)"\]', text)[1]
  assert command in cli.VERBS


def test_workflow_runs_what_make_test_runs():
  workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
  job = workflow["jobs"]["test"]
  assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12"]
  assert any(step.get("run") == ".ci/run" for step in job["steps"])
  assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_makefile_parses():
  for target in ("quickstart", "test", "lint"):
    run = subprocess.run(
      ["make", "--dry-run", target], capture_output=True, text=True, cwd=ROOT
    )
    assert run.returncode == 0, run.stderr
