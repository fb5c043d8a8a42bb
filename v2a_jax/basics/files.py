"""Files that appear whole or not at all, and their digests.

All functions take local paths and URLs of object stores; see paths.py.
"""

from collections.abc import Collection, Iterator
import contextlib
import hashlib
import json
import os
import pathlib
import re
import stat
import tempfile
from typing import Any, BinaryIO
import uuid

from v2a_jax.basics.paths import as_path, is_remote

# For `open_regular`: to add to a file, or to make it.
APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT
_PART = re.compile(r"\.[0-9a-f]{32}(\..*)?")  # name of a temporary file


def sha256_of(path: str | os.PathLike[str]) -> str:
  """Returns the sha256 of a file's bytes in hexadecimal, in constant memory.

  Raises:
    OSError: the file is missing, or a pipe, socket or device, which might never
      end.
  """
  with open_binary(path) as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def read_bytes(path: str | os.PathLike[str]) -> bytes:
  """Returns the bytes of a file.

  Raises:
    OSError: as `sha256_of`.
  """
  with open_binary(path) as file:
    return file.read()


def open_binary(path: str | os.PathLike[str]) -> BinaryIO:
  """Opens a file to read it; see `sha256_of`."""
  path = as_path(path)
  return path.open("rb") if is_remote(path) else open(open_regular(path), "rb")


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
  """Opens a regular file of this machine; never blocks.

  Args:
    path: the file.
    flags: those of `os.open`; with `os.O_CREAT` the file may be missing.

  Returns:
    Its descriptor.

  Raises:
    OSError: it cannot be opened, or is a folder, FIFO, socket or device.
  """
  if os.path.exists(path) or not flags & os.O_CREAT:
    check_regular(path)  # Opening a device may have effects.
  descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
  if not stat.S_ISREG(os.fstat(descriptor).st_mode):
    os.close(descriptor)
    raise OSError(f"{os.fspath(path)} is not a regular file")
  return descriptor


def check_regular(path: str | os.PathLike[str]) -> None:
  """Refuses what is there and is no regular file, for those who open it later.

  Raises:
    OSError: it is missing, or a folder, FIFO, socket or device.
  """
  if not stat.S_ISREG(os.stat(path).st_mode):
    raise OSError(f"{os.fspath(path)} is not a regular file")


@contextlib.contextmanager
def written(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Yields a temporary path beside `path`; renames it to `path` on success.

  The temporary file has the same suffix, which encoders go by. After an
  exception it is removed and whatever stood at `path` is left as it was. For a
  URL it lies in a temporary folder and is uploaded on success.

  Raises:
    OSError: the folder is missing, the disk is full, or the upload failed.
  """
  path = as_path(path).absolute()
  if is_remote(path):
    with tempfile.TemporaryDirectory() as folder:
      part = pathlib.Path(folder, path.name)
      yield part
      path.upload(part)
    return
  part = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
  try:
    yield part
    os.replace(part, path)
  finally:
    part.unlink(missing_ok=True)


def remove_parts(folder: str | os.PathLike[str]) -> None:
  """Removes temporary files of `written` whose process was killed.

  Args:
    folder: local folder that no other process writes to.
  """
  for path in pathlib.Path(folder).iterdir():
    if _PART.fullmatch(path.name):
      path.unlink(missing_ok=True)


def write_whole(path: str | os.PathLike[str], data: bytes | str) -> None:
  """Writes `data` (text as UTF-8) to `path`, whole or not at all.

  Raises:
    OSError: the folder is missing or the disk is full.
  """
  data = data.encode() if isinstance(data, str) else data
  if is_remote(path):
    as_path(path).write_bytes(data)
    return
  with written(path) as part:
    part.write_bytes(data)


def write_json(path: str | os.PathLike[str], value: Any, **options) -> None:
  """Writes `value` as indented JSON, whole or not at all.

  Args:
    path: file to write.
    value: JSON-able value.
    **options: further arguments of `json.dumps`.
  """
  write_whole(path, json.dumps(value, indent=1, **options) + "\n")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
  """Reads a JSON object.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it holds something else; the message begins with the path.
  """
  path = as_path(path)
  try:
    value = json.loads(read_bytes(path))
  except ValueError as error:
    raise ValueError(f"{path} is not JSON ({error})") from None
  if not isinstance(value, dict):
    raise ValueError(f"{path} is not a JSON object")
  return value


@contextlib.contextmanager
def staged(
  folder: str | os.PathLike[str], *, last: str = ""
) -> Iterator[pathlib.Path]:
  """Yields a local folder whose files are in `folder` after success.

  It is `folder` itself, or, for a URL, a temporary one that is uploaded.

  Args:
    folder: where the files are to be.
    last: file that is uploaded after all others, and so says that they are
      there.

  Raises:
    OSError: the upload failed.
  """
  folder = as_path(folder)
  if not is_remote(folder):
    yield folder
    return
  with tempfile.TemporaryDirectory() as local:
    yield pathlib.Path(local)
    upload(local, folder, last=last)


def upload(
  source: str | os.PathLike[str],
  target: str | os.PathLike[str],
  *,
  last: str = "",
  without: Collection[str] = (),
) -> list[str]:
  """Copies the files of a local folder, subfolders included, to a URL.

  Args:
    source: local folder.
    target: URL of a folder.
    last: file that is copied after all others.
    without: files that are not copied.

  Returns:
    Their paths relative to the folder.

  Raises:
    OSError: the store cannot be written.
  """
  source, target = pathlib.Path(source), as_path(target)
  files = sorted(path for path in source.rglob("*") if path.is_file())
  names = [path.relative_to(source).as_posix() for path in files]
  names = [name for name in names if name not in without]
  names.sort(key=lambda name: name == last)
  for name in names:
    (target / name).upload(source / name)
  return names
