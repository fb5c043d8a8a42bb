"""A sweep of toy runs through its whole life: plan, launch, stop, status."""

import json
import os
import subprocess
import sys

import pytest

from launch import cli
from launch.parsing import UsageError
from launch.sweep import plan

CONFIG = """
from ml_collections import config_dict

def get_config():
  config = config_dict.ConfigDict()
  config.num_train_steps = 5
  config.optimizer = dict(learning_rate=1e-3)
  config.model = dict(depth=2, width=8)
  return config

def sweep_lr():
  for value in (1e-3, 1e-4):
    yield {"optimizer.learning_rate": value}

def sweep_depth():
  for depth in (2, 3):
    yield {"model.depth": depth}
"""
# Writes what a training run leaves; depth 3 fails the first time.
TRAINER = """
import json, pathlib, sys
args = dict(a[2:].split("=", 1) for a in sys.argv[1:])
run = pathlib.Path(args["workdir"])
(run / "seen.json").write_text(json.dumps(args))
(run / "checkpoints" / "4").mkdir(parents=True, exist_ok=True)
if args["config.model.depth"] == "3" and not (run / "again").exists():
  (run / "again").touch()
  sys.exit("out of luck")
with open(run / "metrics.jsonl", "a") as file:
  file.write(json.dumps({"step": 4, "train/loss": 0.5}) + "\\n")
  file.write('{"step": 5, "train/l')  # Torn by a crash.
"""


@pytest.fixture
def config(tmp_path):
  file = tmp_path / "toy.py"
  file.write_text(CONFIG)
  return str(file)


@pytest.fixture
def planned(tmp_path, config):
  trainer = tmp_path / "trainer.py"
  trainer.write_text(TRAINER)
  folder = tmp_path / "sweep"
  args = ["sweep", "plan", f"--config={config}", "--sweep=lr,depth"]
  args += ["--config.model.width=16", "-o", str(folder)]
  assert cli.main([*args, f"--command={sys.executable} {trainer}"]) == 0
  return folder


def rows(folder, capsys):
  capsys.readouterr()
  assert cli.main(["sweep", "status", str(folder), "--json"]) == 0
  return json.loads(capsys.readouterr().out)


def test_plan_writes_readable_files_and_starts_nothing(planned, capsys):
  points = plan.read(planned)
  assert len(points) == 4
  assert points[1].name.startswith("lr-depth-001-learning_rate=0.001,depth=3-")
  assert points[0].overrides == {
    "model.width": "16",
    "optimizer.learning_rate": 1e-3,
    "model.depth": 2,
  }
  for point in points:
    script = planned / f"{point.name}.sh"
    subprocess.run(["bash", "-n", script], check=True)
    assert f"--config.model.depth={point.overrides['model.depth']}" in (
      script.read_text()
    )
    assert not (planned / point.name).exists()
  assert {row["state"] for row in rows(planned, capsys)} == {"NEW"}


def test_launch_runs_the_rest_after_a_failure_and_then_resumes(planned, capsys):
  assert cli.main(["sweep", "launch", str(planned)]) == 1
  states = [row["state"] for row in rows(planned, capsys)]
  assert states == ["DONE", "FAILED (1)", "DONE", "FAILED (1)"]
  before = os.stat(planned / plan.read(planned)[0].name / "seen.json")

  assert cli.main(["sweep", "launch", str(planned), "--jobs", "2"]) == 0
  table = rows(planned, capsys)
  assert [row["state"] for row in table] == ["DONE"] * 4
  assert table[0]["step"] == 4
  assert table[0]["total"] == 5
  assert table[0]["loss"] == 0.5
  assert table[0]["checkpoint"] >= 0
  after = os.stat(planned / plan.read(planned)[0].name / "seen.json")
  assert after.st_mtime_ns == before.st_mtime_ns, "a finished run ran again"


def test_a_killed_run_is_told_from_one_that_runs(planned):
  name = plan.read(planned)[0].name
  workdir = planned / name
  workdir.mkdir()
  host = os.uname().nodename
  (workdir / "running").write_text(f"{host} {os.getpid()}\n")
  assert plan.state(workdir) == "RUNNING"
  ended = subprocess.Popen(["true"])
  ended.wait()
  (workdir / "running").write_text(f"{host} {ended.pid}\n")
  assert plan.state(workdir) == "FAILED (killed)"
  (workdir / "checkpoints" / "3").mkdir(parents=True)
  assert plan.state(workdir) == "RESUME"


def test_several_configs_are_arms(tmp_path, config):
  other = tmp_path / "other.py"
  other.write_text(CONFIG.replace("depth=2", "depth=5"))
  points = plan.points([config, str(other)], names=[], overrides={})
  assert [p.name.rpartition("-")[0] for p in points] == [
    "arms-000-toy",
    "arms-001-other",
  ]


def test_points_do_not_leak_into_one_another(config):
  """ConfigDict copies share nested dicts, so each point is read afresh."""
  points = plan.points([config], names=["lr", "depth"], overrides={})
  alone = plan.points([config], names=["lr"], overrides={"model.depth": "3"})
  assert points[1].fingerprint == alone[0].fingerprint
  assert len({point.fingerprint for point in points}) == 4


def test_refuses_two_points_that_are_the_same_run(config):
  with pytest.raises(UsageError, match="the same run"):
    plan.points([config], names=["depth", "depth"], overrides={})


def test_planning_again_keeps_runs_and_refuses_another_plan(
  planned, config, capsys
):
  args = ["sweep", "plan", f"--config={config}", "-o", str(planned)]
  again = [*args, "--sweep=lr,depth", "--config.model.width=16"]
  assert cli.main(again) == 0
  assert cli.main([*args, "--sweep=lr"]) == 2
  assert "holds another plan" in capsys.readouterr().err


def test_an_unknown_sweep_names_those_there_are(config, tmp_path, capsys):
  args = [f"--config={config}", "--sweep=colour", "-o", str(tmp_path / "s")]
  assert cli.main(["sweep", "plan", *args]) == 2
  assert "there are: lr, depth" in capsys.readouterr().err
