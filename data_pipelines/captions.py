"""Reads a table of captions and matches its rows to files.

The recognised columns and the rows that belong to no file, with reasons, are
returned for the user to see.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
import dataclasses
import os
import re
from typing import Any

from data_pipelines import audioset, caption_rows
from data_pipelines.caption_rows import Row, detect_columns
from data_pipelines.file_names import FileIndex
from data_pipelines.tables import Table, read_table, table_of
from v2a_jax.basics.paths import as_path

# Seconds of a stretch whose end is not given, as in AudioSet and VGGSound.
_FILM_SECONDS = 10.0
# Fields that a further row fills in where the first has nothing.
_FACTS = (
  "caption audio_caption transcript label tags licence source split".split()
)
_VGGSOUND = ("ytid", "start_seconds", "label", "split")


@dataclasses.dataclass(frozen=True)
class Captions:
  """A table matched to files.

  Attributes:
    rows: rows by file (relative path with forward slashes); several for a file
      if they are of different stretches.
    columns: columns of the table by the field that they fill, in order.
    ignored_columns: the other columns of the table.
    unmatched: (line, file name in the table, reason) of the rows not used.
    notes: what was guessed in reading the table, one line each.
  """

  rows: Mapping[str, Sequence[Row]]
  columns: Mapping[str, Sequence[str]]
  ignored_columns: Sequence[str]
  unmatched: Sequence[tuple[int, str, str]]
  notes: Sequence[str] = ()

  def describe(self) -> str:
    """Returns one line that names the column of each field."""
    mapping = ", ".join(
      f"{field} = {' else '.join(names)}"
      for field, names in self.columns.items()
    )
    ignored = ", ".join(self.ignored_columns)
    return f"columns: {mapping}" + (f" (ignored: {ignored})" * bool(ignored))


def read_captions(
  path: str | os.PathLike,
  files: Sequence[str],
  *,
  columns: Mapping[str, str] | None = None,
  labels: str | os.PathLike | None = None,
  by: str = "",
) -> Captions:
  """Reads a table and matches its rows to files.

  Several rows of a file give it several captions, or are of stretches of it.

  Args:
    path: table, see `tables.read_table`. AudioSet's and VGGSound's need no line
      that names the columns, nor do tables of a file and a caption.
    files: relative paths with forward slashes.
    columns: column by field; the others are found by their usual names.
    labels: names of AudioSet's classes, see `audioset.read_classes`.
    by: where captions and transcripts come from, if the table has no column of
      that; "" for the table's name.

  Raises:
    DataError: the table is missing or unreadable, has no column of file names,
      or `columns` or a split is unknown.
  """
  where, find = str(path), FileIndex(files)

  def without_header(rows: Sequence[Sequence[str]]) -> Sequence[str]:
    return () if columns else _guess_columns(rows, find)

  def ends_with_text(header: Sequence[str]) -> bool:
    found = detect_columns(header, overrides=columns or {}, where=where)
    return caption_rows.ends_with_text(header, found)

  table = read_table(
    path, without_header=without_header, ends_with_text=ends_with_text
  )
  mapping = detect_columns(table.header, overrides=columns or {}, where=where)
  classes = audioset.read_classes(path, labels)
  by = by or as_path(path).name
  return _match(table, mapping, find, where, classes, by)


def match_samples(
  archive: str,
  said: Sequence[Mapping[str, Any]],
  *,
  columns: Mapping[str, str] | None = None,
) -> Captions:
  """Makes rows of what an archive says of its clips, which are whole files.

  Args:
    archive: name of the archive, for messages.
    said: values by column; `file` is the name of the clip.
    columns: column by field, where the archive has that column.

  Raises:
    DataError: a split is unknown.
  """
  table = table_of(list(enumerate(said, start=1)), [], archive)
  given = {f: c for f, c in (columns or {}).items() if c in table.header}
  mapping = detect_columns(
    table.header, overrides=given | {"file": "file"}, where=archive
  )
  for field in ("start", "end"):
    mapping.pop(field, None)
  find = FileIndex([row["file"] for row in said])
  return _match(table, mapping, find, archive, audioset.Classes({}), archive)


def _match(
  table: Table,
  mapping: Mapping[str, Sequence[str]],
  find: FileIndex,
  where: str,
  classes: audioset.Classes,
  by: str,
) -> Captions:
  """Returns the rows of a table by the files that they are of."""
  rows: dict[str, list[Row]] = defaultdict(list)
  unmatched = []
  for number, cells in table.lines:
    names, row, problem = caption_rows.parse(
      number, cells, mapping, where=where, by=by
    )
    if not problem:
      file, row, problem = _find(find, names, row)
    if not problem:
      problem = _add(rows[file], classes.name(row))
    if problem:
      unmatched.append((number, names[0] if names else "", problem))
  used = {column for names in mapping.values() for column in names}
  ignored = [column for column in table.header if column not in used]
  rows = {file: stretches for file, stretches in rows.items() if stretches}
  notes = [*table.notes, *find.notes(), *_rows_in_texts(table, find)]
  notes += classes.notes()
  return Captions(rows, mapping, ignored, unmatched, notes)


def _rows_in_texts(table: Table, find: FileIndex) -> list[str]:
  """Returns a line on texts that seem to have a further row in them, or none."""
  found = []
  for number, cells in table.lines:
    for text in cells.values():
      for line in text.splitlines()[1:] if isinstance(text, str) else ():
        name, *rest = re.split("[\t;|,]", line)
        if rest and name.strip(' "') in find:
          found.append((number, name))
  if not found:
    return []
  number, name = found[0]
  return [
    f"texts with a line that begins with a file's name: {len(found)}, the first"
    f" in line {number} with {name}; is a quote before it not closed?"
  ]


def _guess_columns(
  rows: Sequence[Sequence[str]], find: FileIndex
) -> Sequence[str]:
  """Returns the columns of a table whose first row is not their names."""
  first = [cell.strip() for cell in rows[0]]
  if any(caption_rows.names_files(cell) for cell in first):
    return ()
  if len(first) == 4 and first[1].isdigit() and first[3] in ("train", "test"):
    return _VGGSOUND
  named = re.search(r"\w\.[A-Za-z]\w{1,3}$", first[0])
  if len(first) > 1 and (named or first[0] in find):
    return ("file", "caption")
  return ()


def _find(
  find: FileIndex, names: Sequence[str], row: Row
) -> tuple[str | None, Row, str]:
  """Returns the file of a row, the row with the times in it, and a problem."""
  if not row.of_film:
    file, problem = find(names[0])
    return file, row, problem
  start, end = row.start or 0.0, row.end
  for name in names:
    if file := find.part_of_film(name, start, end):
      # The file is the stretch.
      return file, dataclasses.replace(row, start=None, end=None), ""
  name = next((name for name in names if name in find), names[0])
  file, problem = find(name)
  if end is None and row.start is not None:
    row = dataclasses.replace(row, end=start + _FILM_SECONDS)
  return file, row, problem


def _add(rows: list[Row], row: Row) -> str:
  """Adds a row to those of its file; returns why it is not used, or ""."""
  for old in rows:
    # Parts of one recording in training and in test would be no test.
    if row.split and old.split and row.split != old.split:
      return (
        f"split {row.split}, but line {old.line} puts the file in {old.split}"
      )
  for place, old in enumerate(rows):
    if (old.start, old.end) == (row.start, row.end):
      rows[place] = _filled(old, row)
      if rows[place] == old:
        return "a second row for the same file (the first is used)"
      return ""
  rows.append(row)
  return ""


def _filled(old: Row, row: Row) -> Row:
  """Returns a row with the captions, and the facts that it lacks, of another."""
  facts = {f: getattr(row, f) for f in _FACTS if not getattr(old, f)}
  old = dataclasses.replace(old, **facts)
  known = {old.caption, old.audio_caption, *old.other_captions, ""}
  texts = (row.caption, row.audio_caption, *row.other_captions)
  new = [text for text in dict.fromkeys(texts) if text not in known]
  mine = {text for text, _, _ in old.said}
  said = [entry for entry in row.said if entry[0] not in mine]
  return dataclasses.replace(
    old,
    other_captions=(*old.other_captions, *new),
    said=(*old.said, *said),
  )


def combine(tables: Mapping[str, Captions]) -> Captions:
  """Joins tables by their names.

  Where two have a row for a file, or for the same stretch of it, the first
  table's has the captions of both, and of the second what it lacks. A later row
  without times does so for each stretch that the file has already.
  """
  if len(tables) == 1:
    (table,) = tables.values()
    return table
  rows: dict[str, list[Row]] = defaultdict(list)
  unmatched = []
  for name, table in tables.items():
    for file, own in table.rows.items():
      earlier = list(rows[file])
      for row in own:
        problem = ""
        if earlier and row.start is None and row.end is None:
          rows[file] = [_filled(old, row) for old in rows[file]]
        else:
          problem = _add(rows[file], row)
        if problem:
          unmatched.append((row.line, file, f"{problem}, in {name}"))
    for line, file, reason in table.unmatched:
      unmatched.append((line, file, f"{reason}, in {name}"))
  columns: dict[str, list[str]] = defaultdict(list)
  for table in tables.values():
    for field, names in table.columns.items():
      columns[field] += [n for n in names if n not in columns[field]]
  ignored = dict.fromkeys(c for t in tables.values() for c in t.ignored_columns)
  notes = [note for table in tables.values() for note in table.notes]
  return Captions(dict(rows), dict(columns), list(ignored), unmatched, notes)
