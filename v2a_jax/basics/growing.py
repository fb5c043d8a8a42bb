"""Text files that grow, also on object stores, which cannot append.

There the text is kept in a temporary file and uploaded whole in the
background: the first text at once, later ones at most every 30 seconds, and all
when the file is closed. A process that is killed loses what came after the last
upload.
"""

import logging
import pathlib
import tempfile
import threading
import time
from typing import Protocol

from v2a_jax.basics.files import APPEND, open_regular
from v2a_jax.basics.paths import PathLike, as_path, is_remote
from v2a_jax.basics.trouble import Trouble

# Uploads take at most a twentieth of the time, however long the file is.
_SHARE = 20
_log = logging.getLogger(__name__)


class GrowingFile(Protocol):
  """A file to which text or bytes are added."""

  def write(self, data: str | bytes) -> None: ...

  def close(self) -> None: ...


def open_append(path: PathLike, *, seconds: float = 30.0) -> GrowingFile:
  """Opens a file to add to what it has.

  Args:
    path: local path or URL.
    seconds: least time between two uploads.

  Raises:
    OSError: the file cannot be written, or is a pipe, socket or device.
  """
  path = as_path(path)
  return _Uploaded(path, seconds) if is_remote(path) else _Local(path)


class _Local:
  """A file of this machine; what is written can be read at once.

  What a full disk does not take is written with what comes next.
  """

  def __init__(self, path: pathlib.Path):
    descriptor = open_regular(path, APPEND)
    self._file, self._rest = open(descriptor, "ab", buffering=0), b""

  def write(self, data: str | bytes) -> None:
    self._rest += data.encode() if isinstance(data, str) else data
    while self._rest:
      self._rest = self._rest[self._file.write(self._rest) :]

  def close(self) -> None:
    try:
      self.write("")
    finally:
      self._file.close()


class _Uploaded:
  """A file of a store, with a thread that uploads its local copy."""

  def __init__(self, path, seconds: float):
    self._path, self._seconds = path, seconds
    self._folder = tempfile.TemporaryDirectory()
    self._copy = pathlib.Path(self._folder.name, path.name)
    if path.is_file():
      path.download(self._copy)
    self._local = _Local(self._copy)
    self._changed, self._closing = threading.Event(), threading.Event()
    self._thread = threading.Thread(target=self._upload_all, daemon=True)
    self._thread.start()

  def write(self, data: str | bytes) -> None:
    self._local.write(data)
    self._changed.set()

  def close(self) -> None:
    """Uploads the rest.

    Raises:
      OSError: it could not be uploaded.
    """
    self._closing.set()
    self._changed.set()
    self._thread.join()
    self._local.close()
    self._path.upload(self._copy)
    self._folder.cleanup()

  def _upload_all(self) -> None:
    trouble = Trouble(_log)
    while True:
      self._changed.wait()
      if self._closing.is_set():
        return
      self._changed.clear()
      start = time.monotonic()
      try:
        self._path.write_bytes(self._copy.read_bytes())
        trouble.over()
      except OSError as error:
        self._changed.set()
        trouble.met("%s; the next upload tries again", error)
      took = time.monotonic() - start
      self._closing.wait(max(self._seconds, _SHARE * took))
