"""Puts a finished data set in place of what is there."""

from collections.abc import Callable, Sequence
import pathlib
import shutil

from data_pipelines.columns import records
from data_pipelines.manifest import MANIFEST
from data_pipelines.places import old_place
from data_pipelines.shard import BuildError
from v2a_jax.basics import files
from v2a_jax.basics.paths import is_remote


def put_in_place(
  work: pathlib.Path,
  out,
  *,
  without: Sequence[str],
  ours: Callable[[str], bool],
) -> None:
  """Moves a finished data set to its folder, or uploads it.

  Of an earlier one its files go; columns that the new one does not have, and what
  users have put there, stay.

  Args:
    work: folder in which it was built, which is gone afterwards.
    out: its folder, of this machine or remote.
    without: names of files in `work` that are no part of it.
    ours: says of a name whether it is a file of a data set.

  Raises:
    BuildError: it could not be uploaded.
    OSError: it could not be moved.
  """
  if is_remote(out):
    _upload(work, out, without, ours)
    return
  old = old_place(out)
  if out.exists():
    shutil.rmtree(old, ignore_errors=True)
    out.rename(old)
  work.rename(out)
  for name in without:
    (out / name).unlink()
  if old.is_dir():
    _keep_others(old, out, ours)
    shutil.rmtree(old, ignore_errors=True)


def _keep_others(
  old: pathlib.Path, out: pathlib.Path, ours: Callable[[str], bool]
) -> None:
  """Moves what users have put into the replaced data set to the new one."""
  for path in old.iterdir():
    if path.name == records.FOLDER and path.is_dir():
      (out / path.name).mkdir(exist_ok=True)
      for column in path.iterdir():
        _move_missing(column, out / path.name)
    elif not ours(path.name):
      _move_missing(path, out)


def _move_missing(path: pathlib.Path, folder: pathlib.Path) -> None:
  if not (folder / path.name).exists():
    path.rename(folder / path.name)


def _upload(work: pathlib.Path, out, without, ours) -> None:
  """Uploads the data set and removes what an earlier one had besides."""
  try:
    (out / MANIFEST).unlink(missing_ok=True)
    earlier = set(out.sizes())
    names = files.upload(work, out, last=MANIFEST, without=without)
  except OSError as error:
    raise BuildError(
      f"{error}; the finished data set is kept in {work}: start the same command"
      " again to upload it"
    ) from None
  for name in earlier - set(names):
    if ours(name):
      (out / name).unlink(missing_ok=True)
  shutil.rmtree(work)
