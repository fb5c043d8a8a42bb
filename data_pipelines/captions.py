"""Reads a table of captions and matches its rows to files.

Columns are recognised by their names, which differ from table to table. The
recognised columns and the rows that belong to no file, with reasons, are
returned for the user to see.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
import csv
import dataclasses
import io
import math
import os
import pathlib
import re

from data_pipelines.schema import DataError
from v2a_jax.basics.files import read_bytes
from v2a_jax.basics.paths import as_path

# Names of the columns of each field, in order of preference.
COLUMNS: dict[str, tuple[str, ...]] = {
  field: tuple(names.split())
  for field, names in {
    "file": "file filename file_name path filepath file_path video video_path"
    " video_id audio audio_path clip name id",
    "caption": "caption video_caption prompt text description title",
    "audio_caption": "audio_caption sound_caption audio_description"
    " audio_prompt sound",
    "transcript": "transcript transcription speech spoken",
    "label": "label category class labels event",
    "tags": "tags tag",
    "licence": "licence license rights",
    "source": "source url origin",
    "split": "split subset partition fold",
    "start": "start start_time start_seconds onset begin",
    "end": "end end_time end_seconds offset stop",
  }.items()
}
# Fields that take the first value that is not empty from several columns.
_WITH_FALLBACK = ("file", "label")
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
    tags: kinds of sound; see `schema.presence`.
    split: train, val or test; "" to choose by a hash of the name.
    start: seconds at which the stretch begins; None for the file's start.
    end: seconds at which the stretch ends; None for the file's end.
  """

  line: int
  caption: str = ""
  audio_caption: str = ""
  transcript: str = ""
  label: str = ""
  tags: tuple[str, ...] = ()
  licence: str = ""
  source: str = ""
  split: str = ""
  start: float | None = None
  end: float | None = None


@dataclasses.dataclass(frozen=True)
class Captions:
  """A table matched to files.

  Attributes:
    rows: rows by file (relative path with forward slashes); several for a file
      if they are of different stretches.
    columns: columns of the table by the field that they fill, in order.
    ignored_columns: the other columns of the table.
    unmatched: (line, file name in the table, reason) of the rows not used.
  """

  rows: Mapping[str, Sequence[Row]]
  columns: Mapping[str, Sequence[str]]
  ignored_columns: Sequence[str]
  unmatched: Sequence[tuple[int, str, str]]

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
  """Reads a CSV (or TSV) file in UTF-8 and matches its rows to files.

  Args:
    path: table with a header.
    files: relative paths with forward slashes.
    columns: column by field, where detection by name would be wrong.

  Raises:
    DataError: the table is missing or unreadable, has no column of file names,
      or `columns` or a split is unknown.
  """
  path = as_path(path)
  header, lines = _read_table(path)
  mapping = detect_columns(header, overrides=columns or {}, where=str(path))
  find = _FileIndex(files)
  rows: dict[str, list[Row]] = defaultdict(list)
  unmatched = []
  for number, line in lines:
    name, row, problem = _parse(number, line, mapping, where=str(path))
    file, missing = find(name) if name else (None, "no file name")
    problem = problem or missing
    if not problem and any(
      (row.start, row.end) == (old.start, old.end) for old in rows[file]
    ):
      problem = "a second row for the same file (the first is used)"
    if problem:
      unmatched.append((number, name, problem))
    else:
      rows[file].append(row)
  used = {column for names in mapping.values() for column in names}
  ignored = [column for column in header if column not in used]
  rows = {file: stretches for file, stretches in rows.items() if stretches}
  return Captions(rows, mapping, ignored, unmatched)


def detect_columns(
  header: Sequence[str], *, overrides: Mapping[str, str], where: str
) -> dict[str, list[str]]:
  """Returns the columns that fill each field, `overrides` before detected ones.

  Raises:
    DataError: no column of file names, or an override does not exist.
  """
  plain = {re.sub(r"[\s\-]+", "_", c.strip().lower()): c for c in header}
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
  if "file" not in mapping:
    raise DataError(
      f"{where}: no column of file names among {', '.join(header)}; "
      "rename one to `file` or name it with --columns file=NAME"
    )
  return {field: mapping[field] for field in COLUMNS if field in mapping}


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


def _read_table(path: pathlib.Path):
  """Returns the header and (line number, value by column) of each row."""
  try:
    text = read_bytes(path).decode("utf-8-sig")
  except FileNotFoundError:
    raise DataError(f"no captions file {path}; name a CSV file") from None
  except (OSError, UnicodeDecodeError) as error:
    raise DataError(
      f"cannot read {path}: {error}; it should be a CSV file in UTF-8"
    ) from None
  first = text.split("\n", 1)[0]
  delimiter = max(",\t;|", key=first.count)
  reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
  try:
    header = [column for column in reader.fieldnames or () if column]
    # `line_num` is the line at which a row ends.
    lines = [(reader.line_num, line) for line in reader]
  except csv.Error as error:
    raise DataError(f"{path}, line {reader.line_num}: {error}") from None
  if not header:
    raise DataError(f"{path} is empty; its first line must name the columns")
  return header, lines


def _parse(number: int, line: Mapping, mapping: Mapping, *, where: str):
  """Returns a row's file name, the row, and a problem or ""."""
  values = {
    field: next(filter(None, ((line[n] or "").strip() for n in names)), "")
    for field, names in mapping.items()
  }
  name = values.pop("file")
  values["split"] = _split(values.get("split", ""), f"{where}, line {number}")
  values["tags"] = tuple(
    filter(None, re.split(r"[\s,;|\[\]\"']+", values.get("tags", "")))
  )
  problem = ""
  for field in ("start", "end"):
    try:
      values[field] = parse_seconds(values.get(field, ""))
    except ValueError:
      problem = f"{field} is not a time: {values[field]!r}"
      values[field] = None
  start, end = values["start"] or 0.0, values["end"]
  if end is not None and end <= start:
    problem = problem or f"end {end:g} s is not after start {start:g} s"
  return name, Row(line=number, **values), problem


def _split(text: str, where: str) -> str:
  """Returns the split that `text` means, "" for none."""
  for split, names in _SPLITS.items():
    if text.lower() in names:
      return split
  if text:
    raise DataError(f"{where}: split is {text!r}, not train, val or test")
  return ""


class _FileIndex:
  """Finds files by path, then by name, then by name without suffix."""

  def __init__(self, files: Sequence[str]):
    self._exact = {file: file for file in files}
    self._loose: dict[str, list[str]] = defaultdict(list)
    for file in files:
      path = pathlib.PurePosixPath(file)
      keys = {path.name, path.stem, str(path.with_suffix(""))}
      for key in keys - {file}:
        self._loose[key].append(file)

  def __call__(self, name: str) -> tuple[str | None, str]:
    """Returns the file and "", or None and the reason."""
    path = pathlib.PurePosixPath(name.replace("\\", "/"))
    # Paths may begin above or below the folder: drop leading parts.
    for skip in range(len(path.parts)):
      tail = "/".join(path.parts[skip:])
      if tail in self._exact:
        return tail, ""
    for skip in range(len(path.parts)):
      files = self._loose.get("/".join(path.parts[skip:]), [])
      if len(files) == 1:
        return files[0], ""
      if files:
        return None, f"{len(files)} files have this name, e.g. {files[0]}"
    return None, "no such file"
