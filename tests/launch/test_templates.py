"""The templates parse, and what they call is there."""

import pathlib
import re
import string
import subprocess

import pytest
import yaml

from launch import cli

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "launch" / "templates"
TRAIN_FLAGS = re.compile(r"--(config|workdir|distributed|config\.[\w.]+)(=|$)")


@pytest.mark.parametrize("name", ["slurm.sbatch", "tpu_vm.sh"])
def test_shell_parses_and_explains_itself(name):
  script = TEMPLATES / name
  subprocess.run(["bash", "-n", script], check=True)
  bare = subprocess.run(
    ["bash", script], capture_output=True, text=True, env={"PATH": "/bin"}
  )
  assert bare.returncode != 0
  assert re.search("usage|slice", bare.stderr)


def test_slurm_starts_a_process_on_every_gpu(tmp_path):
  """Runs the script with a `srun` that prints what it was given."""
  (tmp_path / "srun").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
  (tmp_path / "srun").chmod(0o755)
  activate = tmp_path / ".venv" / "bin" / "activate"
  activate.parent.mkdir(parents=True)
  activate.touch()
  run = subprocess.run(
    ["bash", TEMPLATES / "slurm.sbatch", "c.py", "out", "--config.seed=1"],
    capture_output=True,
    text=True,
    env={
      "PATH": f"{tmp_path}:/bin:/usr/bin",
      "SLURM_SUBMIT_DIR": str(tmp_path),
    },
  )
  assert run.returncode == 0, run.stderr
  words = run.stdout.split("\n")[:-1]
  assert words[1:5] == ["python", "-m", "launch.train", "--distributed"]
  assert words[5:] == ["--config=c.py", "--workdir=out", "--config.seed=1"]


def test_jobset_renders_to_one_process_a_host():
  text = (TEMPLATES / "gke_jobset.yaml").read_text()
  values = dict(RUN="run", IMAGE="image", CONFIG="c.py", WORKDIR="gs://b/r")
  job = yaml.safe_load(string.Template(text).substitute(values))
  assert job["kind"] == "JobSet"
  spec = job["spec"]["replicatedJobs"][0]["template"]["spec"]
  assert spec["parallelism"] == spec["completions"]
  container = spec["template"]["spec"]["containers"][0]
  assert container["command"] == ["python", "-m", "launch.train"]
  assert all(TRAIN_FLAGS.match(flag) for flag in container["args"])
  chips = container["resources"]["limits"]["google.com/tpu"]
  rows, columns = spec["template"]["spec"]["nodeSelector"][
    "cloud.google.com/gke-tpu-topology"
  ].split("x")
  assert chips * spec["parallelism"] == int(rows) * int(columns)


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
