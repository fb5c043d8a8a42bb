"""Stopping in time: signals become a save and an exit code.

A scheduler sends SIGTERM some seconds before it takes the machine, Ctrl-C is
SIGINT, and a terminal that is closed sends SIGHUP. All processes must stop after the same step: with several, JAX's coordination
service, which catches the signal itself, agrees on one.
"""

import os
import signal
import threading

import jax
from jax.experimental import multihost_utils


class Preempted(SystemExit):
  """Training stopped on a signal, after saving; the exit code is 128 + it."""


class PreemptionGuard:
  """Notices the signals; `with PreemptionGuard() as guard`."""

  def __init__(self):
    self._signal: int | None = None
    self._old = {}

  def __enter__(self) -> "PreemptionGuard":
    if threading.current_thread() is not threading.main_thread():
      return self
    numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    notice = self._notice
    if jax.process_count() > 1:
      # The service owns SIGTERM; other signals are passed on to it.
      numbers.remove(signal.SIGTERM)
      notice = self._forward
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # As nohup does.
      numbers.remove(signal.SIGHUP)
    handlers = dict.fromkeys(numbers, notice)
    self._old = {n: signal.signal(n, f) for n, f in handlers.items()}
    return self

  def __exit__(self, *_) -> None:
    for number, handler in self._old.items():
      signal.signal(number, handler)

  def exit_code(self, step: int) -> int | None:
    """Returns the exit code if all are to stop after `step`, else None.

    Every process calls it after every step.
    """
    if jax.process_count() > 1:
      if multihost_utils.reached_preemption_sync_point(step):
        return 128 + (self._signal or signal.SIGTERM)
      return None
    return 128 + self._signal if self._signal else None

  def _notice(self, number, _) -> None:
    self._signal = number
    # A second signal does what it does without us.
    signal.signal(number, self._old[number])

  def _forward(self, number, _) -> None:
    self._signal = number
    os.kill(os.getpid(), signal.SIGTERM)
