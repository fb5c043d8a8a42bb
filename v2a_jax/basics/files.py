"""Files that appear whole or not at all, and their digests."""

from collections.abc import Iterator
import contextlib
import hashlib
import json
import os
import pathlib
from typing import Any
import uuid


def sha256_of(path: str | os.PathLike[str]) -> str:
  """Returns the sha256 of a file's bytes in hexadecimal, in constant memory."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def written(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Yields a temporary path beside `path`; renames it to `path` on success.

  The temporary file has the same suffix, which encoders go by. After an
  exception it is removed and whatever stood at `path` is left as it was.

  Raises:
    OSError: the folder is missing or the disk is full.
  """
  path = pathlib.Path(path).absolute()
  part = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
  try:
    yield part
    os.replace(part, path)
  finally:
    part.unlink(missing_ok=True)


def write_whole(path: str | os.PathLike[str], data: bytes | str) -> None:
  """Writes `data` (text as UTF-8) to `path`, whole or not at all.

  Raises:
    OSError: the folder is missing or the disk is full.
  """
  with written(path) as part:
    part.write_bytes(data.encode() if isinstance(data, str) else data)


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
  path = pathlib.Path(path)
  try:
    value = json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise ValueError(f"{path} is not JSON ({error})") from None
  if not isinstance(value, dict):
    raise ValueError(f"{path} is not a JSON object")
  return value
