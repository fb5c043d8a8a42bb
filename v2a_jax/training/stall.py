"""The end of a run that makes no progress, as one whose loader hangs."""

from collections.abc import Mapping
import signal
import threading
import time
from typing import Any

from v2a_jax.parallel import distributed

# Compiling and saving take as long as they take, and have limits of their own.
_PHASES = ("data", "step", "again", "eval")
# The main thread has so long to save and to leave.
_SECONDS_TO_SAVE = 120.0


class StalledError(Exception):
  """Nothing has moved for too long; the same command may well go on."""


class StallGuard:
  """Interrupts the main thread when the run stands still.

  `with StallGuard(seconds) as guard`, and another thread calls `guard.check`.
  One process of several ends them all, since the others wait for it.
  """

  def __init__(self, seconds: float):
    """Makes a guard; `seconds` without progress are too many, 0 for never."""
    self._limit = seconds
    self._line, self._since, self._old = "", 0.0, None

  def __enter__(self) -> "StallGuard":
    if threading.current_thread() is threading.main_thread():
      self._old = signal.signal(signal.SIGUSR1, self._interrupt)
    return self

  def __exit__(self, *_) -> None:
    if self._old is not None:
      signal.signal(signal.SIGUSR1, self._old)
      self._old = None

  def check(self, facts: Mapping[str, Any]) -> None:
    """Looks whether the phase of a heartbeat lasts too long."""
    if self._line:
      if time.monotonic() - self._since > _SECONDS_TO_SAVE:
        distributed.end_to_try_again(self._line)
      return
    phase, seconds = facts["phase"], facts["phase_seconds"]
    if not self._limit or phase not in _PHASES or self._old is None:
      return
    # Others wait in their step for one that waits for data: that one goes first.
    if seconds < self._limit * (1.0 if phase == "data" else 1.5):
      return
    self._since = time.monotonic()
    self._line = (
      f"no progress for {seconds:.0f} s after step {facts['step']}, in phase"
      f" {phase!r} (config.stall_seconds={self._limit:g}): ended with"
      " status 75, so that the same command can go on"
    )
    if distributed.is_one_of_several():
      distributed.end_to_try_again(self._line)
    signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

  def _interrupt(self, *_) -> None:
    if self._line:
      raise StalledError(self._line)
