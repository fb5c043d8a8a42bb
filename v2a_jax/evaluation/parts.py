"""What is kept of clips that are scored, so that an evaluation can go on.

A part holds a few clips that are generated and scored together: what each
metric keeps of each sound, and the sounds' embeddings. It is one .npz file, in a
folder named by the settings, so a part of other settings is never read. Results
are computed from parts alone: an evaluation that was killed, one that was cut
into shards and one that ran through give the same numbers.
"""

from collections.abc import Collection, Mapping, Sequence
import dataclasses
import importlib
import json
import pathlib
from typing import Any
import zipfile
import zlib

import numpy as np

from v2a_jax.basics import files
from v2a_jax.evaluation.clips import Clip, Failure
from v2a_jax.hearing.embeddings import Features

DAMAGE = (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
_OURS = "v2a_jax.evaluation."
_META = "meta"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
  """One clip with what is kept of the sounds of all rows.

  Attributes:
    clip: the clip without its media.
    entry: what results.json says of it, but for its scores.
    sha256: digest of its true sound as stored.
    states: what metrics keep, by row and metric id.
    features: embeddings, by row and `Embedding.id`, of rows that were asked
      for; the true sound's are always kept, as the row `ground_truth`.
    sounds: digests of the sounds as they were judged, by row.
  """

  clip: Clip
  entry: Mapping[str, Any]
  sha256: str
  states: Mapping[str, Mapping[str, Any]]
  features: Mapping[str, Mapping[str, Features]]
  sounds: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Part:
  """Clips that were scored together, and those that could not be.

  `seconds` are those that making the model's sound of a clip took; None where
  none was made.
  """

  scored: Sequence[Scored]
  failures: Sequence[Failure]
  seconds: float | None = None


def path_of(folder: pathlib.Path, number: int) -> pathlib.Path:
  """Returns the file of a part."""
  return folder / f"part_{number:05}.npz"


def write(path: pathlib.Path, part: Part) -> None:
  """Writes a part, whole or not at all.

  Raises:
    TypeError: a metric keeps a state that cannot be written.
  """
  arrays, clips = {}, []
  for i, scored in enumerate(part.scored):
    clips.append(
      {
        "clip": _clip_to_json(scored.clip),
        "entry": scored.entry,
        "sha256": scored.sha256,
        "states": to_json(scored.states),
        "sounds": scored.sounds,
      }
    )
    for row, networks in scored.features.items():
      for network, features in networks.items():
        for name, array in vars(features).items():
          arrays["|".join((str(i), row, network, name))] = array
  failures = [vars(f) for f in part.failures]
  meta = {"clips": clips, "failures": failures, "seconds": part.seconds}
  arrays[_META] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
  path.parent.mkdir(parents=True, exist_ok=True)
  with files.written(path) as temporary:
    np.savez(temporary, **arrays)


def read(path: pathlib.Path, *, rows: Collection[str] = ()) -> Part:
  """Reads a part, with the embeddings of some rows.

  Raises:
    FileNotFoundError: there is none.
    One of `DAMAGE`: it is damaged.
  """
  files.check_regular(path)
  with np.load(path, allow_pickle=False) as file:
    meta = json.loads(file[_META].tobytes())
    features = _grouped(file, rows)
  scored = [
    Scored(
      clip=_clip_from_json(entry["clip"]),
      entry=entry["entry"],
      sha256=entry["sha256"],
      states=from_json(entry["states"]),
      features=features.get(i, {}),
      sounds=entry["sounds"],
    )
    for i, entry in enumerate(meta["clips"])
  ]
  failures = [Failure(**f) for f in meta["failures"]]
  return Part(scored, failures, meta["seconds"])


def _grouped(file, rows) -> dict[int, dict[str, dict[str, Features]]]:
  """Returns the embeddings of `rows` by clip, row and network."""
  arrays: dict[tuple[str, ...], dict[str, np.ndarray]] = {}
  for key in file.files:
    *place, name = key.split("|")
    if key != _META and place[1] in rows:
      arrays.setdefault(tuple(place), {})[name] = file[key]
  grouped: dict[int, dict[str, dict[str, Features]]] = {}
  for (i, row, network), fields in arrays.items():
    of_row = grouped.setdefault(int(i), {}).setdefault(row, {})
    of_row[network] = Features(**fields)
  return grouped


_ARRAYS = ("events", "off_screen", "motion")


def _clip_to_json(clip: Clip) -> dict[str, Any]:
  fields = ("position", "id", "caption", "transcript", "label", "seconds")
  plain = {name: getattr(clip, name) for name in fields}
  plain["channels"] = clip.audio.shape[1]
  for name in _ARRAYS:
    value = getattr(clip, name)
    plain[name] = None if value is None else np.asarray(value).tolist()
  return plain


def _clip_from_json(plain: Mapping[str, Any]) -> Clip:
  fields = dict(plain)
  channels = fields.pop("channels")
  for name in _ARRAYS:
    if fields[name] is not None:
      fields[name] = np.array(fields[name], np.float64)
  silence = np.zeros((0, channels), np.float32)
  return Clip(audio=silence, **fields)


def to_json(value: Any) -> Any:
  """Converts what a metric keeps to what JSON can express, without loss.

  Numbers, text, None, lists, tuples, dicts with text keys, arrays, and
  dataclasses of this package.

  Raises:
    TypeError: a value of another type.
  """
  if value is None or isinstance(value, (bool, int, float, str)):
    return value
  if isinstance(value, np.generic):
    return value.item()
  if isinstance(value, np.ndarray):
    return {"array": value.tolist(), "dtype": str(value.dtype)}
  if isinstance(value, (list, tuple)):
    kind = type(value).__name__
    return {kind: [to_json(item) for item in value]}
  if isinstance(value, Mapping):
    return {"dict": {key: to_json(item) for key, item in value.items()}}
  if dataclasses.is_dataclass(value) and _is_ours(type(value).__module__):
    cls = type(value)
    names = [field.name for field in dataclasses.fields(cls)]
    return {
      "class": [cls.__module__, cls.__name__],
      "fields": {name: to_json(getattr(value, name)) for name in names},
    }
  raise TypeError(
    f"a metric's state of type {type(value).__name__} cannot be kept: use"
    " numbers, arrays, or a dataclass of v2a_jax.evaluation"
  )


def from_json(value: Any) -> Any:
  """Returns what `to_json` converted.

  Raises:
    ValueError: it is not of that form.
  """
  if not isinstance(value, dict):
    return value
  if "array" in value:
    return np.array(value["array"], value["dtype"])
  if "list" in value:
    return [from_json(item) for item in value["list"]]
  if "tuple" in value:
    return tuple(from_json(item) for item in value["tuple"])
  if "dict" in value:
    return {key: from_json(item) for key, item in value["dict"].items()}
  module, name = value["class"]
  found = None
  if _is_ours(module):  # Nothing else is imported.
    found = getattr(importlib.import_module(module), name, None)
  if not dataclasses.is_dataclass(found):
    raise ValueError(f"{module}.{name} is no dataclass of {_OURS}*")
  fields = {key: from_json(item) for key, item in value["fields"].items()}
  return found(**fields)


def _is_ours(module: str) -> bool:
  return module.startswith(_OURS)
