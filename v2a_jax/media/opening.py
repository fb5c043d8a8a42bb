"""Opening of media files: as regular files, or as descriptors from a parent.

A child process that may open nothing (confine.py) reads a file through a
descriptor that its parent opened. `granted` maps the paths of such files to
their descriptors.
"""

import io
import os
from typing import BinaryIO

from v2a_jax.basics.files import open_regular
from v2a_jax.basics.paths import PathError, local_path
from v2a_jax.media.base import Limits, MediaError, Source, more

_LFS_POINTER = b"version https://git-lfs"

granted: dict[str, int] = {}  # descriptors by path, set by child.py


class Descriptor(io.RawIOBase):
  """A file by its descriptor, with a position of its own."""

  def __init__(self, descriptor: int):
    self._descriptor, self._position = descriptor, 0

  def readable(self) -> bool:
    """Returns True."""
    return True

  def writable(self) -> bool:
    """Returns True; writing fails if the descriptor is read-only."""
    return True

  def seekable(self) -> bool:
    """Returns True."""
    return True

  def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
    """Moves the position."""
    start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}
    if whence == os.SEEK_END:
      start[whence] = os.fstat(self._descriptor).st_size
    self._position = max(start[whence] + offset, 0)
    return self._position

  def readinto(self, buffer) -> int:
    """Reads bytes at the position."""
    count = os.preadv(self._descriptor, [buffer], self._position)
    self._position += count
    return count

  def write(self, data) -> int:
    """Writes all bytes at the position."""
    left = memoryview(data).cast("B")
    while left:
      count = os.pwrite(self._descriptor, left, self._position)
      self._position, left = self._position + count, left[count:]
    return len(data)


def open_output(path: str) -> BinaryIO:
  """Opens a file that exists for reading and writing, from its start."""
  if path in granted:
    return Descriptor(granted[path])
  return Descriptor(open_regular(path, os.O_RDWR))


def open_raw(path: str) -> BinaryIO:
  """Opens a file of this package's own for reading, from its start."""
  if path in granted:
    return Descriptor(granted[path])
  return open(open_regular(path), "rb", buffering=0)


def open_source(source: Source, name: str, limits: Limits) -> BinaryIO:
  """Opens a path, or the bytes of a file, for reading.

  Raises:
    MediaError: there is no such file, or it is not one, is empty, a pointer of
      Git LFS, or over `limits.file_bytes`.
  """
  if isinstance(source, bytes):
    file, size = io.BytesIO(source), len(source)
  else:
    file = _open_path(source, name)
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
  if not size:
    raise MediaError(name, "is empty (0 bytes)", "copy or download it again")
  head = file.read(len(_LFS_POINTER))
  file.seek(0)
  if head == _LFS_POINTER:
    file.close()
    raise MediaError(
      name, "is a Git LFS pointer, not the file", "run: git lfs pull"
    )
  if size > limits.file_bytes:
    file.close()
    raise MediaError(
      name,
      f"has {size:,} bytes, over the limit of {limits.file_bytes:,}",
      f"cut it, or {more('file_bytes')}",
    )
  return file


def _open_path(source, name: str) -> BinaryIO:
  if os.fspath(source) in granted:
    return io.BufferedReader(Descriptor(granted[os.fspath(source)]))
  try:
    source = local_path(source, "media")
  except PathError as e:
    raise MediaError(
      name, "is not on this machine", "copy it, and give the local path"
    ) from e
  if not os.path.exists(source):
    raise MediaError(name, "there is no such file", "check the path")
  if not os.path.isfile(source):
    raise MediaError(name, "is not a regular file", "give a media file")
  try:
    return open(open_regular(source), "rb")
  except OSError as e:
    raise MediaError(name, str(e.strerror or e), "check its permissions") from e
