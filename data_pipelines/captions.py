"""Reads a table of captions and matches its rows to files.

Columns are recognised by their names, which differ from table to table. The
recognised columns and the rows that belong to no file, with reasons, are
returned for the user to see.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
import dataclasses
import math
import os
import re
from typing import Any

from data_pipelines.file_names import FileIndex
from data_pipelines.schema import PRESENCE_TAGS, DataError
from data_pipelines.tables import Table, read_table, table_of

# Names of the columns of each field, in order of preference.
COLUMNS: dict[str, tuple[str, ...]] = {
  field: tuple(names.split())
  for field, names in {
    "file": "file filename file_name path filepath file_path video video_path"
    " video_id audio audio_path clip ytid youtube_id audiocap_id name id",
    "caption": "caption video_caption prompt text description title",
    "audio_caption": "audio_caption sound_caption audio_description"
    " audio_prompt sound",
    "transcript": "transcript transcription speech spoken",
    "label": "label category class labels positive_labels event",
    "tags": "tags tag keywords",
    "licence": "licence license rights",
    "source": "source url origin sound_link download_link href",
    "split": "split subset partition fold",
    "start": "start start_time start_seconds onset begin",
    "end": "end end_time end_seconds offset stop",
  }.items()
}
# Fields that take the first value that is not empty from several columns.
_WITH_FALLBACK = ("file", "label")
# Columns with the ids of films, or of stretches of them; from the films the
# files may have been cut.
_FILM_COLUMNS = ("ytid", "youtube_id", "audiocap_id")
# Seconds of a stretch whose end is not given, as in AudioSet and VGGSound.
_FILM_SECONDS = 10.0
# Fields of text that may have delimiters in it, and no other meaning.
_FREE_TEXT = ("caption", "audio_caption", "transcript", "label")
# Fields that a further row fills in where the first has nothing.
_FACTS = (
  "caption audio_caption transcript label tags licence source split".split()
)
_VGGSOUND = ("ytid", "start_seconds", "label", "split")
_SPLITS = {
  "train": ("train", "training"),
  "val": ("val", "valid", "validation", "dev"),
  "test": ("test", "testing", "eval", "evaluation"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """Captions and facts of one file, or of one stretch of it.

  Attributes:
    line: line of the table at which the row ends; 0 without a table.
    other_captions: further captions of the same stretch.
    tags: kinds of sound; see `schema.presence`.
    split: train, val or test; "" to choose by a hash of the name.
    start: seconds at which the stretch begins; None for the file's start.
    end: seconds at which the stretch ends; None for the file's end.
    of_film: whether the times are those of a film, of which the file may be no
      more than this stretch.
  """

  line: int
  caption: str = ""
  audio_caption: str = ""
  transcript: str = ""
  label: str = ""
  other_captions: tuple[str, ...] = ()
  tags: tuple[str, ...] = ()
  licence: str = ""
  source: str = ""
  split: str = ""
  start: float | None = None
  end: float | None = None
  of_film: bool = False


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
) -> Captions:
  """Reads a table and matches its rows to files.

  Several rows of a file give it several captions, or are of stretches of it.

  Args:
    path: table, see `tables.read_table`. AudioSet's and VGGSound's need no line
      that names the columns, nor do tables of a file and a caption.
    files: relative paths with forward slashes.
    columns: column by field, where detection by name would be wrong.

  Raises:
    DataError: the table is missing or unreadable, has no column of file names,
      or `columns` or a split is unknown.
  """
  where, find = str(path), FileIndex(files)

  def without_header(rows: Sequence[Sequence[str]]) -> Sequence[str]:
    return () if columns else _guess_columns(rows, find)

  def ends_with_text(header: Sequence[str]) -> bool:
    found = detect_columns(header, overrides=columns or {}, where=where)
    return any(header[-1] in found.get(field, ()) for field in _FREE_TEXT)

  table = read_table(
    path, without_header=without_header, ends_with_text=ends_with_text
  )
  mapping = detect_columns(table.header, overrides=columns or {}, where=where)
  return _match(table, mapping, find, where)


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
  return _match(table, mapping, find, archive)


def _match(
  table: Table,
  mapping: Mapping[str, Sequence[str]],
  find: FileIndex,
  where: str,
) -> Captions:
  """Returns the rows of a table by the files that they are of."""
  rows: dict[str, list[Row]] = defaultdict(list)
  unmatched = []
  for number, cells in table.lines:
    names, row, problem = _parse(number, cells, mapping, where=where)
    if not problem:
      file, row, problem = _find(find, names, row)
    if not problem:
      problem = _add(rows[file], row)
    if problem:
      unmatched.append((number, names[0] if names else "", problem))
  used = {column for names in mapping.values() for column in names}
  ignored = [column for column in table.header if column not in used]
  rows = {file: stretches for file, stretches in rows.items() if stretches}
  notes = [*table.notes, *find.notes()]
  return Captions(rows, mapping, ignored, unmatched, notes)


def _guess_columns(
  rows: Sequence[Sequence[str]], find: FileIndex
) -> Sequence[str]:
  """Returns the columns of a table whose first row is not their names."""
  first = [cell.strip() for cell in rows[0]]
  if any(_plain(cell) in COLUMNS["file"] for cell in first):
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
  return dataclasses.replace(old, other_captions=(*old.other_captions, *new))


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


def detect_columns(
  header: Sequence[str], *, overrides: Mapping[str, str], where: str
) -> dict[str, list[str]]:
  """Returns the columns that fill each field, `overrides` before detected ones.

  Raises:
    DataError: no column of file names, or an override does not exist.
  """
  plain = {_plain(column): column for column in header}
  mapping: dict[str, list[str]] = {}
  for field, column in overrides.items():
    if field not in COLUMNS or column not in header:
      raise DataError(
        f"{where}: cannot take {field!r} from column {column!r}; fields are "
        f"{', '.join(COLUMNS)}; columns are {', '.join(header)}"
      )
    mapping[field] = [column]
  for field, names in COLUMNS.items():
    taken = {c for columns in mapping.values() for c in columns}
    own = [plain[n] for n in names if n in plain and plain[n] not in taken]
    if own and field not in mapping:
      mapping[field] = own if field in _WITH_FALLBACK else own[:1]
  if "caption" not in overrides:
    numbered = [c for c in header if re.fullmatch(r"captions?_?\d+", _plain(c))]
    if columns := mapping.get("caption", []) + numbered:
      mapping["caption"] = columns
  if "file" not in mapping:
    raise DataError(
      f"{where}: no column of file names among {', '.join(header)}; "
      "rename one to `file` or name it with --columns file=NAME"
    )
  return {field: mapping[field] for field in COLUMNS if field in mapping}


def _plain(column: str) -> str:
  return re.sub(r"[\s\-]+", "_", column.strip().lower())


def parse_seconds(text: str) -> float | None:
  """Reads "12.5" or "1:02:03.5" as seconds; returns None for an empty text.

  Raises:
    ValueError: the text is neither, or negative.
  """
  if not text:
    return None
  seconds = 0.0
  for part in map(float, text.split(":")):
    if math.copysign(1.0, part) < 0 or not math.isfinite(part):
      raise ValueError(text)
    seconds = seconds * 60 + part
  return seconds


def _parse(
  number: int,
  cells: Mapping[str, str | list[str]],
  mapping: Mapping[str, Sequence[str]],
  *,
  where: str,
) -> tuple[list[str], Row, str]:
  """Returns a row's file name, the row, and a problem or "".

  Of a stretch of a film there may be several names.
  """
  values = {
    field: [
      (column, text) for column in columns for text in _texts(cells, column)
    ]
    for field, columns in mapping.items()
  }
  named = values.pop("file")
  of_film = bool(named) and _plain(named[0][0]) in _FILM_COLUMNS
  films = [text for column, text in named if _plain(column) in _FILM_COLUMNS]
  names = films if of_film else [text for _, text in named[:1]]
  tags = [text for _, text in values.pop("tags", ())]
  captions = [text for _, text in values.pop("caption", ())]
  found = {field: own[0][1] if own else "" for field, own in values.items()}
  found["split"] = _split(found.get("split", ""), f"{where}, line {number}")
  problem = "" if names else "no file name"
  for field in ("start", "end"):
    try:
      found[field] = parse_seconds(found.get(field, ""))
    except ValueError:
      problem = f"{field} is not a time: {found[field]!r}"
      found[field] = None
  start, end = found["start"] or 0.0, found["end"]
  if end is not None and end <= start:
    problem = problem or f"end {end:g} s is not after start {start:g} s"
  row = Row(
    line=number,
    caption=captions[0] if captions else "",
    other_captions=tuple(dict.fromkeys(captions))[1:],
    tags=tuple(tag for text in tags for tag in _tags(text)),
    of_film=of_film,
    **found,
  )
  return names, row, problem


def _texts(cells: Mapping[str, str | list[str]], column: str) -> list[str]:
  """Returns the texts of a cell that are not empty."""
  value = cells.get(column, "")
  texts = value if isinstance(value, list) else [value]
  return [text.strip() for text in texts if text.strip()]


def _tags(text: str) -> list[str]:
  """Returns the tags of a cell, between commas, semicolons or bars."""
  tags = [tag.strip(" []\"'") for tag in re.split("[,;|]", text)]
  tags = [tag for tag in tags if tag]
  words = text.split()
  if len(tags) == 1 and all(word.lower() in PRESENCE_TAGS for word in words):
    return words  # `speech music`: there is no such kind of sound.
  return tags


def _split(text: str, where: str) -> str:
  """Returns the split that `text` means, "" for none."""
  for split, names in _SPLITS.items():
    if text.lower() in names:
      return split
  if text:
    raise DataError(f"{where}: split is {text!r}, not train, val or test")
  return ""
