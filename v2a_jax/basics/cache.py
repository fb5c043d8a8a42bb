"""The cache on this machine: `$V2A_CACHE`, or `~/.cache/v2a_jax`.

Files of object stores that a library must open are copied here once, and
shared by the processes of a machine.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import pathlib

from v2a_jax.basics import files
from v2a_jax.basics.paths import PathLike, as_path, is_remote, local_path

VARIABLE = "V2A_CACHE"


def root() -> pathlib.Path:
  """Returns the cache's folder.

  Raises:
    PathError: `$V2A_CACHE` is a URL.
  """
  name = os.environ.get(VARIABLE) or "~/.cache/v2a_jax"
  return local_path(name, f"the cache (${VARIABLE})").expanduser()


def place(url: PathLike, kind: str) -> pathlib.Path:
  """Returns a path in the cache that belongs to a URL.

  Args:
    url: URL that is the same in every process.
    kind: folder of the cache.
  """
  digest = hashlib.sha256(os.fspath(url).encode()).hexdigest()
  return root() / kind / f"{as_path(url).name}-{digest[:16]}"


def fetch(
  path: PathLike, *, size: int | None = None, sha256: str = ""
) -> pathlib.Path:
  """Returns a local path of a file: its own, or that of its copy in the cache.

  The first process that asks copies it, and others wait. A copy is kept under
  the file's sha256, or under what the store says of its version, so that a file
  that has changed is copied again.

  Args:
    path: local path or URL of a file.
    size: number of bytes that the copy must have; None for any.
    sha256: digest that the copy must have; "" for any.

  Raises:
    FileNotFoundError: there is no such file.
    OSError: it is no regular file, the copy has another size or sha256, or the
      cache's disk is full.
  """
  path = as_path(path)
  if not is_remote(path):
    files.check_regular(path)
    return path
  version = sha256 or path.version()
  copy = root() / "files" / version[:32] / path.name
  if _is_whole(copy, size):
    return copy
  try:
    copy.parent.mkdir(parents=True, exist_ok=True)
    with locked(copy.parent / "lock"):
      if not _is_whole(copy, size):
        with files.written(copy) as part:
          path.download(part)
          _check(part, path, size, sha256)
  except OSError as error:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
      raise OSError(
        f"{path} does not fit into the cache {root()}: the disk is full; set"
        f" {VARIABLE} to a folder with more room"
      ) from None
    raise
  return copy


@contextlib.contextmanager
def locked(file: pathlib.Path):
  """Waits until no other thread or process of this machine holds a lock."""
  flags = os.O_WRONLY | os.O_CREAT
  with open(files.open_regular(file, flags), "w") as handle:
    fcntl.flock(handle, fcntl.LOCK_EX)
    yield


def _is_whole(copy: pathlib.Path, size: int | None) -> bool:
  return copy.is_file() and size in (None, copy.stat().st_size)


def _check(part: pathlib.Path, path, size: int | None, sha256: str) -> None:
  found = part.stat().st_size
  if size is not None and found != size:
    raise OSError(
      f"{path} has {found:,} bytes, not {size:,}: it is cut off or altered"
    )
  if sha256 and files.sha256_of(part) != sha256:
    raise OSError(f"{path} has another sha256 than expected: it is altered")
