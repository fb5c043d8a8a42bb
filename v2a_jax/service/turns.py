"""Turns of work that takes long, so that a crowd does not stop the rest."""

from collections.abc import Callable
from typing import Any, TypeVar

import anyio
from anyio import to_thread

_T = TypeVar("_T")


class QueueFullError(RuntimeError):
  """As many wait as may."""


class Turns:
  """Threads for one kind of work, of which few go on at once.

  Who waits for a turn has no thread, so other requests find theirs.

  Args:
    what: what waits, for messages.
    at_once: how many go on at once.
    waiting: how many may wait.
  """

  def __init__(self, what: str, *, at_once: int, waiting: int):
    self._what, self._waiting = what, waiting
    self._limiter = anyio.CapacityLimiter(at_once)

  def check_room(self) -> None:
    """Refuses another when too many wait.

    Raises:
      QueueFullError: as many wait as may.
    """
    if self._limiter.statistics().tasks_waiting >= self._waiting:
      raise QueueFullError(
        f"{self._waiting} {self._what} wait already; try again later"
      )

  async def __call__(self, work: Callable[..., _T], *args: Any) -> _T:
    """Returns `work(*args)`, which is done when it is its turn.

    Raises:
      QueueFullError: as many wait as may.
    """
    self.check_room()
    return await to_thread.run_sync(work, *args, limiter=self._limiter)
