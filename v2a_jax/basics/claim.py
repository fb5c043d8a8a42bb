"""One writer a folder: a lock on this machine, a claim on an object store.

The lock of a local folder is `flock` on `<folder>/lock`. It ends with its
process, in whatever way that ends.

Stores have no locks. There a process creates `<folder>/claim.json`, which the
store grants to one process only, and renews it. Who finds a claim watches it:
if it is not renewed for a while, its owner is gone, and the claim is taken
over. No clocks are compared. The claim of a process of this machine that does
not run any more is taken over at once.
"""

from collections.abc import Iterator
import contextlib
import datetime
import fcntl
import json
import logging
import os
import pathlib
import platform
import sys
import threading
import time
from typing import Any
import uuid

from v2a_jax.basics.files import open_regular
from v2a_jax.basics.paths import PathLike, as_path, is_remote
from v2a_jax.basics.trouble import Trouble

LOCK, CLAIM = "lock", "claim.json"
_RENEWALS = 4  # during a lease
_log = logging.getLogger(__name__)


class ClaimedError(ValueError):
  """Another process writes to the folder; one line: which, what to do."""


@contextlib.contextmanager
def held(folder: PathLike, *, lease_seconds: float = 40.0) -> Iterator[None]:
  """Keeps other processes from writing to a folder.

  Args:
    folder: local folder, made if needed, or URL.
    lease_seconds: time without renewal after which a claim is taken over.

  Raises:
    ClaimedError: another process has it.
    OSError: the folder cannot be written, such as a bucket without permission.
  """
  folder = as_path(folder)
  hold = _claimed(folder, lease_seconds) if is_remote(folder) else _lock(folder)
  with hold:
    yield


def is_held(folder: PathLike) -> bool:
  """Says whether a process writes to a folder.

  On a store it is one that has not given its claim back, which may have ended.
  """
  folder = as_path(folder)
  if is_remote(folder):
    return bool(_read(folder / CLAIM))
  try:
    with open(open_regular(folder / LOCK)) as file:
      fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
  except FileNotFoundError:
    return False
  except BlockingIOError:
    return True
  return False


@contextlib.contextmanager
def _lock(folder: pathlib.Path) -> Iterator[None]:
  folder.mkdir(parents=True, exist_ok=True)
  flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
  with open(open_regular(folder / LOCK, flags), "a+") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      raise _refusal(folder, _parse(file.read())) from None
    file.truncate(0)
    file.write(json.dumps(_owner()))
    file.flush()
    yield


@contextlib.contextmanager
def _claimed(folder, lease_seconds: float) -> Iterator[None]:
  folder.check_writable()
  file, owner = folder / CLAIM, _owner()
  _take(file, owner, lease_seconds)
  done = threading.Event()
  renewal = threading.Thread(
    target=_renew, args=(file, owner, lease_seconds, done), daemon=True
  )
  renewal.start()
  try:
    yield
  finally:
    done.set()
    renewal.join()
    with contextlib.suppress(OSError):  # It will be seen to be abandoned.
      if _read(file).get("id") == owner["id"]:
        file.unlink(missing_ok=True)


def _take(file, owner: dict[str, Any], lease_seconds: float) -> None:
  """Creates the claim, or takes over one that is not renewed."""
  if file.create(json.dumps(owner).encode()):
    return
  before, until = _read(file), time.monotonic() + lease_seconds
  if not _has_ended(before):
    _log.warning(
      "%s was claimed by %s; waiting %.0f s for a sign of it",
      *(file.parent, _name(before), lease_seconds),
    )
    while time.monotonic() < until:
      time.sleep(lease_seconds / _RENEWALS)
      if _read(file) not in (before, {}):
        raise _refusal(file.parent, _read(file))
  file.unlink(missing_ok=True)
  if not file.create(json.dumps(owner).encode()):
    raise _refusal(file.parent, _read(file))


def _renew(file, owner, lease_seconds: float, done: threading.Event) -> None:
  """Renews the claim until `done`; ends the process if it was taken over."""
  count, trouble = 0, Trouble(_log)
  while not done.wait(lease_seconds / _RENEWALS):
    try:
      now = _read(file)
      if now and now.get("id") != owner["id"]:
        text = f"{_refusal(file.parent, now)}; this process ends"
        print(text, file=sys.stderr, flush=True)
        os._exit(75)  # Anything that it saved now would be written over.
      count += 1
      file.write_bytes(json.dumps(owner | {"renewed": count}).encode())
      trouble.over()
    except OSError as error:
      trouble.met("the claim %s could not be renewed: %s", file, error)


def _owner() -> dict[str, Any]:
  now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
  return {
    "id": uuid.uuid4().hex,
    "host": platform.node(),
    "boot": _boot(),
    "process": os.getpid(),
    "since": now,
  }


def _boot() -> str:
  """Returns what tells machines of one name apart; "" where unknown."""
  try:
    return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
  except OSError:
    return ""


def _has_ended(owner: dict[str, Any]) -> bool:
  """Says whether an owner was a process of this machine that is gone."""
  here = (platform.node(), _boot())
  if (owner.get("host"), owner.get("boot")) != here:
    return False
  process = owner.get("process")
  if process == os.getpid():  # In a container each run may have number 1.
    return True
  try:
    os.kill(process, 0)
  except ProcessLookupError:
    return True
  except (OSError, TypeError):
    pass
  return False


def _read(file) -> dict[str, Any]:
  try:
    return _parse(file.read_text())
  except FileNotFoundError:
    return {}


def _parse(text: str) -> dict[str, Any]:
  try:
    value = json.loads(text)
  except ValueError:
    value = None
  return value if isinstance(value, dict) else {}


def _name(owner: dict[str, Any]) -> str:
  process, host = owner.get("process", "?"), owner.get("host", "?")
  return f"process {process} on {host} (since {owner.get('since', '?')})"


def _refusal(folder, owner: dict[str, Any]) -> ClaimedError:
  return ClaimedError(
    f"{folder} is being written by {_name(owner)}; stop it, or give another"
    " folder"
  )
