"""Runs and launchers that are killed: what is left is taken up again, exactly."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from launch import cli
from launch.parsing import UsageError
from launch.sweep import local, plan, state
from tests.launch import toy_run
from tests.launch.commands import ENV, ROOT, refused, succeeds
from tests.processes import all_end, is_running

CONFIG = """
from configs import diffusion_tiny

def get_config():
  config = diffusion_tiny.get_config()
  config.update(name="toy", num_train_steps=40, checkpoint_every=5)
  return config
"""


def planned(tmp_path, capsys, name, *args, seeds=2):
  """Plans runs that differ in their seed; returns folder and names."""
  config = tmp_path / "toy.py"
  config.write_text(CONFIG)
  folder = tmp_path / name
  words = [*("sweep", "plan", "--quick", f"--config={config}"), "-o", folder]
  words += [f"--seeds={seeds}", *args]
  if not any(str(word).startswith("--command") for word in args):
    words.append(f"--command={toy_run.COMMAND}")
  succeeds(capsys, *words)
  return folder, [point.name for point in plan.read(folder).points]


def launcher(folder, *args):
  return subprocess.Popen(
    [sys.executable, "-m", "launch.cli", "sweep", "launch", folder, *args],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    cwd=ROOT,
    env=ENV,
  )


def wait_for(condition, *, seconds=60):
  deadline = time.monotonic() + seconds
  while not (found := condition()):
    assert time.monotonic() < deadline
    time.sleep(0.05)
  return found


def trainer_of(workdir: pathlib.Path) -> int:
  """Returns the process that trains in a workdir."""
  return json.loads((workdir / "lock").read_text())["process"]


def outcome(folder, capsys):
  """Returns what a finished sweep comes to: its table, and every loss."""
  rows = json.loads(succeeds(capsys, "sweep", "status", folder, "--json"))
  keys = ("run", "state", "step", "total", "percent", "loss")
  losses = []
  for row in rows:
    lines = (folder / row["run"] / "metrics.jsonl").read_text().splitlines()
    losses.append([json.loads(line)["train/loss"] for line in lines])
  return [{key: row[key] for key in keys} for row in rows], losses, rows


def test_killed_runs_and_launchers_leave_the_table_as_if_nothing_was(
  tmp_path, capsys
):
  whole, names = planned(tmp_path, capsys, "whole")
  succeeds(capsys, "sweep", "launch", whole, "--jobs=2")
  expected, losses, _ = outcome(whole, capsys)
  assert [row["state"] for row in expected] == ["DONE", "DONE"]
  assert losses[0] != losses[1] and len(losses[0]) == 40

  broken, again = planned(tmp_path, capsys, "broken")
  assert again == names  # One config, one name and digest.
  process = launcher(broken, "--jobs=2")
  first, second = (broken / name for name in names)
  wait_for(lambda: state.checkpoints(first) and state.checkpoints(second))
  killed = trainer_of(first)
  os.kill(killed, signal.SIGKILL)
  # The launcher starts it again by itself.
  wait_for(lambda: (first / "running").exists() and trainer_of(first) != killed)
  process.kill()
  seen = process.communicate()[0]
  assert f"{names[0]} was killed: goes on from step " in seen
  # The runs save and stop; a launch that comes meanwhile waits for them.
  succeeds(capsys, "sweep", "launch", broken, "--jobs=2")
  table, again, rows = outcome(broken, capsys)
  assert table == expected
  assert again == losses  # Every step, to the last bit.
  # The second may have been done when the launcher was killed.
  assert rows[0]["restarts"] >= 1


@pytest.mark.parametrize("which", ["script", "training"])
def test_a_run_that_is_always_killed_is_given_up(which, tmp_path, capsys):
  command = "bash -c 'echo try >> $0.tries; kill -9 {}' " + str(tmp_path / "x")
  command = command.format("$PPID" if which == "script" else "$$")
  folder, (name,) = planned(
    tmp_path, capsys, "doomed", f"--command={command}", seeds=1
  )
  assert cli.main(["sweep", "launch", str(folder), "--restarts=2"]) == 1
  shown = capsys.readouterr()
  tries = (tmp_path / "x.tries").read_text().count("try")
  assert tries == 3
  assert shown.out.count(f"{name} was killed: starts again") == 2
  assert f"{name} was killed: not started again" in shown.out
  assert f"failed: {name}; see {folder / name / 'log.txt'}" in shown.err


@pytest.mark.parametrize("code,tries", [(75, 2), (1, 1), (2, 1)])
def test_only_what_may_go_better_is_started_again(
  code, tries, tmp_path, capsys
):
  command = f"bash -c 'echo try >> $0; exit {code}' {tmp_path / 'tries'}"
  folder, _ = planned(tmp_path, capsys, "ends", f"--command={command}", seeds=1)
  assert cli.main(["sweep", "launch", str(folder), "--restarts=1"]) == 1
  assert (tmp_path / "tries").read_text().count("try") == tries


def test_a_cancelled_run_saves_and_waits_for_resume(tmp_path, capsys):
  folder, (first, second) = planned(tmp_path, capsys, "cancelled")
  process = launcher(folder)  # One after the other.
  wait_for(lambda: state.checkpoints(folder / first))
  training = trainer_of(folder / first)
  shown = succeeds(capsys, "sweep", "cancel", folder)
  assert f"{first}: cancelled, was RUNNING" in shown
  assert f"{second}: cancelled, was NEW" in shown
  assert "CANCELLED" in process.communicate(timeout=30)[0]
  assert all_end([training])
  rows = json.loads(succeeds(capsys, "sweep", "status", folder, "--json"))
  assert [row["state"] for row in rows] == ["CANCELLED"] * 2
  assert rows[0]["next"] == f"v2a sweep resume {folder} {first}"
  stopped = state.newest(folder / first)
  assert stopped > 0
  # `launch` leaves it alone; `resume` goes on from the step that was saved.
  shown = succeeds(capsys, "sweep", "launch", folder)
  assert f"{first}: CANCELLED, skipped" in shown
  assert state.newest(folder / first) == stopped
  succeeds(capsys, "sweep", "resume", folder, first)
  rows = json.loads(succeeds(capsys, "sweep", "status", folder, "--json"))
  assert [row["state"] for row in rows] == ["DONE", "CANCELLED"]
  assert f"from step {stopped}" in (folder / first / "log.txt").read_text()
  assert "did you mean" in refused(
    capsys, "sweep", "resume", folder, first[:-1]
  )


def test_a_training_that_outlives_its_script_is_waited_for(tmp_path, capsys):
  folder, (name,) = planned(tmp_path, capsys, "orphan", seeds=1)
  script = subprocess.Popen(
    ["bash", folder / f"{name}.sh"], stdout=subprocess.DEVNULL
  )
  wait_for(lambda: state.checkpoints(folder / name))
  training = trainer_of(folder / name)
  script.kill()
  script.wait()
  assert is_running(training)
  assert state.state(folder / name) == state.RUNNING
  shown = succeeds(capsys, "sweep", "launch", folder)
  assert f"{name}: runs already, waited for" in shown
  assert state.state(folder / name) == state.DONE


def test_gpus_are_divided_among_the_jobs(monkeypatch):
  monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,7")
  shares = [slot["CUDA_VISIBLE_DEVICES"] for slot in local.slots(2)]
  assert shares == ["0,1", "2,3"]
  assert local.slots(1) == [{}]
  with pytest.raises(UsageError, match="--jobs 6: there are 5 GPUs here"):
    local.slots(6)


def test_gpus_are_found_by_their_driver(monkeypatch, tmp_path):
  monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
  monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
  program = tmp_path / "nvidia-smi"
  program.write_text(
    "#!/bin/sh\necho 'GPU 0: NVIDIA H100 (UUID: a)'\necho 'GPU 1: NVIDIA H100'\n"
  )
  program.chmod(0o755)
  assert [s["CUDA_VISIBLE_DEVICES"] for s in local.slots(2)] == ["0", "1"]
  program.unlink()
  monkeypatch.setenv("PATH", str(tmp_path))
  assert local.slots(3) == [{}, {}, {}]


def test_a_job_has_its_share_of_the_gpus(tmp_path, capsys, monkeypatch):
  monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
  seen = tmp_path / "seen"
  command = f"bash -c 'echo $CUDA_VISIBLE_DEVICES >> {seen}; sleep 1' x"
  folder, _ = planned(tmp_path, capsys, "gpus", f"--command={command}")
  succeeds(capsys, "sweep", "launch", folder, "--jobs=2")
  assert sorted((tmp_path / "seen").read_text().split()) == ["4", "5"]
