"""Columns of a data set by their source: one file for whoever made them.

`columns/NAME.arrow` has rows of `key`, `id`, `sha256` and what NAME says of that
record: numbers, yes or no, text, or several texts. `by` says who (`human`,
`alt text`, `model@version`), `confidence` in 0..1 how sure. A record may have
several rows, from several people. Rows are sorted by key (`records.key_of`), so
a record that was built anew from other bytes has none.

While columns are made, rows are added to `columns/NAME.jsonl`, line by line, so
that whatever ends the process, it goes on from there.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import functools
import json
import math
import os
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.columns import arrow
from data_pipelines.columns.records import FOLDER, RECORDS, key_of
from data_pipelines.manifest import fingerprint
from data_pipelines.schema import DataError
from v2a_jax.basics import files
from v2a_jax.basics.growing import open_append
from v2a_jax.basics.paths import as_path
from v2a_jax.basics.text import did_you_mean

# What every row has besides its columns.
IDENTITY = ("key", "id", "sha256")
BY, CONFIDENCE, ERROR = "by", "confidence", "error"
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_BATCH = 50_000
_TYPES = {
  "yes or no": pa.bool_(),
  "number": pa.float64(),
  "text": pa.string(),
  "texts": pa.list_(pa.string()),
}


class ColumnError(ValueError):
  """A row or a name that is refused; one line: which, why."""


@dataclasses.dataclass(frozen=True)
class Columns:
  """What one source says, matched to records.

  Attributes:
    name: name of the source.
    table: its rows, sorted by key.
  """

  name: str
  table: pa.Table

  @property
  def names(self) -> list[str]:
    """Names of the columns, without those that identify the record."""
    own = IDENTITY
    return [name for name in self.table.column_names if name not in own]

  def rows(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first row, and the one after the last, of each record.

    They are equal where it has none.
    """
    own = self.table["key"].to_numpy()
    return np.searchsorted(own, keys), np.searchsorted(own, keys, side="right")

  def values(self, name: str, keys: np.ndarray) -> pa.ChunkedArray:
    """Returns the value of each record: that of its last row, or null."""
    first, end = self.rows(keys)
    places = pa.array(end - 1, pa.int64(), mask=first == end)
    return self.table[name].take(places)


def check_name(name: str) -> str:
  """Returns the name of a source or a column.

  Raises:
    ColumnError: it is not lower-case letters, digits and underscores.
  """
  if not _NAME.fullmatch(name) or name == RECORDS:
    raise ColumnError(
      f"{name!r} is no name: write lower-case letters, digits and _, such as"
      " whisper_large"
    )
  return name


def sources(dataset: str | os.PathLike) -> list[str]:
  """Lists the names of a data set's sources."""
  folder = as_path(dataset) / FOLDER
  if not folder.is_dir():
    return []
  names = [path.name for path in folder.iterdir()]
  names = [n.removesuffix(".arrow") for n in names if n.endswith(".arrow")]
  return sorted(
    name for name in names if _NAME.fullmatch(name) and name != RECORDS
  )


def digest(dataset: str | os.PathLike) -> str:
  """Returns the sha256 of all columns of a data set, "" without any."""
  names, folder = sources(dataset), as_path(dataset) / FOLDER
  digests = {n: files.sha256_of(folder / f"{n}.arrow") for n in names}
  return fingerprint(digests) if digests else ""


def open_columns(dataset: str | os.PathLike, name: str) -> Columns:
  """Opens the columns of a source.

  Raises:
    DataError: there is no such source.
  """
  table = arrow.read(as_path(dataset) / FOLDER / f"{name}.arrow")
  if table is None:
    known = sources(dataset)
    raise DataError(
      f"{dataset} has no columns {name!r}{did_you_mean(name, known)}: there are"
      f" {', '.join(known) or 'none'}; make them with `v2a data measure` or"
      " `v2a data annotate`"
    )
  return Columns(name, table)


class Journal:
  """Adds rows of a source, line by line; a context manager.

  Attributes:
    done: keys of the records that have a row without an error, from before or
      from an interrupted run.
  """

  def __init__(
    self,
    dataset: str | os.PathLike,
    name: str,
    *,
    again: bool = False,
    fresh: bool = False,
  ):
    """Opens the journal, or continues that of an interrupted run.

    Args:
      dataset: folder of the data set.
      name: name of the source.
      again: leave what is in its Arrow file out of `done`.
      fresh: leave out an interrupted run, too, and forget it.

    Raises:
      ColumnError: the name is no name.
      OSError: the folder cannot be written.
    """
    folder = as_path(dataset) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    self._arrow = folder / f"{check_name(name)}.arrow"
    self._path = folder / f"{name}.jsonl"
    self._types: dict[str, str] = {}
    before = arrow.read(self._arrow)
    self.done: set[int] = set()
    if before is not None:
      for field in before.schema:
        if field.name not in IDENTITY:
          self._types[field.name] = _type_named(field.type)
      if not (again or fresh):
        kept = before
        if ERROR in before.column_names:
          kept = before.filter(pc.is_null(before[ERROR]))
        self.done.update(kept["key"].to_pylist())
    if fresh:
      self._path.unlink(missing_ok=True)
    for row in self._lines():
      for column, value in _values(row).items():
        self._types.setdefault(column, _type_of(value))
      if ERROR not in row:
        self.done.add(key_of(row["id"], row["sha256"]))
    self._file = open_append(self._path)

  def __enter__(self) -> "Journal":
    return self

  def __exit__(self, *_):
    self._file.close()

  def add(self, id: str, sha256: str, values: Mapping[str, Any]) -> None:
    """Adds a row. Lists of objects are kept as JSON, None and NaN left out.

    Raises:
      ColumnError: a value is of no type, or of another than the column's.
      OSError: the disk is full.
    """
    row = {k: _plain(k, v) for k, v in values.items() if _is_there(v)}
    for column, value in row.items():
      check_name(column)
      if column in IDENTITY:
        raise ColumnError(f"{column!r} names the record, not a column")
      kind = _type_of(value)
      known = self._types.setdefault(column, kind)
      if kind != known:
        raise ColumnError(
          f"{column} is {known} elsewhere, here {kind}: {str(value)[:60]!r}"
        )
    confidence = row.get(CONFIDENCE, 0.0)
    if not isinstance(confidence, float) or not 0 <= confidence <= 1:
      raise ColumnError(f"confidence={confidence!r} is not in [0, 1]")
    line = {"id": id, "sha256": sha256, **row}
    self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
    if ERROR not in row:
      self.done.add(key_of(id, sha256))

  def finish(self, *, keep: bool = True) -> pa.Table:
    """Writes the Arrow file and removes the journal.

    Rows of a record replace those that the Arrow file had of it; `keep` keeps
    its other rows.
    """
    self._file.close()
    fields = [
      ("key", pa.uint64()),
      ("id", pa.string()),
      ("sha256", pa.string()),
    ]
    fields += [(name, _TYPES[kind]) for name, kind in self._types.items()]
    schema = pa.schema(fields)
    parts, rows = [], []
    for row in self._lines():
      rows.append({"key": key_of(row["id"], row["sha256"]), **row})
      if len(rows) == _BATCH:
        parts.append(pa.Table.from_pylist(rows, schema))
        rows = []
    parts.append(pa.Table.from_pylist(rows, schema))
    new = pa.concat_tables(parts)
    before = arrow.read(self._arrow) if keep else None
    if before is not None:
      stays = pc.invert(pc.is_in(before["key"], new["key"].combine_chunks()))
      new = pa.concat_tables(
        [before.filter(stays), new], promote_options="default"
      ).select(schema.names)
    # Stable: the rows of a record stay in their order.
    order = np.argsort(new["key"].to_numpy(), kind="stable")
    new = new.take(pa.array(order)).combine_chunks()
    arrow.write(self._arrow, new)
    self._path.unlink(missing_ok=True)
    return new

  def _lines(self) -> Iterator[dict[str, Any]]:
    """Yields the rows of the journal; a last line that was cut off is ended."""
    if not self._path.is_file():
      return
    data = files.read_bytes(self._path)
    if data and not data.endswith(b"\n"):
      data = data[: data.rfind(b"\n") + 1]
      files.write_whole(self._path, data)
    for line in data.splitlines():
      yield json.loads(line)


def _is_there(value: Any) -> bool:
  return value is not None and not (
    isinstance(value, float) and math.isnan(value)
  )


def _plain(column: str, value: Any) -> Any:
  """Returns bool, float, text or a list of texts.

  Raises:
    ColumnError: it is something else.
  """
  if isinstance(value, bool | np.bool_):
    return bool(value)
  if isinstance(value, int | float | np.number):
    if not math.isfinite(value):
      raise ColumnError(f"{column}={value!r} is not finite")
    return float(value)
  if isinstance(value, str):
    return value
  if isinstance(value, Sequence):
    if all(isinstance(item, str) for item in value):
      return list(value)
    if all(isinstance(item, Mapping) for item in value):
      return json.dumps(value, ensure_ascii=False)
  raise ColumnError(
    f"{column} is {type(value).__name__}, not a number, yes or no, text, or a"
    f" list of texts: {str(value)[:60]!r}"
  )


def _type_of(value: Any) -> str:
  kinds = {bool: "yes or no", float: "number", str: "text", list: "texts"}
  return kinds[type(value)]


@functools.cache
def _type_named(kind: pa.DataType) -> str:
  return next(name for name, known in _TYPES.items() if known == kind)


def _values(row: Mapping[str, Any]) -> dict[str, Any]:
  return {k: v for k, v in row.items() if k not in IDENTITY}
