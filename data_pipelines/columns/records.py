"""The records of a data set without their media: who is who, in order.

`columns/records.arrow` has a row for each record, in the order in which the
data set is read, so that columns can be matched to records, and clips chosen,
without reading shards. A build writes it; for a data set without it, such as one
of an earlier version, it is made by reading all records once.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import os
import pathlib
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipelines.columns import arrow
from data_pipelines.manifest import fingerprint, read_manifest
from data_pipelines.schema import DataError
from data_pipelines.source import open_source
from v2a_jax.basics.paths import as_path
from v2a_jax.basics.progress import Progress

FOLDER, RECORDS = "columns", "records"
_DIGEST = b"records_of"
SCHEMA = pa.schema(
  [
    ("key", pa.uint64()),  # See `key_of`.
    *((name, pa.string()) for name in ("id", "sha256", "split")),
    ("duration", pa.float64()),
    *((name, pa.string()) for name in ("label", "licence", "source")),
    ("tags", pa.list_(pa.string())),
    # Number of captions, and whether there are words, picture and sound.
    ("captions", pa.int64()),
    *((name, pa.bool_()) for name in ("transcript", "picture", "sound")),
  ]
)


@dataclasses.dataclass(frozen=True)
class Records:
  """All records of a data set, those of the first split first.

  Attributes:
    path: folder of the data set.
    table: columns of `SCHEMA`.
    splits: number of records by split, in their order.
  """

  path: os.PathLike
  table: pa.Table
  splits: Mapping[str, int]

  def __len__(self) -> int:
    return self.table.num_rows

  @property
  def keys(self) -> np.ndarray:
    """Key of each record, uint64 [n]; see `key_of`."""
    return self.table["key"].to_numpy()

  def rows(self, split: str) -> slice:
    """Returns the rows of a split, or of `all`."""
    first = 0
    for name, count in self.splits.items():
      if name == split:
        return slice(first, first + count)
      first += count
    return slice(0, first)


def key_of(id: str, sha256: str) -> int:
  """Returns a number for the name and the bytes of a record, below 2^64.

  Among 10 million records two get the same one with probability 3e-6.
  """
  text = f"{id}\0{sha256}".encode()
  return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")


def open_records(path: str | os.PathLike) -> Records:
  """Reads `columns/records.arrow`.

  Raises:
    DataError: it is missing, or of an earlier build of the data set.
  """
  path = as_path(path)
  manifest = read_manifest(path)
  table = arrow.read(path / FOLDER / f"{RECORDS}.arrow")
  if table is None or _digest_of(table) != _digest(manifest):
    what = "has no columns" if table is None else "was built since its columns"
    raise DataError(
      f"{path} {what}: run `v2a data columns {path}`, which makes them fit"
    )
  return Records(path, table, manifest["splits"])


def make_records(path: str | os.PathLike, *, keep: bool = True) -> Records:
  """Reads `columns/records.arrow`, or makes it from the data set's records.

  Args:
    path: folder of the data set.
    keep: whether to write what was made.

  Raises:
    DataError: the data set is missing or cannot be read.
    OSError: its folder cannot be written.
  """
  path = as_path(path)
  manifest = read_manifest(path)
  table = arrow.read(path / FOLDER / f"{RECORDS}.arrow")
  if table is not None and _digest_of(table) == _digest(manifest):
    return Records(path, table, manifest["splits"])
  source = open_source(path, "all")
  progress = Progress(len(source), "records", unit="records")
  parts, rows = [], []
  for index in range(len(source)):
    rows.append(row_of(source[index]))
    if len(rows) == 10_000 or index == len(source) - 1:
      parts.append(pa.Table.from_pylist(rows, SCHEMA))
      rows = []
    progress.update()
  progress.close()
  table = _of(manifest, parts)
  if keep:
    arrow.write(path / FOLDER / f"{RECORDS}.arrow", table)
  return Records(path, table, manifest["splits"])


def write_records(
  path: pathlib.Path, manifest: Mapping[str, Any], parts: Sequence[pa.Table]
) -> None:
  """Writes `columns/records.arrow` of a data set that is being finished.

  Args:
    path: folder of the data set.
    manifest: its manifest, with shards and splits.
    parts: rows of each shard, in the manifest's order.

  Raises:
    OSError: the disk is full.
  """
  arrow.write(path / FOLDER / f"{RECORDS}.arrow", _of(manifest, parts))


def _of(manifest: Mapping[str, Any], parts: Sequence[pa.Table]) -> pa.Table:
  """Returns one table that says of which data set it is."""
  table = pa.concat_tables(parts or [SCHEMA.empty_table()])
  return table.replace_schema_metadata({_DIGEST: _digest(manifest)})


def row_of(record: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the row of a record; see `SCHEMA`."""
  row = {name: record[name] for name in SCHEMA.names if name in record}
  own = (record["audio_caption"], record["caption"])
  return row | {
    "key": key_of(record["id"], record["sha256"]),
    "captions": sum(map(bool, own)) + len(record["other_captions"]),
    "transcript": bool(record["transcript"] or record["words"]),
    "picture": bool(record["video"]),
    "sound": bool(record["audio"]),
  }


def _digest(manifest: Mapping[str, Any]) -> str:
  return fingerprint([manifest["shards"], manifest["splits"]])


def _digest_of(table: pa.Table) -> str:
  return (table.schema.metadata or {}).get(_DIGEST, b"").decode()
