"""One console for several processes.

Process 0 prints. What the others print on standard error begins with their
host's name. Libraries in C++ write to file descriptor 2 directly, and at length
when a process is lost; `native_output_to` sends that to a file.
"""

from collections.abc import Iterator
import contextlib
import io
import os
import pathlib
import platform
import sys
from typing import TextIO

from v2a_jax.basics import files


def separate(process: int) -> None:
  """Gives `sys.stderr` a descriptor of its own, and lines a name.

  Args:
    process: index of this process; lines of process 0 stay as they are.
  """
  stream = os.fdopen(os.dup(2), "w", buffering=1)
  name = f"[{platform.node()}, process {process}] " if process else ""
  sys.stderr = _Named(stream, name)


@contextlib.contextmanager
def native_output_to(path: pathlib.Path) -> Iterator[None]:
  """Appends to a file what is written to file descriptor 2."""
  before, file = os.dup(2), files.open_regular(path, files.APPEND)
  os.dup2(file, 2)
  os.close(file)
  try:
    yield
  finally:
    os.dup2(before, 2)
    os.close(before)


class _Named(io.TextIOBase):
  """A stream each of whose lines begins with a name."""

  def __init__(self, stream: TextIO, name: str):
    self._stream, self._name, self._begins = stream, name, True

  def write(self, text: str) -> int:
    for line in text.splitlines(keepends=True):
      self._stream.write((self._name if self._begins else "") + line)
      self._begins = line.endswith("\n")
    return len(text)

  def flush(self) -> None:
    self._stream.flush()

  def fileno(self) -> int:
    return self._stream.fileno()

  def isatty(self) -> bool:
    return self._stream.isatty()
