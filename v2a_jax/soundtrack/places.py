"""Where soundtracks are written, so that none is written over another."""

from collections.abc import Iterator, Mapping
import itertools
import json
import pathlib
from typing import Any

from v2a_jax.basics import files

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


def folder_for(
  directory: pathlib.Path, stem: str, described: Mapping[str, Any]
) -> pathlib.Path:
  """Makes the folder for soundtracks of a video, or finds that of the same.

  It is `<directory>/<stem>`. Where that holds soundtracks of another video or
  request, it is the first of `<stem>_2`, `<stem>_3`, … that does not.

  Args:
    directory: folder of all soundtracks.
    stem: name of the video.
    described: what the sidecar will say of the request, JSON-able; what is
      described the same sounds the same, and is written again.
  """
  wanted = json.loads(json.dumps(described))
  for folder in _folders(directory, stem):
    try:
      folder.mkdir(parents=True)
      return folder
    except FileExistsError:
      # Which key a watermark has is not written down.
      own_key = wanted.get("delivery", {}).get("own_key")
      if not own_key and _holds(folder / f"{stem}.json", wanted):
        return folder


def find(
  directory: pathlib.Path, stem: str, described: Mapping[str, Any]
) -> pathlib.Path | None:
  """Finds the folder of the same, if all files of its sidecar are there.

  The arguments are those of `folder_for`.
  """
  wanted = json.loads(json.dumps(described))
  for folder in _folders(directory, stem):
    if not folder.exists():
      return None
    sidecar = folder / f"{stem}.json"
    if _holds(sidecar, wanted):
      rows = files.read_json(sidecar).get("candidates", [])
      names = [row[key] for row in rows for key in ("video", "wave")]
      return folder if all((folder / n).is_file() for n in names) else None


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
