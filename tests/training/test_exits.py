"""Every way out of training saves what there is; real pipes and files."""

import json
import os
import pathlib
import resource
import signal
import subprocess

import pytest
from toy_training import losses_of

from tests.training.toy_process import read_until, start
from v2a_jax.training.digests import list_steps
from v2a_jax.training.preemption import PreemptionGuard


def test_nobody_reads_the_progress_line(tmp_path):
  """As with `v2a train | head`, or when `tee` is killed."""
  process = start(tmp_path, delay=0.1, num_train_steps=12)
  read_until(process, "step 2/12")
  process.stdout.close()
  assert process.wait(timeout=60) == 0
  assert list_steps(tmp_path / "checkpoints")[0] == 12
  assert len(losses_of(tmp_path)) == 12
  log = (tmp_path / "hosts" / "0.log").read_text()
  assert log.count("the progress line cannot be written (Broken pipe)") == 1
  assert "Traceback" not in log


def test_a_terminal_that_is_closed_saves(tmp_path):
  process = start(tmp_path, delay=0.2, num_train_steps=100)
  read_until(process, "step 2/100")
  process.stdout.close()
  process.send_signal(signal.SIGHUP)
  assert process.wait(timeout=60) == 128 + signal.SIGHUP
  (step,) = list_steps(tmp_path / "checkpoints")[:1]
  assert step >= 2


def test_a_loader_that_hangs_ends_the_run_to_be_started_again(tmp_path):
  process = start(
    tmp_path, hang_after=4, stall_seconds=1.0, checkpoint_every=100
  )
  output = process.communicate(timeout=60)[0]
  assert process.returncode == 75, output
  assert "s after step 4, in phase 'data' (config.stall_seconds=1)" in output
  assert list_steps(tmp_path / "checkpoints") == [4]


def test_nohup_is_respected():
  before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
  try:
    with PreemptionGuard() as guard:
      os.kill(os.getpid(), signal.SIGHUP)
      assert guard.exit_code(1) is None
  finally:
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def small_disk(tmp_path):
  """A file system of 2 MB."""
  folder = tmp_path / "disk"
  folder.mkdir()
  mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
  if subprocess.run(mount, capture_output=True).returncode:
    pytest.skip("mounting a file system is not allowed here")
  yield folder
  subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: pathlib.Path) -> pathlib.Path:
  """Leaves no byte free; returns what takes the room."""
  filler = folder / "filler"
  with filler.open("wb", buffering=0) as file:
    try:
      while file.write(bytes(4096)):
        pass
    except OSError:
      return filler


def test_files_that_may_not_grow_for_a_while_cost_one_line_each(tmp_path):
  """The run's log, heartbeat, rows and checkpoints all fail."""
  workdir = tmp_path / "run"
  settings = dict(num_train_steps=15, checkpoint_every=3, devices=2, mesh={})
  process = start(workdir, delay=0.1, **settings)
  lines = read_until(process, "step 4/15")
  _, most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
  resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (64, most))
  lines += read_until(process, "step 10/15")
  resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))
  output = "".join(lines) + process.communicate(timeout=60)[0]
  assert process.returncode == 0, output
  assert "Traceback" not in output and "Logging error" not in output, output
  assert list_steps(workdir / "checkpoints")[0] == 15
  text = (workdir / "metrics.jsonl").read_text()
  assert [json.loads(row)["step"] for row in text.splitlines()] == list(
    range(1, 16)
  )
  log = (workdir / "hosts" / "0.log").read_text()
  assert all(f"saving step {step}" in log for step in (3, 6, 9, 12, 15))


def test_a_disk_that_is_full_for_a_while_costs_no_step(small_disk):
  """The rows of that time are written when there is room again."""
  workdir = small_disk / "run"
  process = start(workdir, delay=0.1, num_train_steps=24, checkpoint_every=4)
  lines = read_until(process, "step 6/24")
  filler = fill(small_disk)
  lines += read_until(process, "step 14/24")
  filler.unlink()
  lines += process.communicate(timeout=60)[0].splitlines()
  assert process.returncode == 0, "".join(lines)
  assert list_steps(workdir / "checkpoints")[0] == 24
  rows = [
    json.loads(row)
    for row in (workdir / "metrics.jsonl").read_text().splitlines()
  ]
  assert [row["step"] for row in rows] == list(range(1, 25))
  usual = ("step", "training", "saved", "a step waits")
  others = [x for x in lines if not x.startswith(usual)]
  assert len(others) <= 4 and not any("Traceback" in x for x in others), others
