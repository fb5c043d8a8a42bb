"""Processes that tests start, and what has become of them."""

import os
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]
# Of a child that imports what this process can.
ENVIRONMENT = os.environ | {
  "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])
}


def is_running(pid: int) -> bool:
  """Says whether a process is there and not a zombie."""
  try:
    return pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
  except (FileNotFoundError, ProcessLookupError):
    return False


def all_end(pids: list[int], *, seconds: float = 5.0) -> bool:
  """Waits for processes to end; False if one is still there after that."""
  deadline = time.monotonic() + seconds
  while any(map(is_running, pids)):
    if time.monotonic() > deadline:
      return False
    time.sleep(0.05)
  return True


def descendants(pid: int) -> set[int]:
  """Returns the processes that a process has started, and they in turn."""
  parents = {}
  for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
    try:
      fields = path.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
      continue  # It has ended meanwhile.
    parents[int(path.parent.name)] = int(fields[1])
  found, last = {pid}, set()
  while found != last:
    last = found
    found = found | {own for own, parent in parents.items() if parent in found}
  return found - {pid}
