"""Long work, a few requests at a time, so that others are still answered."""

from collections.abc import Callable
from typing import Any, TypeVar

import anyio
from anyio import to_thread

_T = TypeVar("_T")


class QueueFullError(RuntimeError):
  """Too many requests wait already."""


class Turns:
  """Runs one kind of work in threads, a few at once; the others wait.

  A request that waits holds no thread, so there are threads for others.

  Args:
    what: what waits, for messages.
    at_once: how many go on at once.
    waiting: how many may wait.
  """

  def __init__(self, what: str, *, at_once: int, waiting: int):
    self._what, self._waiting = what, waiting
    self._limiter = anyio.CapacityLimiter(at_once)

  def check_room(self) -> None:
    """Refuses another request when too many wait.

    Raises:
      QueueFullError: too many wait.
    """
    if self._limiter.statistics().tasks_waiting >= self._waiting:
      raise QueueFullError(
        f"{self._waiting} {self._what} wait already; try again later"
      )

  async def __call__(self, work: Callable[..., _T], *args: Any) -> _T:
    """Waits for a free thread, and returns `work(*args)`.

    Raises:
      QueueFullError: too many wait.
    """
    self.check_room()
    return await to_thread.run_sync(work, *args, limiter=self._limiter)
