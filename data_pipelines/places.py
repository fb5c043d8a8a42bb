"""Where a data set is while it is built, and how it replaces an earlier one.

On this machine that takes two renames, of the earlier one to `.OUT.replaced` and
of the new one to `OUT`; then what others have added moves to the new one. Where
that was interrupted, `restore` finishes or undoes it.
"""

from collections.abc import Sequence
import contextlib
import os
import pathlib
import shutil

from data_pipelines import tfds_files
from data_pipelines import tokenizer as tokenizer_lib
from data_pipelines.columns import provenance
from data_pipelines.columns.records import FOLDER, RECORDS
from data_pipelines.croissant import CROISSANT
from data_pipelines.manifest import MANIFEST
from data_pipelines.readings import READINGS
from data_pipelines.shard import BUILD, JOURNAL, LOCK, BuildError
from v2a_jax.basics import cache, files
from v2a_jax.basics.paths import as_path, is_remote

DROPS = "drops.csv"
REPORT = "report.html"
UNMATCHED = "unmatched.csv"
# Files of a data set besides its shards.
_FILES = (
  *(MANIFEST, READINGS, DROPS, UNMATCHED, REPORT, CROISSANT),
  *(tokenizer_lib.FILENAME, *tfds_files.METADATA),
  *(f"{FOLDER}/{RECORDS}.arrow", f"{FOLDER}/{provenance.NAME}.arrow"),
)


def restore(out: str | os.PathLike) -> None:
  """Finishes, or undoes, a replacement that was interrupted.

  Raises:
    PathError: `out` is no path.
    OSError: a folder cannot be renamed.
  """
  out = as_path(out)
  if is_remote(out) or not (old := _old_place(out)).is_dir():
    return
  if (out / MANIFEST).is_file():
    _keep_others(old, out)
  elif not out.exists() or (out.is_dir() and not any(out.iterdir())):
    old.rename(out)


def work_place(out: str | os.PathLike) -> pathlib.Path:
  """Returns the folder of this machine in which a data set is built."""
  out = as_path(out)
  if is_remote(out):
    return cache.place(out, "builds")
  return out.with_name(out.name + ".building")


def put_in_place(
  work: pathlib.Path,
  out,
  *,
  without: Sequence[str],
) -> None:
  """Moves a finished data set to its folder, or uploads it.

  Of an earlier data set what builds write is removed. Columns that others have
  added, and files that users have put there, stay.

  Args:
    work: folder in which it was built; it is gone afterwards.
    out: its folder, on this machine or an object store.
    without: names of files in `work` that are no part of it.

  Raises:
    BuildError: it could not be uploaded.
    OSError: it could not be moved.
  """
  if is_remote(out):
    _upload(work, out, without)
    return
  old = _old_place(out)
  if out.exists():
    out.rename(old)
  work.rename(out)
  for name in without:
    (out / name).unlink()
  if old.is_dir():
    _keep_others(old, out)


def _keep_others(old: pathlib.Path, out: pathlib.Path) -> None:
  """Moves what no build has written to the new data set; removes the rest."""
  for path in old.iterdir():
    if path.name == FOLDER and path.is_dir():
      (out / FOLDER).mkdir(exist_ok=True)
      for column in path.iterdir():
        if f"{FOLDER}/{column.name}" not in _FILES:
          _move_missing(column, out / FOLDER)
    elif not _is_built(path.name):
      _move_missing(path, out)
  shutil.rmtree(old, ignore_errors=True)


def _is_built(name: str) -> bool:
  """Says whether builds write a file of this path in a data set's folder."""
  return name in (*_FILES, JOURNAL, BUILD, LOCK) or bool(
    tfds_files.SHARD.fullmatch(name)
  )


def _move_missing(path: pathlib.Path, folder: pathlib.Path) -> None:
  """Moves a file or folder into another folder that has none of its name."""
  if not (folder / path.name).exists():
    with contextlib.suppress(FileNotFoundError):  # Another process was faster.
      path.rename(folder / path.name)


def _upload(work: pathlib.Path, out, without) -> None:
  """Uploads the data set and removes what an earlier one had besides."""
  try:
    (out / MANIFEST).unlink(missing_ok=True)
    earlier = set(out.tree())
    names = files.upload(work, out, last=MANIFEST, without=without)
  except OSError as error:
    raise BuildError(
      f"{error}; the finished data set is kept in {work}: start the same command"
      " again to upload it"
    ) from None
  for name in earlier - set(names):
    if _is_built(name):
      (out / name).unlink(missing_ok=True)
  shutil.rmtree(work)


def _old_place(out: pathlib.Path) -> pathlib.Path:
  """Returns where a data set is for the moment in which it is replaced."""
  return out.with_name(f".{out.name}.replaced")
