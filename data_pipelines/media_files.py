"""Finds the sounds, videos and archives of a folder."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import os
import pathlib
from typing import TYPE_CHECKING

from data_pipelines.schema import DataError
from v2a_jax.basics.paths import check_readable, is_remote

if TYPE_CHECKING:
  from v2a_jax.basics.store import StorePath

# Endings of files that hold sound only, and of those that may hold a picture.
SOUNDS = frozenset(
  ".wav .w64 .flac .mp3 .ogg .oga .opus .m4a .aac .aif .aiff .wma .caf .amr"
  " .au".split()
)
VIDEOS = frozenset(
  ".mp4 .m4v .mov .qt .mkv .webm .avi .ts .mts .m2ts .mpg .mpeg .m2v .3gp .flv"
  " .wmv .asf .ogv .gif .mxf .ivf .dv .dif .vob .nut".split()
)


@dataclasses.dataclass(frozen=True)
class MediaFiles:
  """What a search has found.

  Attributes:
    files: paths relative to the folder, with forward slashes, sorted.
    archives: paths of the tar files, likewise.
    others: number of other files by their ending.
    notes: a line for each folder that was left out.
    stored: size in bytes and version of each file of an object store, by path.
  """

  files: Sequence[str]
  archives: Sequence[str]
  others: Counter[str]
  notes: Sequence[str]
  stored: Mapping[str, tuple[int, str]] = dataclasses.field(
    default_factory=dict
  )

  def __str__(self) -> str:
    """Counts the files, and the others by their most frequent endings."""
    text = f"{len(self.files)} media files"
    if self.archives:
      text += f" and {len(self.archives)} archives"
    if not self.others:
      return text
    often = sorted(self.others.items(), key=lambda item: (-item[1], item[0]))
    endings = ", ".join(f"{n} {ending}" for ending, n in often[:8])
    more = ", …" * (len(often) > 8)
    return f"{text} ({self.others.total()} others ignored: {endings}{more})"


def find_media(
  directory: "pathlib.Path | StorePath", *, with_archives: bool = False
) -> MediaFiles:
  """Finds the media files below a folder, in linked folders too.

  Hidden files and folders are left out of everything.

  Args:
    directory: folder.
    with_archives: whether tar files are found, too; else they are others.

  Raises:
    DataError: no such folder, or nothing of the kind in it.
    StoreError: the object store cannot be read.
  """
  if not directory.is_dir():
    check_readable(directory)
    raise DataError(f"no folder {directory}")
  notes, stored = [], {}
  if is_remote(directory):
    stored = directory.tree()
    names = [name for name in stored if not _is_hidden(name)]
  else:
    names = _found(directory, notes)
  files, archives, others = [], [], Counter()
  for name in names:
    ending = pathlib.PurePosixPath(name).suffix.lower()
    if ending in SOUNDS | VIDEOS:
      files.append(name)
    elif with_archives and ending == ".tar":
      archives.append(name)
    else:
      others[ending or "without an ending"] += 1
  found = MediaFiles(sorted(files), sorted(archives), others, notes, stored)
  if not files and not archives:
    raise DataError(f"{found} in {directory}; name a folder of clips")
  return found


def _is_hidden(name: str) -> bool:
  return any(part.startswith(".") for part in name.split("/"))


def _found(directory: pathlib.Path, notes: list[str]) -> Iterator[str]:
  """Yields the paths of the files of a folder on this machine."""
  for folder, names in _folders(directory, notes):
    for name in names:
      if not name.startswith("."):
        yield (folder / name).relative_to(directory).as_posix()


def _folders(
  directory: pathlib.Path, notes: list[str]
) -> Iterator[tuple[pathlib.Path, list[str]]]:
  """Yields folders and the names of their files, linked folders once."""

  def identity(path):
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino

  def refused(error: OSError) -> None:
    notes.append(f"{error.filename} is left out: {error.strerror}")

  # A link to a folder that is searched anyway adds nothing.
  real = {identity(root) for root, _, _ in os.walk(directory)}
  seen = set(real)
  for root, folders, names in os.walk(
    directory, followlinks=True, onerror=refused
  ):
    yield pathlib.Path(root), names
    below = sorted(name for name in folders if not name.startswith("."))
    folders.clear()
    for name in below:
      path = pathlib.Path(root, name)
      own = identity(path)
      if path.is_symlink() or own not in real:
        if own in seen:
          notes.append(f"{path} is left out: its folder is searched already")
          continue
        seen.add(own)
      folders.append(name)
