"""Finds the sounds, videos and archives of a folder."""

from collections import Counter
from collections.abc import Iterator, Sequence
import dataclasses
import os
import pathlib

from data_pipelines.schema import DataError

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
  """

  files: Sequence[str]
  archives: Sequence[str]
  others: Counter[str]
  notes: Sequence[str]

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
  directory: pathlib.Path, *, with_archives: bool = False
) -> MediaFiles:
  """Finds the media files below a folder, in linked folders too.

  Hidden files and folders are left out of everything.

  Args:
    directory: folder.
    with_archives: whether tar files are found, too; else they are others.

  Raises:
    DataError: no such folder, or nothing of the kind in it.
  """
  if not directory.is_dir():
    raise DataError(f"no folder {directory}")
  files, archives, others, notes = [], [], Counter(), []
  for folder, names in _folders(directory, notes):
    for name in names:
      if name.startswith("."):
        continue
      path = folder / name
      if path.suffix.lower() in SOUNDS | VIDEOS:
        files.append(path.relative_to(directory).as_posix())
      elif with_archives and path.suffix.lower() == ".tar":
        archives.append(path.relative_to(directory).as_posix())
      else:
        others[path.suffix.lower() or "without an ending"] += 1
  found = MediaFiles(sorted(files), sorted(archives), others, notes)
  if not files and not archives:
    raise DataError(f"{found} in {directory}; name a folder of clips")
  return found


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
