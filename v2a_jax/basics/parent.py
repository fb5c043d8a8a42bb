"""Processes that end when the one that started them is gone.

A process that is killed cannot stop its children, and nothing else would.
"""

from collections.abc import Callable
import functools
import multiprocessing
import os
import select
import signal
import threading

# The launcher of a sweep puts its process id here, for the runs that it starts.
VARIABLE = "V2A_END_WITH"


@functools.cache
def end_with_parent() -> None:
  """Ends this process when its parent ends, if multiprocessing started it."""
  parent = multiprocessing.parent_process()
  if parent is not None:
    _follow(parent.join, lambda: os._exit(1))


def stop_with_launcher() -> None:
  """Sends this process SIGTERM when the one in $V2A_END_WITH ends.

  Where the system cannot watch a process that is not a child (it is Linux from
  5.3 on that can), nothing is done.
  """
  process = os.environ.get(VARIABLE, "")
  if not process.isdigit() or not hasattr(os, "pidfd_open"):
    return
  stop = lambda: os.kill(os.getpid(), signal.SIGTERM)
  try:
    handle = os.pidfd_open(int(process))
  except ProcessLookupError:
    stop()
    return
  except OSError:
    return
  _follow(lambda: select.select([handle], [], []), stop)


def _follow(wait: Callable[[], object], then: Callable[[], object]) -> None:
  def follow():
    wait()
    then()

  threading.Thread(target=follow, daemon=True).start()
