"""Several processes: who is lost, what each leaves, and how the run goes on."""

import contextlib
import json
import logging
import os
import re
import signal
import socket
import time

import pytest
from toy_training import experiment, losses_of

from tests.training.toy_process import read_until, start
from v2a_jax.training import hosts, slowness
from v2a_jax.training.digests import list_steps
from v2a_jax.training.goodput import Goodput
from v2a_jax.training.loop import train

LOST_AFTER = 5.0  # seconds
STEPS = 40


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
  """Losses of a run that nothing happens to."""
  workdir = tmp_path_factory.mktemp("undisturbed")
  train(experiment(num_train_steps=STEPS, checkpoint_every=STEPS), workdir)
  return losses_of(workdir)


def start_two(workdir, each=({}, {}), **settings):
  """Starts two processes that train slowly enough to be disturbed.

  Args:
    workdir: the run's folder.
    each: settings of each process alone.
    **settings: settings of both.
  """
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  settings = (
    dict(
      devices=1,
      mesh={"data": 2},
      num_train_steps=STEPS,
      checkpoint_every=2,
      delay=0.1,
      timeouts={"lost": LOST_AFTER, "join": 60},
    )
    | settings
  )
  return [
    start(workdir, processes=(port, 2, i), **settings, **each[i])
    for i in range(2)
  ]


def lines_of(process, timeout=LOST_AFTER):
  """Returns what a process that ends in time has printed last."""
  return process.communicate(timeout=timeout)[0].splitlines()


@pytest.mark.parametrize(
  "lost,how",
  [(1, signal.SIGKILL), (0, signal.SIGKILL), (0, signal.SIGSTOP)],
)
def test_the_loss_of_a_process_ends_the_other_in_time_with_one_line(
  lost, how, undisturbed, tmp_path, capsys
):
  processes = start_two(tmp_path, heartbeat=0.2)
  other = processes[1 - lost]
  try:
    read_until(processes[0], "step 15/")
    processes[lost].send_signal(how)
    lines = lines_of(other)
  finally:
    for process in processes:
      process.kill()
      process.wait()
  assert other.returncode == 75, "\n".join(lines)
  told = [line for line in lines if not line.startswith("step ")]
  (line,) = [line for line in told if "lost" in line]
  assert f"lost process {lost} (host {os.uname().nodename}), silent" in line
  assert "Nothing can be saved without all processes" in line
  saved = re.search(r"newest checkpoint, of step (\d+) or later$", line)[1]
  assert list_steps(tmp_path / "checkpoints")[0] >= int(saved) > 0
  assert "Traceback" not in "".join(told) and "@ " not in "".join(told)
  # The console shows the line; so does the log of the process.
  text = (tmp_path / "hosts" / f"{1 - lost}.log").read_text()
  assert f"lost process {lost} (host" in text

  for process in (0, 1):
    beat = json.loads((tmp_path / "hosts" / f"{process}.json").read_text())
    assert beat["host"] == os.uname().nodename
    assert {"pid", "time", "step", "phase"} <= beat.keys()

  # The same command on one process goes on from the newest checkpoint.
  assert 2 <= list_steps(tmp_path / "checkpoints")[0] < STEPS
  resumed = train(
    experiment(num_train_steps=STEPS, checkpoint_every=STEPS), tmp_path
  )
  assert int(resumed.step) == STEPS
  assert "in 2 starts: step" in capsys.readouterr().out
  assert losses_of(tmp_path) == pytest.approx(undisturbed, rel=1e-5)


def ends(processes):
  """Waits for two processes; returns what each has printed."""
  try:
    return [process.communicate(timeout=60)[0] for process in processes]
  finally:
    for process in processes:
      process.kill()
      process.wait()


def test_an_error_of_all_processes_costs_no_step(tmp_path):
  processes = start_two(tmp_path, fail_after=5, checkpoint_every=100)
  output, _ = ends(processes)
  assert [process.returncode for process in processes] == [2, 2], output
  assert f"saved {tmp_path / 'checkpoints' / '5'}" in output
  assert "record 80 is damaged" in output
  assert list_steps(tmp_path / "checkpoints") == [5]


def test_an_error_of_one_process_says_why_nothing_is_saved(tmp_path):
  processes = start_two(
    tmp_path, each=[{}, {"fail_after": 5}], checkpoint_every=4
  )
  outputs = ends(processes)
  assert [process.returncode for process in processes] == [2, 2], outputs
  said = "step 5 is not saved: that takes all processes"
  assert said in outputs[1] and "record 80 is damaged" in outputs[0]
  assert list_steps(tmp_path / "checkpoints") == [4]


def beat(**facts):
  usual = dict(host="a", step=9, phase="step", phase_seconds=0.1)
  return usual | dict(step_time=1.0, data_time=0.01, device_time=0.9) | facts


def test_hosts_that_hold_the_others_up_are_named():
  beats = {p: beat(host=f"node{p}") for p in range(4)}
  assert slowness.slow_hosts(beats) == {}
  beats[2] |= dict(data_time=0.6, device_time=0.3)
  beats[3] |= dict(device_time=0.2)
  lines = slowness.slow_hosts(beats)
  assert lines.keys() == {2, 3}
  assert (
    "process 2 (host node2) holds the others up: it waits for data"
    in (lines[2])
  )
  assert "0.6 s of a step of 1 s, the usual host 0.01 s" in lines[2]
  assert "node3" in lines[3] and "works on the host 0.79 s" in lines[3]
  # All wait for data: nobody holds the others up.
  same = {p: beat(data_time=0.6, device_time=0.3) for p in range(4)}
  assert slowness.slow_hosts(same) == {}


def test_a_batch_that_does_not_come_is_named_while_it_is_waited_for():
  beats = {0: beat(phase="data", phase_seconds=42.0)}
  (line,) = slowness.slow_hosts(beats).values()
  assert "process 0 (host a) has waited 42 s for the batch after step 9" in line


def test_a_heartbeat_is_kept_and_a_log_appended_to(tmp_path):
  steps = iter(range(1000))
  pulse = hosts.Heartbeat(
    tmp_path, lambda: {"step": next(steps), "phase": "step"}, interval=0.02
  )
  path = tmp_path / "hosts" / "0.json"
  assert json.loads(path.read_text())["pid"] == os.getpid()
  end = time.monotonic() + 10
  while json.loads(path.read_text())["step"] < 3 and time.monotonic() < end:
    time.sleep(0.02)
  pulse.close()
  last = json.loads(path.read_text())["step"]
  assert last >= 3
  time.sleep(0.1)
  assert json.loads(path.read_text())["step"] == last

  for text in ("first", "second"):
    with hosts.log_file(tmp_path):
      logging.getLogger("v2a_jax.test").info(text)
  logging.getLogger("v2a_jax.test").info("outside")
  lines = (tmp_path / "hosts" / "0.log").read_text().splitlines()
  assert [line.rpartition(" ")[2] for line in lines] == ["first", "second"]


def test_heartbeats_that_cannot_be_written_cost_one_line(tmp_path, caplog):
  path, asked = tmp_path / "hosts" / "0.json", []
  path.mkdir(parents=True)

  def beats(count):
    end = time.monotonic() + 10
    count += len(asked)
    while len(asked) < count and time.monotonic() < end:
      time.sleep(0.02)
    return [x for x in caplog.messages if "no heartbeat in" in x]

  describe = lambda: asked.append(0) or {"step": 1, "phase": "step"}
  pulse = hosts.Heartbeat(tmp_path, describe, interval=0.02)
  assert len(beats(10)) == 1
  path.rmdir()
  assert len(beats(5)) == 1 and path.is_file()
  while path.is_file():  # Trouble of its own, between two heartbeats.
    path.unlink()
    with contextlib.suppress(FileExistsError):
      path.mkdir()
  assert len(beats(10)) == 2
  pulse.close()


def test_time_is_counted_over_starts_and_lost_steps_apart(tmp_path):
  first = Goodput(tmp_path)
  for step in range(8):
    with first.phase(first.work(step)):
      time.sleep(0.002)
    first.done(step + 1)
  first.save()

  second = Goodput(tmp_path)  # Goes on from step 5.
  for step in range(5, 10):
    with second.phase(second.work(step)), second.waiting():
      time.sleep(0.002)
    second.done(step + 1)
  row = second.metrics()
  assert row["goodput/starts"] == 2 and row["goodput/steps_again"] == 3
  assert row["goodput/again_seconds"] >= 0.006
  assert row["goodput/step_seconds"] >= 0.02
  assert row["goodput/total_seconds"] > row["goodput/step_seconds"]
  line = second.summary()
  assert line.startswith("0:00 in 2 starts: step ") and "again" in line
  assert line.endswith("; 3 steps were done again") and "\n" not in line
  beat = second.heartbeat(10)
  assert beat["step"] == 10 and 0 < beat["device_time"] <= beat["step_time"]
