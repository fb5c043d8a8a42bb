"""What each process leaves on disk, and which of them is slow.

`<workdir>/hosts/<process>.log` has its log lines; with several processes also
what libraries in C++ print. `<workdir>/hosts/<process>.json`, its heartbeat, is
written whole every few seconds: host, pid, step, phase, and seconds a step.
For a workdir on an object store both are written less often; the log is kept in
the cache and uploaded whole.
"""

from collections.abc import Callable, Mapping
import contextlib
import logging
import os
import pathlib
import platform
import sys
import threading
import time
from typing import Any, TextIO

import jax

from v2a_jax.basics import cache, files
from v2a_jax.basics.paths import is_remote
from v2a_jax.basics.trouble import Trouble
from v2a_jax.parallel import console, distributed
from v2a_jax.training.slowness import slow_hosts

HEARTBEAT_SECONDS = 5.0
# On an object store each one costs requests.
_UPLOAD_SECONDS = 30.0
# The same hosts are named again after so many seconds.
_NAME_EVERY = 600.0

_log = logging.getLogger(__name__)


class _LogFile(logging.FileHandler):
  """A log file whose lines wait in its buffer while the disk is full."""

  def _open(self) -> TextIO:
    return open(files.open_regular(self.baseFilename, files.APPEND), "a")

  def handleError(self, record: logging.LogRecord) -> None:
    if not isinstance(sys.exc_info()[1], OSError):
      super().handleError(record)

  def close(self) -> None:
    with contextlib.suppress(OSError):
      super().close()


@contextlib.contextmanager
def log_file(workdir: pathlib.Path):
  """Appends this process's log lines to its file inside the `with` block.

  Meanwhile the console shows warnings of process 0 and errors of the others, as
  plain lines.
  """
  path, root = _local_log(workdir), logging.root
  file = _LogFile(path)
  file.setFormatter(
    logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
  )
  shown = logging.StreamHandler()
  main = distributed.is_main_process()
  shown.setLevel(logging.WARNING if main else logging.ERROR)
  # A library may have called logging.basicConfig.
  others = [h for h in root.handlers if type(h) is logging.StreamHandler]
  before, ours = root.handlers[:], logging.getLogger("v2a_jax")
  level = ours.level
  root.handlers = [h for h in before if h not in others] + [file, shown]
  ours.setLevel(logging.INFO)
  try:
    with contextlib.ExitStack() as stack:
      if distributed.is_one_of_several():
        stack.enter_context(console.native_output_to(path))
      yield
  finally:
    ours.setLevel(level)
    root.handlers = before
    file.close()
    _upload_log(workdir)


class Heartbeat:
  """Reports in the background what this process is doing."""

  def __init__(
    self,
    workdir: pathlib.Path,
    describe: Callable[[], Mapping[str, Any]],
    *,
    interval: float | None = None,
  ):
    """Starts to report.

    Args:
      workdir: the run's folder.
      describe: returns `step`, `phase` and whatever else is known; called by
        another thread.
      interval: seconds between heartbeats; by default 5, or 30 for a workdir on
        an object store.
    """
    self._path, self._describe = _place(workdir, "json"), describe
    usual = _UPLOAD_SECONDS if is_remote(workdir) else HEARTBEAT_SECONDS
    self._interval, self._closed = interval or usual, threading.Event()
    self._workdir = workdir
    self._named, self._named_at = frozenset(), 0.0
    self._last: dict[str, Any] = {}
    self._trouble = Trouble(_log)
    self._beat()
    self._thread = threading.Thread(target=self._keep_beating, daemon=True)
    self._thread.start()

  def close(self) -> None:
    """Reports for the last time."""
    self._closed.set()
    self._thread.join()
    self._beat()

  def _keep_beating(self) -> None:
    while not self._closed.wait(self._interval):
      self._beat()
      if distributed.is_main_process():
        self._name_slow_hosts()

  def _beat(self) -> None:
    facts = dict(self._describe())
    distributed.report(facts)
    self._last = {
      "host": platform.node(),
      "pid": os.getpid(),
      "time": time.time(),
      **facts,
    }
    try:
      files.write_json(self._path, self._last)
      self._trouble.over()
    except OSError as error:  # A full disk does not end the run.
      self._trouble.met("no heartbeat in %s: %s", self._path, error)
    _upload_log(self._workdir)

  def _name_slow_hosts(self) -> None:
    """Logs which hosts hold the others up, when they change or now and then."""
    slow = slow_hosts(distributed.heartbeats() or {0: self._last})
    names, now = frozenset(slow), time.monotonic()
    if names and (names != self._named or now - self._named_at > _NAME_EVERY):
      _log.warning("%s", "; ".join(slow.values()))
      self._named_at = now
    self._named = names


def _place(workdir: pathlib.Path, suffix: str) -> pathlib.Path:
  """Returns this process's file, whose folder exists."""
  folder = workdir / "hosts"
  folder.mkdir(parents=True, exist_ok=True)
  return folder / f"{jax.process_index()}.{suffix}"


def _local_log(workdir: pathlib.Path) -> pathlib.Path:
  """Returns the log file of this machine, with what the workdir's has."""
  log = _place(workdir, "log")
  if not is_remote(log):
    return log
  local = cache.place(log, "logs")
  local.parent.mkdir(parents=True, exist_ok=True)
  local.unlink(missing_ok=True)
  if log.is_file():
    log.download(local)
  return local


def _upload_log(workdir: pathlib.Path) -> None:
  """Copies the log of this machine to a workdir on an object store."""
  log = _place(workdir, "log")
  local = cache.place(log, "logs") if is_remote(log) else None
  if local and local.is_file():
    with contextlib.suppress(OSError):  # The next upload has all of it.
      log.upload(local)
