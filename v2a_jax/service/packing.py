"""The zip file of an export: delivered takes, and the sounds that they need.

Nothing in it names a folder of this machine. A sidecar calls the video by its
bare name, the model by the last part of its path, and other sounds (`audio`,
`like`) by their places in the zip file: unpacked beside the video, it says all
that `v2a generate --from` needs. A timeline calls the picture by its bare name.
"""

import itertools
import json
import pathlib
from typing import Any
import zipfile

from v2a_jax.basics import files
from v2a_jax.soundtrack import timeline


def pack(path: pathlib.Path, folder: pathlib.Path) -> None:
  """Packs what deliveries wrote into a folder.

  Args:
    path: zip file to write.
    folder: folder that takes were saved to.

  Raises:
    OSError: the disk is full, or a sound is gone.
  """
  parts = [file for file in sorted(folder.rglob("*")) if file.is_file()]
  names = {file: file.relative_to(folder).as_posix() for file in parts}
  with zipfile.ZipFile(path, "w") as archive:
    sounds: dict[str, str] = {}  # place of a file by its path
    for file in parts:
      if file.suffix == ".json":
        found = _bare(files.read_json(file), sounds, set(names.values()))
        archive.writestr(names[file], json.dumps(found, indent=2))
      elif file.suffix == ".otio":
        archive.writestr(names[file], timeline.bare(file.read_text()))
      else:
        archive.write(file, names[file])
    for sound, place in sounds.items():
      archive.write(sound, place)


def _bare(
  sidecar: dict[str, Any], sounds: dict[str, str], taken: set[str]
) -> dict[str, Any]:
  """Returns a sidecar without folders; adds the sounds that it names."""
  request = sidecar["request"]
  for key in ("audio", "like"):
    if request[key] == sidecar["video"]:
      request[key] = _last(request[key])
    elif request[key]:
      request[key] = _place(request[key], sounds, taken)
  bare = {"video": _last(sidecar["video"]), "model": _parts(sidecar["model"])}
  return sidecar | bare


def _place(path: str, sounds: dict[str, str], taken: set[str]) -> str:
  """Returns the place of a sound, one that no other file has."""
  if path not in sounds:
    taken = taken | set(sounds.values())
    places = (f"sounds_{n}/{_last(path)}" for n in itertools.count(1))
    sounds[path] = next(place for place in places if place not in taken)
  return sounds[path]


def _parts(value: Any) -> Any:
  """Returns JSON in which paths are their last parts."""
  if isinstance(value, dict):
    return {key: _parts(item) for key, item in value.items()}
  if isinstance(value, list):
    return [_parts(item) for item in value]
  return _last(value) if isinstance(value, str) else value


def _last(path: str) -> str:
  return path.rstrip("/").rpartition("/")[2]
