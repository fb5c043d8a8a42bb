"""A split of a data set as training reads it: chosen clips with annotations.

The records stay what they are; what the columns say of one is put into it when
it is read.

  caption, audio_caption    further captions, of which training draws
  transcript, words         where the record has no transcript
  speech, music, effects    presence flags, where its tags do not tell

Of several transcripts the one of the highest confidence is taken, of equal ones
that of the source that is named first. The record's own texts are left out if
their confidence in `provenance` is below the least that is asked for.
"""

from collections.abc import Sequence
import os
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipelines.columns import admit as admit_lib
from data_pipelines.columns import provenance, store, values
from data_pipelines.columns.records import FOLDER, open_records
from data_pipelines.schema import PRESENCE_TAGS, DataError
from data_pipelines.source import Source, open_source

_CAPTIONS = ("audio_caption", "caption")
_USED = (*_CAPTIONS, "transcript", "words", *PRESENCE_TAGS)


class View:
  """Records of a source, chosen and annotated; can be pickled, as `Source`.

  Attributes:
    path: folder of the data set.
    split: name of the split.
  """

  def __init__(
    self,
    source: Source,
    indices: np.ndarray,
    rows: Sequence[tuple[str, np.ndarray, np.ndarray]],
    captions: Sequence[str],
    least: float,
    told: tuple[np.ndarray, np.ndarray] | None = None,
  ):
    """See `open_view`.

    Args:
      source: all records of the split.
      indices: those that are chosen, int [n].
      rows: name of each source of annotations, and of each record of the split
        its first row and the one after the last.
      captions: columns that give captions.
      least: least confidence, 0 to 1.
      told: of each record of the split its first row in `provenance` and the
        one after the last; None to keep all texts.
    """
    self.path, self.split = source.path, source.split
    self._source, self._indices, self._rows = source, indices, rows
    self._captions, self._least, self._told = captions, least, told
    self._opened: dict[str, store.Columns] = {}

  def __len__(self) -> int:
    return len(self._indices)

  def __getitem__(self, index: int) -> dict[str, Any]:
    index = self.origin(index)
    record = self._source[index]
    if self._told:
      self._leave_out(record, *(rows[index] for rows in self._told))
    said = [
      row
      for name, first, end in self._rows
      for row in self._of(name, first[index], end[index])
    ]
    return self._annotated(record, said) if said else record

  def origin(self, index: int) -> int:
    """Returns the index in the source of record `index`."""
    return int(self._indices[index])

  def __getstate__(self):
    return (
      *(self._source, self._indices, self._rows),
      *(self._captions, self._least, self._told),
    )

  def __setstate__(self, state):
    self.__init__(*state)

  def _of(self, name: str, first: int, end: int) -> list[dict[str, Any]]:
    """Returns the rows of a record by one source, those that are sure enough."""
    if first == end:
      return []
    table = self._table(name)
    used = [n for n in (*_USED, values.CONFIDENCE) if n in table.column_names]
    rows = table.select(used).slice(first, end - first).to_pylist()
    sure = lambda row: (
      row.get(values.CONFIDENCE) is None
      or (row[values.CONFIDENCE] >= self._least)
    )
    return [row for row in rows if sure(row)]

  def _table(self, name: str) -> pa.Table:
    if name not in self._opened:
      self._opened[name] = store.open_columns(self.path, name)
    return self._opened[name].table

  def _leave_out(self, record, first: int, end: int) -> None:
    """Takes texts out of a record that are not sure enough."""
    table = self._table(provenance.NAME)
    if first == end or values.CONFIDENCE not in table.column_names:
      return
    doubtful = {
      text
      for row in table.slice(first, end - first).to_pylist()
      if row[values.CONFIDENCE] is not None
      and row[values.CONFIDENCE] < self._least
      for text in row[provenance.TEXTS]
    }
    for field in (*_CAPTIONS, "transcript"):
      if record[field] in doubtful:
        record[field] = ""
    kept = [t for t in record["other_captions"] if t not in doubtful]
    record["other_captions"] = kept

  def _annotated(self, record, said) -> dict[str, Any]:
    own = [record[field] for field in _CAPTIONS] + record["other_captions"]
    texts = [
      text
      for row in said
      for name in self._captions
      for text in _texts(row.get(name))
      if text not in own
    ]
    record["other_captions"] = list(
      dict.fromkeys([*record["other_captions"], *texts])
    )
    spoken = [row for row in said if row.get("transcript") or row.get("words")]
    if spoken and not (record["transcript"] or record["words"]):
      # The first of the surest; unknown confidence is the lowest.
      best = max(spoken, key=lambda row: row.get(values.CONFIDENCE) or 0.0)
      words = values.read_words(best.get("words") or "[]")
      record["words"] = words
      record["transcript"] = best.get("transcript") or " ".join(
        word["word"] for word in words
      )
    record["presence"] = {
      name: row[name] >= 0.5
      for name in PRESENCE_TAGS
      for row in reversed(said)
      if row.get(name) is not None
    }
    return record


def open_view(
  path: str | os.PathLike,
  split: str,
  *,
  admit: str = "",
  annotations: Sequence[str] = (),
  captions: Sequence[str] = _CAPTIONS,
  least: float = 0.0,
) -> tuple[Source | View, str]:
  """Opens a split with what its columns choose and add.

  Args:
    path: folder of the data set.
    split: name of the split, or `all`.
    admit: expression over columns, see admit.py; empty for all records.
    annotations: names of the sources whose annotations are read.
    captions: fields that may serve as the prompt; columns of these names do.
    least: least confidence, 0 to 1, of annotations and of the record's own
      texts; those without one are kept.

  Returns:
    (the records, a line with counts of what is admitted, or "").

  Raises:
    DataError: the data set or a column is missing, or nothing is admitted.
    AdmitError: the expression cannot be followed.
  """
  source = open_source(path, split)
  told = least > 0 and provenance.NAME in store.sources(path)
  if not admit and not annotations and not told:
    return source, ""
  records = open_records(path)
  own, line = records.rows(split), ""
  indices = np.arange(len(source))
  if admit:
    expression = admit_lib.Expression(admit)
    find = admit_lib.columns_of(path, records)
    part = lambda name: find(name).slice(own.start, own.stop - own.start)
    found = expression(part, len(source))
    indices, line = np.flatnonzero(found.mask), f"{path}: {found.describe()}"
    if not len(indices):
      raise DataError(f"{line}; no clip is left to read")
  keys = records.keys[own]
  rows = [(name, *_checked(path, name).rows(keys)) for name in annotations]
  captions = [name for name in captions if name in _CAPTIONS]
  if told:
    told = store.open_columns(path, provenance.NAME).rows(keys)
  return View(source, indices, rows, captions, least, told or None), line


def _checked(path, name: str) -> store.Columns:
  """Opens annotations; raises DataError if they are not what is read of them."""
  columns = store.open_columns(path, name)
  for field in columns.table.schema:
    try:
      values.check_kind(field.name, values.kind_named(field.type))
    except values.ColumnError as error:
      raise DataError(
        f"{path}/{FOLDER}/{name}.arrow: {error}; make it again, with `v2a data"
        " annotate --merge`"
      ) from None
  return columns


def _texts(value: str | list[str] | None) -> list[str]:
  texts = [value] if isinstance(value, str) else value or []
  return [text.strip() for text in texts if text.strip()]
