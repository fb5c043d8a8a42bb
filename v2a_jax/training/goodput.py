"""Where the wall-clock time of a run went, all its starts together.

Time in steps is good; steps that were done before, and lost because no
checkpoint of them was saved, count as `again`. Process 0 keeps the account in
`<workdir>/goodput.json`, which is written with each heartbeat, so that a run
that is killed loses a few seconds of it.
"""

from collections.abc import Iterator
import contextlib
import pathlib
import time
from typing import Any

from v2a_jax.basics.files import read_json, write_json
from v2a_jax.basics.text import clock, shares

PHASES = ("step", "again", "data", "compile", "init", "eval", "checkpoint")


class Goodput:
  """Wall-clock seconds by phase, since it was made and over earlier starts.

  Attributes:
    now: phase that the run is in.
    seconds: seconds by phase of this start.
    waited: seconds of them in which the host waited for its devices.
    furthest: largest number of steps that any start has come to.
    steps_again: number of steps that were done more than once.
  """

  def __init__(self, workdir: pathlib.Path):
    """Begins to count, from where the last start in the workdir stopped."""
    self._path = workdir / "goodput.json"
    self._start = self._since = time.perf_counter()
    self.seconds: dict[str, float] = {}
    self.now, self.waited = "init", 0.0
    self._seen, self._rates = (0, 0.0, 0.0, 0.0), {}
    try:
      before = read_json(self._path)
    except (FileNotFoundError, ValueError):
      before = {}
    self._before: dict[str, float] = before.get("seconds", {})
    self._total_before = before.get("total_seconds", 0.0)
    self.starts = before.get("starts", 0) + 1
    self.furthest = self._done_before = before.get("furthest", 0)
    self.steps_again = before.get("steps_again", 0)

  @contextlib.contextmanager
  def phase(self, name: str) -> Iterator[None]:
    """Adds the time inside the `with` block to a phase; do not nest."""
    start = self._since = time.perf_counter()
    self.now = name
    try:
      yield
    finally:
      self.now, self._since = "other", time.perf_counter()
      spent = self._since - start
      self.seconds[name] = self.seconds.get(name, 0.0) + spent

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """Counts the time inside the `with` block as spent waiting for devices."""
    start = time.perf_counter()
    try:
      yield
    finally:
      self.waited += time.perf_counter() - start

  def work(self, step: int) -> str:
    """Returns the phase in which `step`, from 0, is done."""
    return "again" if step < self._done_before else "step"

  def done(self, step: int) -> None:
    """Notes that so many steps are done."""
    if step <= self._done_before:
      self.steps_again += 1
    self.furthest = max(self.furthest, step)

  def go_back(self) -> None:
    """Notes that steps which are done will be done again."""
    self._done_before = self.furthest

  def total(self) -> float:
    """Returns the seconds since this start."""
    return time.perf_counter() - self._start

  def heartbeat(self, step: int) -> dict[str, Any]:
    """Describes the moment: step, phase, and seconds a step since last asked.

    Of `step_time`, `data_time` passes before the next batch is there and
    `device_time` before the devices are done.
    """
    data = self.seconds.get("data", 0.0)
    work = self.seconds.get("step", 0.0) + self.seconds.get("again", 0.0)
    now = (step, data + work, data, self.waited)
    steps, *seconds = (b - a for a, b in zip(self._seen, now))
    if steps > 0:
      names = ("step_time", "data_time", "device_time")
      self._rates = {k: s / steps for k, s in zip(names, seconds)}
      self._seen = now
    return {
      "step": step,
      "phase": self.now,
      "phase_seconds": time.perf_counter() - self._since,
      **self._rates,
    }

  def account(self) -> dict[str, Any]:
    """Returns what is kept on disk: all starts together."""
    seconds = {
      name: self._before.get(name, 0.0) + self.seconds.get(name, 0.0)
      for name in PHASES
    }
    return {
      "starts": self.starts,
      "furthest": self.furthest,
      "steps_again": self.steps_again,
      "total_seconds": self._total_before + self.total(),
      "seconds": seconds,
    }

  def save(self) -> None:
    """Writes the account, if there is room; process 0 does this."""
    with contextlib.suppress(OSError):
      write_json(self._path, self.account())

  def metrics(self) -> dict[str, float]:
    """Returns the account as scalars by name."""
    account = self.account()
    total = max(account["total_seconds"], 1e-9)
    seconds = {k: v for k, v in account["seconds"].items() if v}
    return {
      **{f"goodput/{name}_seconds": s for name, s in seconds.items()},
      "goodput/total_seconds": total,
      "goodput/step_fraction": seconds.get("step", 0.0) / total,
      "goodput/starts": account["starts"],
      "goodput/steps_again": account["steps_again"],
    }

  def summary(self) -> str:
    """Returns one line: `1:02:03 in 2 starts: step 91.2 %, data …`."""
    account = self.account()
    total, starts = max(account["total_seconds"], 1e-9), account["starts"]
    line = (
      f"{clock(total)} in {starts} start{'s' * (starts > 1)}:"
      f" {shares(account['seconds'], total)}"
    )
    if account["steps_again"]:
      line += f"; {account['steps_again']} steps were done again"
    return line
