"""Paths on object stores: gs:// by gcsfs, s3:// by s3fs (extra `cloud`).

`StorePath` is etils' path with four differences. Errors name the path and what
to do. `absolute` and `resolve` return the path itself; etils makes a local one
of it. `mkdir` does nothing, because stores have no folders; etils would make a
bucket whose name was mistyped. What is written appears whole or not at all.

Clients find stores and credentials as usual: `AWS_PROFILE`, `AWS_ENDPOINT_URL`
and so on for s3://, application default credentials for gs://.
"""

from collections.abc import Iterator, Mapping
import contextlib
import errno
import logging
import os
from typing import Any, BinaryIO
import uuid

from etils.epath import gpath, register
import fsspec

_PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}
_CREDENTIALS = {
  "gs": "run `gcloud auth application-default login`, or set"
  " GOOGLE_APPLICATION_CREDENTIALS",
  "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
}
# Errors of the clients by the name of their class, which spares importing them.
_UNREACHABLE = (
  "ConnectionError",
  "ClientConnectionError",
  "ConnectTimeoutError",
)
_NO_CREDENTIALS = (
  *("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"),
  *("DefaultCredentialsError", "RefreshError"),
)
# Bytes that a request brings of a file that is read here and there.
_PART = 64 << 10
# Folders change under a run's feet: other processes write to them.
for _protocol in ("gs", "gcs", "s3"):
  fsspec.config.conf.setdefault(_protocol, {})["use_listings_cache"] = False
# What they log as errors is raised, too, and reported in one line.
for _package in _PACKAGES.values():
  logging.getLogger(_package).setLevel(logging.CRITICAL)
# etils would otherwise take TensorFlow, where it is installed.
os.environ.setdefault("EPATH_USE_TF", "false")


class StoreError(OSError):
  """A store that cannot be read or written; one line: where, why, what to do."""


@register.register_path_cls
class StorePath(gpath.PosixGPath):
  """A path on an object store; see the module's text."""

  @property
  def scheme(self) -> str:
    """`gs` or `s3`."""
    return self.parts[1]

  @property
  def bucket(self) -> "StorePath":
    """The bucket, as a path."""
    return type(self)(f"{self.scheme}://{self.parts[2]}")

  @property
  def client(self) -> fsspec.AbstractFileSystem:
    """The file system of fsspec.

    Raises:
      StoreError: its package is not installed, or it has no credentials.
    """
    with reported(self):
      return self._backend.fs(str(self))

  def info(self) -> dict[str, Any] | None:
    """Returns `type` (file or directory) and, of a file, `size`; None: absent.

    Raises:
      StoreError: the store cannot be read.
    """
    try:
      return self._call("info")
    except FileNotFoundError:
      return None

  def _call(self, method: str, *args, **options) -> Any:
    with reported(self):
      return getattr(self.client, method)(str(self), *args, **options)

  def exists(self) -> bool:
    return self.info() is not None

  def is_dir(self) -> bool:
    return (self.info() or {}).get("type") == "directory"

  def is_file(self) -> bool:
    return (self.info() or {}).get("type") == "file"

  def absolute(self) -> "StorePath":
    return self

  def resolve(self, strict: bool = False) -> "StorePath":
    return self

  def mkdir(self, mode=None, parents=False, exist_ok=False) -> None:
    """Does nothing."""

  def iterdir(self) -> Iterator["StorePath"]:
    """Yields the entries of a folder; none where there is nothing."""
    return iter([self / name for name in self.sizes()])

  def sizes(self) -> dict[str, int]:
    """Returns the size in bytes of each entry, by name, by one listing."""
    try:
      entries = self._call("ls", detail=True)
    except FileNotFoundError:
      return {}
    own = str(self).partition("://")[2].rstrip("/")
    paths = {entry["name"].rstrip("/"): entry for entry in entries}
    paths.pop(own, None)  # A folder that a web console made is an object.
    return {
      path.rpartition("/")[2]: int(entry["size"] or 0)
      for path, entry in sorted(paths.items())
    }

  def tree(self) -> dict[str, tuple[int, str]]:
    """Returns size in bytes and version of each file below, by relative path.

    The version is what the store calls its ETag; it changes when the file does.
    """
    entries = self._call("find", detail=True)
    start = len(str(self).partition("://")[2].rstrip("/")) + 1
    return {
      path[start:]: (int(entry["size"] or 0), _etag(entry))
      for path, entry in sorted(entries.items())
      if len(path) > start and not path.endswith("/")
    }

  def open_part(self) -> BinaryIO:
    """Opens the file for reading in small parts, here and there."""
    return self._call("open", "rb", block_size=_PART, cache_type="readahead")

  def modified(self) -> float:
    """Returns when the file was written, in seconds since the epoch.

    Raises:
      FileNotFoundError: there is no such file.
    """
    return self._call("modified").timestamp()

  def version(self) -> str:
    """Returns a digest that changes when the file does.

    Raises:
      FileNotFoundError: there is no such file.
    """
    return self._call("ukey")

  def read_bytes(self) -> bytes:
    return self._call("cat_file")

  def read_text(self, encoding: str | None = None) -> str:
    return self.read_bytes().decode(encoding or "utf-8")

  def write_bytes(self, data: bytes) -> int:
    self._call("pipe_file", data)
    return len(data)

  def write_text(self, data: str, encoding=None, errors=None) -> int:
    return self.write_bytes(data.encode(encoding or "utf-8"))

  def create(self, data: bytes) -> bool:
    """Writes a file that does not exist yet; False if it does."""
    if self.exists():  # For stores that ignore the precondition.
      return False
    try:
      self._call("pipe_file", data, mode="create")
      return True
    except FileExistsError:
      return False

  def unlink(self, missing_ok: bool = False) -> None:
    try:
      self._call("rm_file")
    except FileNotFoundError:
      if not missing_ok:
        raise

  def upload(self, file: str | os.PathLike[str]) -> None:
    """Writes a local file's content here."""
    with reported(self):
      self.client.put_file(os.fspath(file), str(self))

  def download(self, file: str | os.PathLike[str]) -> None:
    """Writes the content to a local file."""
    with reported(self):
      self.client.get_file(str(self), os.fspath(file))

  def check_readable(self) -> None:
    """Refuses a store that cannot be read, before anything depends on it.

    Raises:
      StoreError: the bucket does not exist or cannot be read.
    """
    if self.info() is None and self.bucket.info() is None:
      raise StoreError(f"{self}: there is no bucket {self.bucket}")

  def check_writable(self) -> None:
    """Writes and removes a small file in this folder.

    Raises:
      StoreError: the bucket does not exist, or cannot be read and written.
    """
    self.check_readable()
    probe = self / f".writable-{uuid.uuid4().hex[:8]}"
    probe.write_bytes(b"")
    probe.unlink()


def _etag(entry: Mapping[str, Any]) -> str:
  """Returns the version in an entry of a listing."""
  return str(entry.get("ETag") or entry.get("etag") or entry["LastModified"])


@contextlib.contextmanager
def reported(path: StorePath) -> Iterator[None]:
  """Turns the errors of a client into a `StoreError` of one line.

  A missing or existing file stays a FileNotFoundError or FileExistsError.
  """
  try:
    yield
  except FileNotFoundError:
    text = os.strerror(errno.ENOENT)
    raise FileNotFoundError(errno.ENOENT, text, str(path)) from None
  except (StoreError, FileExistsError):
    raise
  except Exception as error:
    if _is_local(error):
      raise
    raise StoreError(f"{path}: {_reason(path, error)}") from error


def _is_local(error: Exception) -> bool:
  """Says whether an error is this machine's, such as a full disk."""
  local = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE)
  return isinstance(error, OSError) and error.errno in local


def _reason(path: StorePath, error: Exception) -> str:
  """Says what went wrong and what to do."""
  names = {cls.__name__ for cls in type(error).__mro__}
  text = " ".join(str(error).split())[:200]
  if isinstance(error, ImportError):
    package = _PACKAGES[path.scheme]
    return f"needs the package {package}: pip install 'v2a_jax[cloud]'"
  if names & {*_NO_CREDENTIALS}:
    return f"no credentials: {_CREDENTIALS[path.scheme]} ({text})"
  if names & {*_UNREACHABLE}:
    return f"the store does not answer ({text}); check network and endpoint"
  if isinstance(error, PermissionError) or "nonymous" in text:
    return (
      f"permission denied ({text}); it takes the rights to list, read, write"
      f" and delete, and credentials: {_CREDENTIALS[path.scheme]}"
    )
  return f"{type(error).__name__}: {text}"
