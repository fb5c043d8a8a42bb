"""What an earlier build of a data set read of its files, for the next build.

`readings.jsonl` has a line for each file that was read: the sha256 of its bytes,
its length, and for each stretch the place of its record or the reason why there
is none. The next build looks files up by their bytes, so it decodes only what
is new, whatever the files and their captions are called now. In a copy of a
data set (derive.py) the records of the source stand in place of the files.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import pathlib
from typing import Any

from data_pipelines import schema
from data_pipelines.manifest import read_manifest
from data_pipelines.shard import (
  BUILD,
  JOURNAL,
  Outcome,
  ShardRecords,
  read_journal,
)
from data_pipelines.source import Source, open_source
from v2a_jax.basics.files import read_bytes, read_json
from v2a_jax.basics.paths import as_path

READINGS = "readings.jsonl"
# Entry of the manifest: the settings that shape the media of a record.
MEDIA = "media"
# Entries of `Outcome.parts` that are kept.
_KEPT = ("start", "end", "notes", "reason", "detail")


def reading_lines(outcomes: Sequence[Outcome]) -> Iterator[str]:
  """Yields the lines of `readings.jsonl`.

  Args:
    outcomes: all outcomes of a build, in the order of their records.
  """
  places = Counter[str]()
  for outcome in outcomes:
    split = outcome.clips[0]["split"] if outcome.clips else ""
    place = itertools.count(places[split])
    places[split] += len(outcome.clips)
    parts = [{k: part[k] for k in _KEPT if k in part} for part in outcome.parts]
    for part in parts:
      if "reason" not in part:
        part |= {"split": split, "index": next(place)}
    if parts:
      line = {"file": outcome.key, "sha256": outcome.sha256}
      line |= {"seconds": outcome.seconds, "parts": parts}
      yield json.dumps(line, ensure_ascii=False) + "\n"


@dataclasses.dataclass(frozen=True)
class Reading:
  """What is known of one file.

  Attributes:
    sha256: digest of its bytes.
    seconds: its length; None if it was refused as a whole.
    parts: what its stretches gave by (start, end).
    sources: records of the data set by split.
  """

  sha256: str
  seconds: float | None
  parts: Mapping[tuple[float | None, float | None], Mapping[str, Any]]
  sources: Mapping[str, Source | ShardRecords]

  def part(self, start: float | None, end: float | None) -> dict | None:
    """Returns the stretch as an entry of `Outcome.parts`, or None."""
    part = self.parts.get((start, end))
    return part and {k: part[k] for k in _KEPT if k in part} | {"taken": True}

  def record(self, start, end) -> dict[str, Any] | None:
    """Returns the record of a stretch; None if there is none, or it is damaged."""
    part = self.parts.get((start, end), {})
    try:
      return self.sources[part["split"]][part["index"]]
    except (schema.DataError, LookupError):
      return None

  def media(self, start: float, end: float) -> dict[str, Any] | None:
    """Returns the media fields of a stretch's record; None if it is damaged."""
    record = self.record(start, end)
    if record is None or record["sha256"] != self.sha256:
      return None
    return {field: record[field] for field in ("video", "audio", "duration")}


class Readings:
  """The readings of an earlier build, by the bytes of the files.

  Pickled they are the arguments of `open_readings`: they may be large.
  """

  def __init__(
    self,
    known: Mapping[tuple[str, str], Reading] | None = None,
    opened_by: tuple[Any, ...] = (),
  ):
    self._known, self._opened_by = known or {}, opened_by

  def __reduce__(self):
    # In another process they are opened once.
    return (_open_again, self._opened_by) if self._known else (Readings, ())

  def find(self, file: pathlib.PurePath, sha256: str) -> Reading | None:
    """Returns what is known of a file with these bytes and this ending."""
    return self._known.get((sha256, file.suffix.lower()))


def open_readings(
  path: str | os.PathLike, work: pathlib.Path, *, media: Mapping[str, Any]
) -> Readings:
  """Opens what earlier builds have for a build with the settings `media`.

  What is missing, of other settings or damaged gives nothing: it is read again.

  Args:
    path: folder of a finished data set.
    work: folder of an interrupted build.
    media: see `ClipOptions.of_media`.
  """
  known = {}
  for opened in (_interrupted(work, media), _finished(as_path(path), media)):
    for line, sources in opened:
      entry = json.loads(line)
      parts = {(part["start"], part["end"]): part for part in entry["parts"]}
      key = entry["sha256"], pathlib.PurePath(entry["file"]).suffix.lower()
      known[key] = Reading(entry["sha256"], entry["seconds"], parts, sources)
  return Readings(known, (os.fspath(path), os.fspath(work), json.dumps(media)))


@functools.cache
def _open_again(path: str, work: str, media: str) -> Readings:
  return open_readings(path, pathlib.Path(work), media=json.loads(media))


def _finished(path, media) -> list[tuple[str, Mapping[str, Source]]]:
  """Returns the lines of a data set's readings, each with its records."""
  try:
    manifest = read_manifest(path)
    digest = manifest.get("readings")
    if manifest.get(MEDIA) != media or not digest:
      return []
    data = read_bytes(path / READINGS)
    if hashlib.sha256(data).hexdigest() != digest:
      return []
    sources = {s: open_source(path, s) for s in manifest["splits"]}
  except (schema.DataError, OSError):
    return []
  return [(line, sources) for line in data.decode().split("\n")[:-1]]


def _interrupted(work, media) -> list[tuple[str, Mapping[str, ShardRecords]]]:
  """Returns the same of the closed shards of a build that was interrupted."""
  try:
    if read_json(work / BUILD).get("media") != media:
      return []
    shards, outcomes = read_journal(work / JOURNAL)
    paths: dict[str, list[pathlib.Path]] = {}
    for shard in shards:
      paths.setdefault(shard["split"], []).append(work / shard["file"])
    sources = {s: ShardRecords(files) for s, files in paths.items()}
  except (OSError, ValueError, KeyError, TypeError, RuntimeError):
    return []
  return [(line, sources) for line in reading_lines(outcomes)]
