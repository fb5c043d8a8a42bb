"""What a user types as a path: a local file, or a gs:// or s3:// URL.

`as_path` is the one door. Local text becomes a `pathlib.Path`. A URL becomes a
`StorePath` (store.py), which has the same methods. `pathlib.Path("gs://b/x")`
would be the local path `gs:/b/x`, so no text of a user goes there directly.
"""

import fnmatch
import os
import pathlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from v2a_jax.basics.store import StorePath

SCHEMES = ("gs", "s3")
_URL = re.compile(r"([a-z][a-z0-9+.-]*):/(/?)(?=[^/]|$)", re.IGNORECASE)

# What functions accept, and what `as_path` returns.
PathLike = str | os.PathLike[str]


class PathError(ValueError):
  """A path that cannot be used; one line: what, why, what to type."""


def as_path(name: PathLike) -> "pathlib.Path | StorePath":
  """Returns a path with the methods of `pathlib.Path`.

  Raises:
    PathError: a URL of another scheme, or one with a slash too few.
  """
  text = os.fspath(name)
  match = _URL.match(text)
  if not match:
    return name if isinstance(name, pathlib.Path) else pathlib.Path(text)
  scheme = match[1].lower()
  rest = text[match.end() :]
  if scheme not in SCHEMES:
    known = " and ".join(f"{scheme}://" for scheme in SCHEMES)
    raise PathError(f"{text}: only local paths, {known} can be used")
  if not match[2]:
    raise PathError(f"{text} is no URL: write {scheme}://{rest}")
  if not rest:
    raise PathError(f"{text} names no bucket: write {scheme}://BUCKET/FOLDER")
  # Here, because it imports libraries that local paths do not need.
  from v2a_jax.basics.store import StorePath

  return StorePath(f"{scheme}://{rest}")


def is_remote(name: PathLike) -> bool:
  """Says whether a path is a URL of an object store."""
  return os.fspath(name).startswith(tuple(f"{s}://" for s in SCHEMES))


def find(folder: PathLike, name: str) -> "list[pathlib.Path | StorePath]":
  """Returns the files in a folder and below it, sorted by path.

  Args:
    folder: folder or URL; one that is not there has no files.
    name: name of the files, in which `*` stands for any text.
  """
  folder = as_path(folder)
  if not is_remote(folder):
    return sorted(folder.rglob(name))
  found = (folder / path for path in folder.tree())
  return [path for path in found if fnmatch.fnmatchcase(path.name, name)]


def check_readable(path: "pathlib.Path | StorePath") -> None:
  """Refuses an object store that cannot be read; a local path always passes.

  Raises:
    StoreError: see `StorePath.check_readable`.
  """
  if is_remote(path):
    path.check_readable()


def check_writable(folder: PathLike) -> None:
  """Refuses an object store that cannot be written, such as one without rights.

  Raises:
    StoreError: see `StorePath.check_writable`.
  """
  folder = as_path(folder)
  if is_remote(folder):
    folder.check_writable()


def local_path(name: PathLike, what: str) -> pathlib.Path:
  """Returns the path of something that must be on this machine.

  Raises:
    PathError: it is a URL; the message calls it `what`.
  """
  if _URL.match(os.fspath(name)):
    raise PathError(
      f"{os.fspath(name)}: {what} must be on this machine; give a local path"
    )
  return pathlib.Path(name)
