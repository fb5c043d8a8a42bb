"""Several processes: who is lost, what each leaves, and how the run goes on."""

import os
import signal
import socket

import pytest
from test_loop import read_until, start
from toy_training import experiment, losses_of

from v2a_jax.training.digests import list_steps
from v2a_jax.training.loop import train

LOST_AFTER = 5.0  # seconds
STEPS = 40


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
  """Losses of a run that nothing happens to."""
  workdir = tmp_path_factory.mktemp("undisturbed")
  train(experiment(num_train_steps=STEPS, checkpoint_every=STEPS), workdir)
  return losses_of(workdir)


def start_two(workdir, **settings):
  """Starts two processes that train slowly enough to be disturbed."""
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
  return [start(workdir, processes=(port, 2, i), **settings) for i in range(2)]


def lines_of(process, timeout=LOST_AFTER):
  """Returns what a process that ends in time has printed last."""
  return process.communicate(timeout=timeout)[0].splitlines()


@pytest.mark.parametrize(
  "lost,how",
  [(1, signal.SIGKILL), (0, signal.SIGKILL), (0, signal.SIGSTOP)],
)
def test_the_loss_of_a_process_ends_the_other_in_time_with_one_line(
  lost, how, undisturbed, tmp_path
):
  processes = start_two(tmp_path)
  other = processes[1 - lost]
  try:
    read_until(processes[0], "step 5/")
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
  assert "Traceback" not in "".join(told) and "@ " not in "".join(told)
  # The console shows the line; so does the log of the process.
  text = (tmp_path / "hosts" / f"{1 - lost}.log").read_text()
  assert f"lost process {lost} (host" in text

  # The same command on one process goes on from the newest checkpoint.
  assert 2 <= list_steps(tmp_path / "checkpoints")[0] < STEPS
  resumed = train(experiment(num_train_steps=STEPS), tmp_path)
  assert int(resumed.step) == STEPS
  assert losses_of(tmp_path) == pytest.approx(undisturbed, rel=1e-5)
