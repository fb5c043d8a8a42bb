"""Where soundtracks are written, so that none is written over another."""

from collections.abc import Mapping
import itertools
import json
import pathlib
from typing import Any

from v2a_jax.basics import files

# What file systems take, and what is added to the name of a video.
_NAME_BYTES = 255
_ADDED = len("_000__c000_s4294967295.mp4")


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
  for number in itertools.count(1):
    folder = directory / (stem if number == 1 else f"{stem}_{number}")
    try:
      folder.mkdir(parents=True)
      return folder
    except FileExistsError:
      if folder.is_dir() and _holds(folder / f"{stem}.json", wanted):
        return folder


def _holds(sidecar: pathlib.Path, wanted: Mapping[str, Any]) -> bool:
  try:
    found = files.read_json(sidecar)
  except (OSError, ValueError):
    return False
  # Which key a watermark has is not written down.
  if found.get("delivery", {}).get("own_key"):
    return False
  return all(found.get(key) == value for key, value in wanted.items())
