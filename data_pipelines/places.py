"""Where a data set is while it is built or replaced."""

import os
import pathlib

from v2a_jax.basics import cache
from v2a_jax.basics.paths import as_path, is_remote


def restore(out: str | os.PathLike) -> None:
  """Puts a data set back whose replacement was interrupted between two renames.

  Raises:
    PathError: `out` is no path.
  """
  out = as_path(out)
  if not is_remote(out) and not out.exists() and old_place(out).is_dir():
    old_place(out).rename(out)


def work_place(out: str | os.PathLike) -> pathlib.Path:
  """Returns the folder of this machine in which a data set is built."""
  out = as_path(out)
  if is_remote(out):
    return cache.place(out, "builds")
  return out.with_name(out.name + ".building")


def old_place(out: pathlib.Path) -> pathlib.Path:
  """Returns where a data set is for the moment in which it is replaced."""
  return out.with_name(out.name + ".old")
