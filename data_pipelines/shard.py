"""One shard of a data set while it is written, and what became of its items.

Shards are ArrayRecord files with one record a group, uncompressed because the
media in them is compressed: random reads are 3 times faster than with the
default (https://github.com/google/array_record).
"""

import bisect
from collections.abc import Mapping, Sequence
import dataclasses
import errno
import itertools
import json
import pathlib
from typing import Any

from array_record.python import array_record_module as array_record

from data_pipelines import schema
from v2a_jax.basics.files import check_regular, read_bytes, sha256_of

JOURNAL = "journal.jsonl"  # of a build that is under way
BUILD = "build.json"  # what it builds
LOCK = "lock"  # held by the process that builds it
WRITE_OPTIONS = "group_size:1,uncompressed"


def serialize(record: Mapping[str, Any]) -> bytes:
  """Encodes a record as TFDS does, but with sorted keys of its map."""
  from tensorflow_datasets.proto import tf_example_pb2

  message = tf_example_pb2.Example()
  features, stored = message.features.feature, schema.encode(record)
  for name in schema.FIELDS:
    value = stored[name]
    if name == "duration":
      features[name].float_list.value.append(value)
    else:
      data = value if isinstance(value, bytes) else value.encode()
      features[name].bytes_list.value.append(data)
  return message.SerializeToString(deterministic=True)


class BuildError(RuntimeError):
  """A data set that cannot be built; one line: what, where, what to do."""


@dataclasses.dataclass(frozen=True)
class Outcome:
  """The clips that one item gave, and what was dropped of it.

  Attributes:
    key: name of the item, unique in the build.
    sha256: digest of the source file; "" without one.
    clips: facts of each record that was written; see `clips.clip_facts`.
    drops: {"start", "end", "reason", "detail"} of each stretch that was not
      written; start and end (seconds) are None for the whole item.
    notes: remarks that the manifest counts, such as "re-encoded".
    seconds: length of the source file; None without one, or if it is refused.
    parts: {"start", "end"} of each stretch of the file that was looked at, with
      the "notes" of its clip, or "reason" and "detail" of a drop; "taken" if an
      earlier build had read it. See readings.py.
  """

  key: str
  sha256: str = ""
  clips: Sequence[Mapping[str, Any]] = ()
  drops: Sequence[Mapping[str, Any]] = ()
  notes: Sequence[str] = ()
  seconds: float | None = None
  parts: Sequence[Mapping[str, Any]] = ()


class Shard:
  """An ArrayRecord file that is being written.

  Attributes:
    outcomes: one for each item whose records it holds.
    rows: what `columns.records` lists of each record.
    records: number of records.
    bytes: sum of their sizes.
  """

  def __init__(self, path: pathlib.Path, split: str):
    self._path, self._split = path, split
    self._writer = array_record.ArrayRecordWriter(str(path), WRITE_OPTIONS)
    self.outcomes: list[Outcome] = []
    self.rows: list[Mapping[str, Any]] = []
    self.records, self.bytes = 0, 0

  def write(
    self,
    outcome: Outcome,
    records: Sequence[bytes],
    rows: Sequence[Mapping[str, Any]],
  ) -> None:
    """Writes the encoded records of one item, with the row of each."""
    for record in records:
      self._writer.write(record)
      self.bytes += len(record)
    self.records += len(records)
    self.outcomes.append(outcome)
    self.rows += rows

  def close(self) -> dict[str, Any]:
    """Closes the file, counts its records, returns the manifest's entry.

    ArrayRecord writes in the background: errors of earlier writes appear here.

    Raises:
      BuildError: the disk is full, or records are missing.
    """
    try:
      self._writer.close()
      reader = array_record.ArrayRecordReader(str(self._path))
      count = reader.num_records()
      reader.close()
    except (RuntimeError, OSError) as error:
      raise disk_error(self._path, error) from None
    if count != self.records:
      raise disk_error(self._path, f"{count} of {self.records} records arrived")
    return {
      "file": self._path.name,
      "split": self._split,
      "records": self.records,
      "bytes": self._path.stat().st_size,
      "sha256": sha256_of(self._path),
    }


class ShardRecords:
  """Records of closed shards by index, without the data set's metadata.

  The files stay readable after they have been removed.
  """

  def __init__(self, paths: Sequence[pathlib.Path]):
    """Opens the files.

    Raises:
      OSError: one is missing, or no regular file.
      RuntimeError: one is damaged.
    """
    for path in paths:
      check_regular(path)
    self._readers = [array_record.ArrayRecordReader(str(p)) for p in paths]
    counts = [reader.num_records() for reader in self._readers]
    self._ends = list(itertools.accumulate(counts))
    self._features = schema.features()

  def __getitem__(self, index: int) -> dict[str, Any]:
    number = bisect.bisect_right(self._ends, index)
    first = self._ends[number - 1] if number else 0
    try:
      (data,) = self._readers[number].read([index - first])
      return schema.decode(self._features.deserialize_example_np(data))
    except (RuntimeError, ValueError, KeyError) as error:
      raise schema.DataError(f"record {index}: {error}") from None


def read_journal(
  path: pathlib.Path,
) -> tuple[list[dict[str, Any]], list[Outcome]]:
  """Returns the closed shards and the outcomes of a build; a cut line is left.

  Raises:
    OSError: there is no such file, or it is no regular file.
    ValueError: it is damaged.
  """
  shards, outcomes = [], []
  text = read_bytes(path).decode(errors="replace")
  for line in text.split("\n"):  # captions have U+2028
    try:
      entry = json.loads(line)
    except ValueError:
      continue
    try:
      shards += [entry["shard"]] if "shard" in entry else []
      outcomes += [Outcome(**item) for item in entry["items"]]
    except (TypeError, KeyError):
      raise ValueError(f"{path} has a line of another kind") from None
  return shards, outcomes


def disk_error(path: pathlib.Path, error: Exception | str) -> BuildError:
  """Returns an error that says what failed at `path` and how to continue."""
  full = isinstance(error, OSError) and error.errno == errno.ENOSPC
  text = "the disk is full" if full else f"cannot write: {error}"
  problem = " ".join(text.split())
  return BuildError(
    f"{path}: {problem}; finished shards are kept, so make room and start the "
    "same command again"
  )
