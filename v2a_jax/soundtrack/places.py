"""Where soundtracks are written, so that none is written over another."""

from collections.abc import Iterator, Mapping
import contextlib
import itertools
import json
import pathlib
import shutil
from typing import Any

from v2a_jax.basics import claim, files

# In a folder that is being written: its claim, and what for.
_UNFINISHED, _REQUEST = ".unfinished", "request.json"
# What file systems take, and what is added to the name of a video.
_NAME_BYTES = 255
_ADDED = len("_000__c000_s4294967295__ambience.flac")


def stem_of(video: pathlib.Path) -> str:
  """Returns the name of a video without its ending.

  Raises:
    ValueError: no folder and no file can be named after it.
  """
  stem, size = video.stem, len(video.stem.encode())
  if not stem.strip("."):
    raise ValueError(
      f"{video}: nothing stands before the ending, so no folder can have its"
      " name; rename it"
    )
  if size + _ADDED > _NAME_BYTES:
    raise ValueError(
      f"{video}: the name is {size} bytes long, and soundtracks add up to"
      f" {_ADDED} to it, over the {_NAME_BYTES} of a file name; rename it"
    )
  return stem


@contextlib.contextmanager
def writing(
  directory: pathlib.Path, stem: str, described: Mapping[str, Any]
) -> Iterator[pathlib.Path]:
  """Yields the folder for soundtracks of a video, for this process alone.

  It is `<directory>/<stem>`. Where that holds soundtracks of another video or
  request, or another process writes there, it is the first of `<stem>_2`,
  `<stem>_3`, … of which neither is so. Until all is written, a hidden folder in it
  says for what it is: whoever writes the same after a process was killed goes on
  there, without the parts of files that it left.

  Args:
    directory: folder of all soundtracks.
    stem: name of the video.
    described: what the sidecar will say of the request, JSON-able; what is
      described the same sounds the same, and is written again.
  """
  wanted = json.loads(json.dumps(described))
  for folder in _folders(directory, stem):
    with contextlib.ExitStack() as hold:
      try:
        if not _is_for(folder, stem, wanted):
          continue
        hold.enter_context(claim.held(folder / _UNFINISHED))
      except claim.ClaimedError:
        continue
      files.remove_parts(folder)
      files.write_json(folder / _UNFINISHED / _REQUEST, wanted)
      yield folder
      shutil.rmtree(folder / _UNFINISHED)
      return


def _is_for(folder: pathlib.Path, stem: str, wanted: Mapping[str, Any]) -> bool:
  """Says whether a folder is new, or of what is wanted, finished or not."""
  try:
    folder.mkdir(parents=True)
    return True
  except FileExistsError:
    if not folder.is_dir():
      return False
  if not any(folder.iterdir()):
    return True
  sidecar = folder / f"{stem}.json"
  return any(
    _holds(x, wanted) for x in (folder / _UNFINISHED / _REQUEST, sidecar)
  )


def find(
  directory: pathlib.Path, stem: str, described: Mapping[str, Any]
) -> pathlib.Path | None:
  """Finds the folder of the same, if all that was asked for is there.

  The arguments are those of `writing`.
  """
  wanted = json.loads(json.dumps(described))
  for folder in _folders(directory, stem):
    if not folder.exists():
      return None
    sidecar = folder / f"{stem}.json"
    if _holds(sidecar, wanted):
      if (folder / _UNFINISHED).exists():
        return None
      found = files.read_json(sidecar)
      wanted_files = names(stem, found)
      if found["delivery"]["zip"]:
        wanted_files.append(f"{stem}.zip")
      whole = all((folder / name).is_file() for name in wanted_files)
      return folder if whole else None


def names(stem: str, sidecar: Mapping[str, Any]) -> list[str]:
  """Returns the names of the files of a sidecar, itself the last.

  Args:
    stem: name of the video.
    sidecar: what it says.
  """
  rows = sidecar["candidates"]
  found = [row[kind] for row in rows for kind in ("video", "wave")]
  found += [name for row in rows for name in row["stems"].values()]
  endings = *sidecar["delivery"]["timeline"], "json"
  return found + [f"{stem}.{ending}" for ending in endings]


def _folders(directory: pathlib.Path, stem: str) -> Iterator[pathlib.Path]:
  yield directory / stem
  for number in itertools.count(2):
    yield directory / f"{stem}_{number}"


def _holds(sidecar: pathlib.Path, wanted: Mapping[str, Any]) -> bool:
  try:
    found = files.read_json(sidecar)
  except (OSError, ValueError):
    return False
  return all(found.get(key) == value for key, value in wanted.items())
