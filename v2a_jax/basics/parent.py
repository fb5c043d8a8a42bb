"""Processes that end when the one that started them is gone.

A process that is killed cannot stop its children, and nothing else would.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import functools
import multiprocessing
import os
import select
import signal
import subprocess
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
  and so closed when it is gone. `stop_with_launcher`, which they call, watches
  for that. Programs that do not call it are run by `session`.
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


@functools.cache
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


@contextlib.contextmanager
def session(
  command: Sequence[str], **options: Any
) -> Iterator[subprocess.Popen]:
  """Runs a program that is killed at the end, with all that it has started.

  That is the end of the `with` block or, however it comes, of this process.

  Args:
    command: program and arguments.
    **options: further arguments of `Popen`.

  Raises:
    OSError: it cannot be started.
  """
  # It is there before the program, whose group it leads: none can be made
  # that it does not kill. This process holds the other end of its input.
  watch = subprocess.Popen(
    ["/bin/sh", "-c", "read _; kill -s KILL 0"],
    stdin=subprocess.PIPE,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
    process_group=0,
  )
  with contextlib.ExitStack() as stack:
    stack.callback(watch.communicate)
    process = subprocess.Popen(command, process_group=watch.pid, **options)
    stack.callback(process.wait)
    stack.callback(os.killpg, watch.pid, signal.SIGKILL)
    yield process


def run(
  command: Sequence[str], **options: Any
) -> "subprocess.CompletedProcess[str]":
  """Runs a program to its end, or to that of this process; see `session`.

  Args:
    command: program and arguments.
    **options: further arguments of `Popen`.

  Returns:
    Its status and what it wrote to standard error; its output is dropped.

  Raises:
    OSError: it cannot be started.
  """
  options |= dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
  options |= dict(stderr=subprocess.PIPE, text=True)
  with session(command, **options) as process:
    _, said = process.communicate()
  return subprocess.CompletedProcess(command, process.returncode, stderr=said)


def _follow(wait: Callable[[], object], then: Callable[[], object]) -> None:
  def follow():
    wait()
    then()

  threading.Thread(target=follow, daemon=True).start()
