"""Processes that end when the one that started them is gone.

A process that is killed cannot stop its children, and nothing else would.
"""

from collections.abc import Callable, Iterator
import contextlib
import functools
import multiprocessing
import os
import select
import signal
import threading
from typing import Any

_VARIABLE = "V2A_END_WITH"


@functools.cache
def end_with_parent() -> None:
  """Ends this process when its parent ends, if multiprocessing started it."""
  parent = multiprocessing.parent_process()
  if parent is not None:
    _follow(parent.join, lambda: os._exit(1))


@contextlib.contextmanager
def lifeline() -> Iterator[dict[str, Any]]:
  """Yields arguments of `Popen` for runs that are to stop with this process.

  They inherit one end of a pipe, whose other end is open in this process only,
  and so closed when it is gone. `stop_with_launcher` watches for that.
  """
  end, own = os.pipe()
  try:
    # The number alone might be another file of a process that only inherited
    # the environment, such as a job of a scheduler.
    name = f"{end}:{os.fstat(end).st_ino}"
    yield {"pass_fds": (end,), "env": os.environ | {_VARIABLE: name}}
  finally:
    os.close(end)
    os.close(own)


def stop_with_launcher() -> None:
  """Sends this process SIGTERM when the one that holds its lifeline ends."""
  end, _, inode = os.environ.get(_VARIABLE, "").partition(":")
  try:
    inherited = str(os.fstat(int(end)).st_ino) == inode
  except (ValueError, OSError):
    return
  if inherited:
    wait = lambda: select.select([int(end)], [], [])
    _follow(wait, lambda: os.kill(os.getpid(), signal.SIGTERM))


def _follow(wait: Callable[[], object], then: Callable[[], object]) -> None:
  def follow():
    wait()
    then()

  threading.Thread(target=follow, daemon=True).start()
