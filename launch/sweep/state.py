"""What has become of a job, read from the marks in its folder.

`running` holds host and process of its script while that runs, `exit_code` how
it ended, `cancelled` is there if it shall not be started again.
"""

from collections.abc import Mapping
import contextlib
import os
import pathlib
import socket
import time

from v2a_jax.basics import claim, files
from v2a_jax.basics.paths import PathLike, as_path, is_remote

NEW, QUEUED, RUNNING, RESUME = "NEW", "QUEUED", "RUNNING", "RESUME"
DONE, CANCELLED, LOST = "DONE", "CANCELLED", "LOST"
WONT_FIT = "WON'T FIT"
# Exit codes of SIGINT and SIGTERM: interrupted or preempted, after a save.
STOPPED = (130, 143)
# A lost host; killed from outside; aborted by a library, as collectives do.
START_AGAIN = (75, 137, 134, 139)


def state(folder: PathLike) -> str:
  """Returns NEW, RUNNING, DONE, RESUME, CANCELLED, or FAILED and why.

  RESUME is a run that was stopped or killed and has a checkpoint.
  """
  folder, code = as_path(folder), exit_code(folder)
  if code == 0:
    return DONE
  if code is None and (owner := owner_of(folder)):
    if is_alive(owner) or (not is_remote(folder) and claim.is_held(folder)):
      return RUNNING
  if text_of(folder / "cancelled") is not None:
    return CANCELLED
  again = code is None or code in (*STOPPED, *START_AGAIN)
  if again and checkpoints(folder):
    return RESUME
  if code is not None:
    return f"FAILED ({code})"
  return "FAILED (killed)" if owner else NEW


def exit_code(folder: PathLike) -> int | None:
  """Returns how the script of a job ended; None if it has not."""
  text = text_of(as_path(folder) / "exit_code")
  return int(text) if text and text.isdecimal() else None


def owner_of(folder: PathLike) -> tuple[str, int] | None:
  """Returns host and process of the script that runs, or was killed."""
  text = text_of(as_path(folder) / "running") or ""
  host, _, process = text.partition(" ")
  return (host, int(process)) if process.isdecimal() else None


def is_here(owner: tuple[str, int] | None) -> bool:
  """Says whether a script runs on this machine, rather than another."""
  return owner is not None and owner[0] == socket.gethostname()


def is_alive(owner: tuple[str, int]) -> bool:
  """Says whether a script still runs; of other hosts nobody here can know."""
  return not is_here(owner) or _is_running(owner[1])


def _is_running(process: int) -> bool:
  try:
    os.kill(process, 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    pass  # Somebody else's, and alive.
  stat = text_of(pathlib.Path(f"/proc/{process}/stat")) or ""
  return not stat.rpartition(")")[2].startswith(" Z")


def checkpoints(workdir: PathLike) -> dict[int, float]:
  """Returns the age in seconds of each finished checkpoint, by step.

  On an object store, where a folder has no age, it is that of its digests.
  """
  folder = as_path(workdir) / "checkpoints"
  if is_remote(folder):
    # Here, because it imports what local folders do not need.
    from v2a_jax.training.digests import DIGESTS, list_steps

    return {
      step: time.time() - (folder / str(step) / DIGESTS).modified()
      for step in list_steps(folder)
    }
  ages = {}
  for path in folder.glob("[0-9]*"):
    # A run may remove a checkpoint meanwhile.
    with contextlib.suppress(FileNotFoundError):
      if path.name.isdigit():
        ages[int(path.name)] = time.time() - path.stat().st_mtime
  return ages


def newest(workdir: PathLike) -> int:
  """Returns the step of the newest checkpoint; -1 if there is none."""
  return max(checkpoints(workdir), default=-1)


def text_of(file: PathLike) -> str | None:
  """Returns the text of a file without white space; None if it is not there."""
  try:
    return files.read_bytes(file).decode().strip()
  except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
    return None


def why_not(cost: Mapping) -> str:
  """Says what a run that does not fit lacks, and what needs less."""
  if cost.get("memory"):
    text = (
      f"needs {cost['memory'] / 1e9:.1f} GB of {cost['capacity'] / 1e9:.1f} GB"
      " a chip"
    )
  else:
    text = f"needs more than {cost['capacity'] / 1e9:.1f} GB a chip"
  return f"{text}; less is needed with {' or '.join(cost['remedies'])}"
