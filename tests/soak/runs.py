"""Training runs that are killed, cut off from their reader, out of room.

Each round is a process of its own, which trains the toy experiment of
tests/training with all that a run writes: wandb's files, by a process that it
starts, and TensorBoard's too.
"""

import json
import os
import pathlib
import random
import re
import resource
import signal
import threading
import time

from tests.processes import all_end, descendants
from tests.soak.rounds import Tally, repeat
from tests.training import event_rows, toy_process
from v2a_jax.training import digests

EVERY = 50  # Steps between checkpoints, in which one is saved by far.
# Seconds in which a run ends, whatever has happened to it.
PATIENCE = 30.0
# What a run writes, and for how many steps it must fail to be written once: two
# saves, or the 5 s between heartbeats.
FILES = {
  "metrics.jsonl": 10,
  "hosts/0.json": 40,
  "hosts/0.log": 10,
  "goodput.json": 40,
  "tensorboard": 10,
  "checkpoints": 10,
}


class Run:
  """A run in a process of its own; a context manager that ends it.

  Attributes:
    process: the process.
    seen: number of steps that it has reported.
    output: what it has printed.
  """

  def __init__(self, workdir: pathlib.Path, **settings):
    settings = dict(wandb_mode="offline", tensorboard=True) | settings
    self.workdir, self.seen, self.output = workdir, 0, ""
    self.process = toy_process.start(workdir, devices=2, mesh={}, **settings)
    self._children: set[int] = set()

  def __enter__(self) -> "Run":
    return self

  def __exit__(self, *_):
    self.process.kill()
    self.process.wait()

  def until(self, step: int) -> None:
    """Reads what it prints until so many steps are done."""
    while self.seen < step:
      line = self.process.stdout.readline()
      assert line, f"ended early: {self.output[-500:]}"
      self._take(line)
    self._children |= descendants(self.process.pid)

  def during(self, seconds: float) -> None:
    """Reads what it prints for a while."""
    deadline = time.monotonic() + seconds
    os.set_blocking(self.process.stdout.fileno(), False)
    while time.monotonic() < deadline:
      for line in self.process.stdout:
        self._take(line)
      time.sleep(0.01)
    os.set_blocking(self.process.stdout.fileno(), True)

  def end(self) -> int:
    """Waits for its end, and returns its exit status.

    Raises:
      AssertionError: it goes on for 30 s, or what it started for 5 s more, or it
        has printed or logged a traceback.
    """
    watch = threading.Timer(PATIENCE, self.process.kill)
    start = time.monotonic()
    watch.start()
    if not self.process.stdout.closed:
      for line in self.process.stdout:
        self._take(line)
    self.process.wait()
    watch.cancel()
    assert time.monotonic() - start < PATIENCE, "still there after 30 s"
    assert self._children, "wandb's process was not found"
    assert all_end(list(self._children)), "a process of it lives on"
    text = self.output + (self.workdir / "hosts" / "0.log").read_text()
    assert "Traceback" not in text, text[-2000:]
    return self.process.returncode

  def _take(self, line: str) -> None:
    self.output += line
    if match := re.match(r"step (\d+)/", line):
      self.seen = int(match[1])


def newest(workdir: pathlib.Path) -> int:
  """Returns the newest checkpoint, which must be sound; 0 for none."""
  root = workdir / "checkpoints"
  step = max(digests.list_steps(root), default=0)
  if step:
    assert digests.find_damage(root / str(step)) is None, f"{root}/{step} torn"
  return step


def kills(folder: pathlib.Path, rounds: int, *, seed: int = 0) -> Tally:
  """Kills a run at random moments, most of them around a save.

  What is lost is told by the run's own log: the steps since the newest save that
  it had begun, which are fewer than an interval; and if that save was still
  being written, the interval before it.
  """
  tally = Tally(
    f"SIGKILL of a run that saves every {EVERY} steps",
    "newest checkpoint sound; lost are the steps since, at most one interval;"
    " and those done while one was being written, if it was",
  )
  rng, workdir = random.Random(seed), folder / "kills"
  log = workdir / "hosts" / "0.log"

  def kill(number: int) -> str:
    before, told = newest(workdir), log.stat().st_size if number else 0
    settings = dict(checkpoint_every=EVERY, delay=0.04, hidden=20_000)
    with Run(workdir, num_train_steps=10**6, **settings) as run:
      after = rng.choice((0, 0, 1, 2, 4, 8, 16, -rng.randrange(1, EVERY)))
      run.until(before + EVERY + after)
      run.during(rng.uniform(0, 0.5))
      run.process.kill()
      run.end()
    saved, text = newest(workdir), log.read_text()[told:]
    begun = [int(s) for s in re.findall(r"saving step (\d+)", text)]
    latest, previous = [before, before, *begun][-1], [before, *begun][-2:][0]
    assert saved in (latest, previous), f"{saved} saved, {begun} begun"
    since = run.seen - latest
    assert since <= EVERY, f"{run.seen} done, {begun} begun"
    lost = run.seen - saved
    if saved == latest:
      assert lost <= EVERY, f"{lost} steps lost after {run.seen}"
      return "times at most an interval lost"
    assert lost <= EVERY + since, f"{lost} steps lost after {run.seen}"
    return f"times an interval and {since} steps of the save under way"

  return repeat(tally, range(rounds), kill, slowest=300)


def readers_gone(folder: pathlib.Path, rounds: int, *, seed: int = 0) -> Tally:
  """Closes the pipe that the progress line goes to."""
  tally = Tally("reader of the progress line gone", "run ends well, all saved")
  rng = random.Random(seed)

  def leave(number: int) -> str:
    workdir = folder / f"pipe{number}"
    with Run(workdir, num_train_steps=12, delay=0.02) as run:
      run.until(rng.randrange(1, 10))
      run.process.stdout.close()
      assert run.end() == 0, "did not end with 0"
    assert newest(workdir) == 12, f"{newest(workdir)} of 12 steps saved"
    return "all 12 steps saved"

  return repeat(tally, range(rounds), leave, slowest=300)


def full_disks(folder: pathlib.Path, rounds: int, *, seed: int = 0) -> Tally:
  """Lets no file of a run grow until one of them has failed to, each in turn."""
  tally = Tally(
    f"no file may grow, until {', '.join(FILES)} has failed to, one a round",
    "run ends well, all rows written, these files whole, last step saved",
  )
  rng, names = random.Random(seed), list(FILES)
  steps = 60

  def fill(number: int) -> str:
    workdir, name = folder / f"full{number}", names[number % len(names)]
    settings = dict(num_train_steps=steps, checkpoint_every=5)
    with Run(workdir, delay=0.15, **settings) as run:
      run.until(rng.randrange(2, 10))
      _, most = resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE)
      limit = (rng.choice((0, 64)), most)
      resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, limit)
      run.during(0.1)
      before = _state(workdir / name)
      run.until(run.seen + FILES[name])
      after = _state(workdir / name)
      resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (most, most))
      code = run.end()
    assert code == 0, run.output[-500:]
    failed = run.output.count("could not be saved")
    if name == "checkpoints":
      assert failed, "no save has failed"
    else:
      assert before == after, f"{name} has been written: {before}, {after}"
    _check_whole(workdir, steps)
    return name

  return repeat(tally, range(rounds), fill, slowest=300)


def _state(path: pathlib.Path) -> list[tuple[str, int]]:
  """Returns the files of a path, with their sizes and times."""
  files = [path, *path.rglob("*")]
  stats = {file: file.stat() for file in files if file.is_file()}
  return sorted((str(f), s.st_size, s.st_mtime_ns) for f, s in stats.items())


def _check_whole(workdir: pathlib.Path, steps: int) -> None:
  """Checks that what a run writes is there to its last step."""
  assert newest(workdir) == steps, f"{newest(workdir)} of {steps} steps saved"
  rows = (workdir / "metrics.jsonl").read_text().splitlines()
  found = [json.loads(row)["step"] for row in rows]
  assert found == list(range(1, steps + 1)), f"rows of steps {found}"
  points = event_rows.scalars(workdir, "train/loss")
  assert [step for step, _ in points] == found, f"TensorBoard has {points}"
  beat = json.loads((workdir / "hosts" / "0.json").read_text())
  account = json.loads((workdir / "goodput.json").read_text())
  assert beat["step"] == account["furthest"] == steps, (beat, account)
  log = (workdir / "hosts" / "0.log").read_text()
  saves = [int(step) for step in re.findall(r"saving step (\d+)", log)]
  assert saves == list(range(5, steps + 1, 5)), f"saves in the log: {saves}"
  assert log.rstrip().endswith(f"done: step {steps} is saved"), log[-500:]


def stops(folder: pathlib.Path, rounds: int, *, seed: int = 0) -> Tally:
  """Sends the signals that ask a run to stop."""
  tally = Tally(
    "SIGTERM, SIGINT or SIGHUP", "exit status 128 + signal, no step lost"
  )
  rng = random.Random(seed)

  def stop(number: int) -> str:
    workdir = folder / f"stop{number}"
    which = rng.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    with Run(workdir, num_train_steps=10**6, delay=0.02) as run:
      run.until(rng.randrange(1, 10))
      run.process.send_signal(which)
      run.process.stdout.close()
      code = run.end()
    assert code == 128 + which, f"{which.name}: status {code}"
    assert newest(workdir) >= run.seen, (
      f"{newest(workdir)} saved, {run.seen} done"
    )
    return which.name

  return repeat(tally, range(rounds), stop, slowest=300)
