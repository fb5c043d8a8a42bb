"""Columns of a data set by their source: one file for whoever made them.

`columns/NAME.arrow` has rows of `key`, `id`, `sha256` and what NAME says of that
record: numbers, yes or no, text, or several texts. `by` says who (`human`,
`alt text`, `model@version`), `confidence` in 0..1 how sure. A record may have
several rows, from several people. Rows are sorted by key (`records.key_of`), so
a record that was built anew from other bytes has none.

While columns are made, rows are added to `columns/NAME.jsonl`, line by line, so
that whatever ends the process, it goes on from there.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import json
import math
import os
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.columns import arrow, sorting
from data_pipelines.columns import values as values_lib
from data_pipelines.columns.records import FOLDER, RECORDS, key_of
from data_pipelines.columns.values import ERROR, ColumnError
from data_pipelines.manifest import fingerprint
from data_pipelines.schema import DataError
from v2a_jax.basics import files
from v2a_jax.basics.growing import open_append
from v2a_jax.basics.paths import as_path, is_remote
from v2a_jax.basics.text import did_you_mean

# What every row has besides its columns.
IDENTITY = ("key", "id", "sha256")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


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


def copy(
  dataset: str | os.PathLike, other: str | os.PathLike, name: str
) -> None:
  """Copies the columns of a source to another data set, in place of its own.

  Raises:
    DataError: there is no such source.
    OSError: the other's folder cannot be written.
  """
  arrow.write(
    as_path(other) / FOLDER / f"{name}.arrow", open_columns(dataset, name).table
  )


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
      again: leave the records of its Arrow file out of `done`.
      fresh: begin without them, and without the rows of an interrupted run. If
        this run does not `finish`, its rows are removed.

    Raises:
      ColumnError: the name is no name, or a file has values of other kinds, as
        another program may have written them.
      DataError: the Arrow file or the journal is damaged.
      OSError: the folder cannot be written.
    """
    folder = as_path(dataset) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    self._arrow = folder / f"{check_name(name)}.arrow"
    self._path = folder / f"{name}.jsonl"
    self._types: dict[str, str] = {}
    self._fresh = fresh
    before = arrow.read(self._arrow)
    self.done: set[int] = set()
    if before is not None:
      for field in before.schema:
        if field.name not in IDENTITY:
          kind = values_lib.kind_named(field.type)
          if kind not in values_lib.TYPES:
            raise ColumnError(
              f"{self._arrow}: {field.name} is {kind}, not one of"
              f" {', '.join(values_lib.TYPES)}; remove the file or mend it"
            )
          self._types[field.name] = kind
      if not (again or fresh):
        kept = before
        if ERROR in before.column_names:
          kept = before.filter(pc.is_null(before[ERROR]))
        self.done.update(kept["key"].to_pylist())
    if fresh:
      self._path.unlink(missing_ok=True)
    try:
      for row in map(json.loads, self._lines()):
        for column, value in _values(row).items():
          self._types.setdefault(column, values_lib.kind_of(value))
        if ERROR not in row:
          self.done.add(key_of(row["id"], row["sha256"]))
    except (ValueError, TypeError, KeyError, AttributeError):
      raise DataError(
        f"{self._path} is damaged; remove it, and its rows are made again"
      ) from None
    self._file = open_append(self._path)

  def __enter__(self) -> "Journal":
    return self

  def __exit__(self, *_):
    self._file.close()
    if self._fresh:
      self._path.unlink(missing_ok=True)

  def add(self, id: str, sha256: str, values: Mapping[str, Any]) -> None:
    """Adds a row. Lists of objects are kept as JSON, None and NaN left out.

    Raises:
      ColumnError: a value is of no kind, or of another than the column's.
      OSError: the disk is full.
    """
    row = {
      k: values_lib.checked(k, v) for k, v in values.items() if _is_there(v)
    }
    kinds = {k: values_lib.kind_of(v) for k, v in row.items()}
    for column, kind in kinds.items():
      check_name(column)
      if column in IDENTITY:
        raise ColumnError(f"{column!r} names the record, not a column")
      known = self._types.get(column, kind)
      if kind != known:
        raise ColumnError(
          f"{column} is {known} in other rows of {self._arrow.stem}, but {kind}"
          f" here: {str(row[column])[:60]!r}"
        )
    self._types |= kinds
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
    fields += [
      (name, values_lib.TYPES[kind]) for name, kind in self._types.items()
    ]
    schema = pa.schema(fields)
    before = arrow.read(self._arrow) if keep else None
    size = sum(map(len, self._lines()))
    room = None if is_remote(self._path) else self._path.parent
    with (
      sorting.Sorter(schema, size, room) as rows,
      arrow.writing(self._arrow, schema) as write,
    ):
      for line in self._lines():
        row = json.loads(line)
        row["key"] = key_of(row["id"], row["sha256"])
        rows.add(row, len(line))
      for first, last, new in rows.parts():
        if before is not None:
          new = _replaced(before, new, first, last)
        write(new)
    self._path.unlink(missing_ok=True)
    return arrow.read(self._arrow)

  def _lines(self) -> Iterator[bytes]:
    """Yields the lines of the journal; a last line that was cut off is ended."""
    if not self._path.is_file():
      return
    with files.open_binary(self._path) as file:
      end = 0
      for line in file:
        if not line.endswith(b"\n"):
          break
        end += len(line)
        yield line
      else:
        return
    with files.written(self._path) as part:
      with files.open_binary(self._path) as file, open(part, "wb") as whole:
        whole.write(file.read(end))


def _replaced(
  before: pa.Table, new: pa.Table, first: int, last: int
) -> pa.Table:
  """Returns new rows, and those of before of keys from `first` to `last` that
  no new row has, sorted by key."""
  keys = before["key"].to_numpy()
  start = np.searchsorted(keys, np.uint64(first))
  stop = np.searchsorted(keys, np.uint64(last), side="right")
  old = before.slice(start, stop - start)
  stays = pc.invert(pc.is_in(old["key"], new["key"].combine_chunks()))
  joined = pa.concat_tables([old.filter(stays), new], promote_options="default")
  return sorting.by_key(joined.select(new.column_names))


def _is_there(value: Any) -> bool:
  return value is not None and not (
    isinstance(value, float) and math.isnan(value)
  )


def _values(row: Mapping[str, Any]) -> dict[str, Any]:
  return {k: v for k, v in row.items() if k not in IDENTITY}
