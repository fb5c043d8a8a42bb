"""Training runs that are killed, cut off from their reader, out of room.

Each round is a process of its own, which trains the toy experiment of
tests/training.
"""

import functools
import json
import os
import pathlib
import random
import re
import resource
import signal
import subprocess
import time

from tests.soak.rounds import Tally, repeat
from tests.training import toy_process
from v2a_jax.training import digests

EVERY = 2  # Steps between checkpoints.


_start = functools.partial(toy_process.start, devices=2, mesh={})


def end_of(process: subprocess.Popen, seconds: float = 60.0) -> int:
  """Waits for a process; returns its exit status."""
  try:
    return process.wait(timeout=seconds)
  except subprocess.TimeoutExpired:
    process.kill()
    process.wait()
    raise AssertionError(f"still there after {seconds:g} s") from None


def steps_until(process: subprocess.Popen, step: int) -> int:
  """Reads progress lines up to a step; returns the last number seen."""
  seen, lines = 0, []
  for line in process.stdout:
    lines.append(line)
    if match := re.match(r"step (\d+)/", line):
      seen = int(match[1])
      if seen >= step:
        return seen
  raise AssertionError("ended early: " + "".join(lines[-5:]))


def newest(workdir: pathlib.Path) -> int:
  """Returns the newest checkpoint, which must be sound; 0 for none."""
  root = workdir / "checkpoints"
  step = max(digests.list_steps(root), default=0)
  if step:
    assert digests.find_damage(root / str(step)) is None, f"{root}/{step} torn"
  return step


def kills(folder: pathlib.Path, rounds: int, *, seed: int = 0) -> Tally:
  """Kills a run at random moments around its saves, again and again."""
  tally = Tally(
    "SIGKILL of a run that saves every 2 steps",
    "newest checkpoint sound; at most one interval and the steps in flight lost",
  )
  rng, workdir = random.Random(seed), folder / "kills"

  def kill(seconds: float) -> str:
    before = newest(workdir)
    process = _start(
      workdir,
      num_train_steps=10**6,
      checkpoint_every=EVERY,
      delay=0.02,
      hidden=20_000,
    )
    steps_until(process, before + 1)
    deadline, seen = time.monotonic() + seconds, before + 1
    os.set_blocking(process.stdout.fileno(), False)
    while time.monotonic() < deadline:
      for line in process.stdout:
        if match := re.match(r"step (\d+)/", line):
          seen = int(match[1])
      time.sleep(0.01)
    process.kill()
    process.wait()
    saved = newest(workdir)
    assert saved >= before, f"went back from {before} to {saved}"
    lost = seen - saved
    assert lost <= 2 * EVERY, f"{lost} steps lost after {seen}"
    return f"{max(lost, 0)} steps lost"

  return repeat(tally, (rng.uniform(0, 1.2) for _ in range(rounds)), kill)


def readers_gone(folder: pathlib.Path, rounds: int, *, seed: int = 0) -> Tally:
  """Closes the pipe that the progress line goes to."""
  tally = Tally("reader of the progress line gone", "run ends well, all saved")
  rng = random.Random(seed)

  def leave(number: int) -> str:
    workdir = folder / f"pipe{number}"
    process = _start(workdir, num_train_steps=12, delay=0.02)
    steps_until(process, rng.randrange(1, 10))
    process.stdout.close()
    assert end_of(process) == 0, "did not end with 0"
    assert newest(workdir) == 12, f"{newest(workdir)} of 12 steps saved"
    return "all 12 steps saved"

  return repeat(tally, range(rounds), leave, slowest=60)


def full_disks(folder: pathlib.Path, rounds: int, *, seed: int = 0) -> Tally:
  """Lets no file of a run grow for a while, at random moments."""
  tally = Tally(
    "no file may grow (limit of file sizes), for 0.1 to 1 s",
    "run ends well, all rows written, last step saved",
  )
  rng = random.Random(seed)

  def fill(number: int) -> str:
    workdir = folder / f"full{number}"
    process = _start(
      workdir, num_train_steps=30, delay=0.05, checkpoint_every=3
    )
    steps_until(process, rng.randrange(1, 15))
    _, most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    size = (workdir / "metrics.jsonl").stat().st_size
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size // 2, most))
    time.sleep(rng.uniform(0.1, 1.0))
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output[-500:]
    assert "Traceback" not in output, output[-2000:]
    assert newest(workdir) == 30, f"{newest(workdir)} of 30 steps saved"
    rows = (workdir / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(row)["step"] for row in rows]
    assert steps == list(range(1, 31)), f"rows of steps {steps}"
    failed = output.count("could not be saved")
    return "one save failed" if failed == 1 else f"{failed} saves failed"

  return repeat(tally, range(rounds), fill, slowest=60)


def stops(folder: pathlib.Path, rounds: int, *, seed: int = 0) -> Tally:
  """Sends the signals that ask a run to stop."""
  tally = Tally(
    "SIGTERM, SIGINT or SIGHUP", "exit status 128 + signal, no step lost"
  )
  rng = random.Random(seed)

  def stop(number: int) -> str:
    workdir = folder / f"stop{number}"
    which = rng.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    process = _start(workdir, num_train_steps=10**6, delay=0.02)
    seen = steps_until(process, rng.randrange(1, 10))
    process.send_signal(which)
    process.stdout.close()
    code = end_of(process)
    assert code == 128 + which, f"{which.name}: status {code}"
    assert newest(workdir) >= seen, f"{newest(workdir)} saved, {seen} done"
    return which.name

  return repeat(tally, range(rounds), stop, slowest=60)
