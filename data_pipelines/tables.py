"""Reads a table as people have it: CSV of any kind, JSON lines or Parquet.

What a file is, is seen from its contents, not from its name.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
import csv
import dataclasses
import io
import json
import os
import re
from typing import Any

from data_pipelines.schema import DataError
from v2a_jax.basics.files import read_bytes
from v2a_jax.basics.paths import as_path

_DELIMITERS = "\t;|,"


@dataclasses.dataclass(frozen=True)
class Table:
  """A table: what its first line or its keys name, and rows.

  Attributes:
    header: names of the columns.
    lines: (line number, value by column) of each row. A value is text, or a
      list of texts where the file has lists; missing ones are "".
    notes: what was guessed or put right in reading, one line each.
  """

  header: Sequence[str]
  lines: Sequence[tuple[int, Mapping[str, str | list[str]]]]
  notes: Sequence[str] = ()


def read_table(
  path: str | os.PathLike,
  *,
  without_header: Callable[[Sequence[Sequence[str]]], Sequence[str]],
  ends_with_text: Callable[[Sequence[str]], bool],
) -> Table:
  """Reads a table.

  Args:
    path: CSV with a comma, semicolon, tab or bar between its cells, in UTF-8,
      UTF-16 or Windows-1252; JSON objects, one a line or in one list; Parquet.
    without_header: given the first rows of a CSV, returns the names of its
      columns if none of these rows names them, or nothing.
    ends_with_text: given the names of the columns, says whether the last one,
      and no other, may have delimiters in it; then it has all that is left
      where a row has too many cells.

  Raises:
    DataError: it cannot be read; names the line.
  """
  path = as_path(path)
  try:
    data = read_bytes(path)
  except FileNotFoundError:
    raise DataError(f"no captions file {path}; name a CSV file") from None
  except OSError as error:
    raise DataError(f"cannot read {path}: {error}") from None
  if data.startswith(b"PAR1"):
    return _parquet(data, str(path))
  text, notes = _decode(data, str(path))
  if text.lstrip()[:1] in ("{", "["):
    return _json(text, str(path), notes)
  return _csv(text, str(path), notes, without_header, ends_with_text)


def _decode(data: bytes, where: str) -> tuple[str, list[str]]:
  """Returns the text, and a note if its encoding was guessed."""
  encoding, notes = "utf-8-sig", []
  if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
    encoding = "utf-16"
  try:
    text = data.decode(encoding)
  except UnicodeDecodeError as error:
    try:
      text = data.decode("cp1252")
    except UnicodeDecodeError:
      raise DataError(
        f"cannot read {where}: {error}; save it as a CSV file in UTF-8"
      ) from None
    notes = ["the table is not in UTF-8 and was read as Windows-1252"]
  if "\0" in text:
    raise DataError(
      f"cannot read {where}: it has zero bytes; save it as a CSV file in UTF-8"
    )
  return text, notes


def _csv(
  text: str,
  where: str,
  notes: list[str],
  without_header: Callable[[Sequence[Sequence[str]]], Sequence[str]],
  ends_with_text: Callable[[Sequence[str]], bool],
) -> Table:
  delimiter, rows = _rows(text, where)
  header = [] if not rows else [cell.strip() for cell in rows[0][1]]
  while header and not header[-1]:
    header.pop()
  if not header:
    raise DataError(f"{where} is empty; its first line must name the columns")
  if names := without_header([row for _, row in rows[:20]]):
    notes.append(f"no line names the columns; taken for {', '.join(names)}")
    header = list(names)
  else:
    rows = rows[1:]
  twice = [name for name, n in Counter(filter(None, header)).items() if n > 1]
  if twice:
    raise DataError(f"{where}: two columns are called {twice[0]}; rename one")
  lines, joined = [], []
  for number, row in rows:
    while len(row) > len(header) and not row[-1].strip():
      row = row[:-1]
    if len(row) > len(header):
      if not ends_with_text(header):
        raise DataError(
          f"{where}, line {number}: {len(row)} cells in {len(header)} columns:"
          f' put text that holds a {delimiter!r} in quotes, such as "a{delimiter}'
          ' b"'
        )
      keep = len(header) - 1
      row = [*row[:keep], delimiter.join(row[keep:])]
      joined.append(number)
    cells = dict(zip(header, row)) | dict.fromkeys(header[len(row) :], "")
    cells.pop("", None)
    lines.append((number, cells))
  if joined:
    notes.append(
      f"rows with too many cells: {len(joined)}, the first in line {joined[0]};"
      f" their {header[-1]} was taken to the end of the line"
    )
  return Table([name for name in header if name], lines, notes)


def _rows(text: str, where: str) -> tuple[str, list[tuple[int, list[str]]]]:
  """Returns the delimiter and (number of its last line, cells) of each row.

  Takes the delimiter from Excel's `sep=;`, if it is there. Comments are left
  out, but for AudioSet's last, which names the columns.
  """
  skipped, sep = 0, ""
  lines = text.splitlines(keepends=True)
  if lines and lines[0].lower().startswith("sep=") and len(lines[0]) > 4:
    sep, skipped = lines[0][4], 1
  comments = skipped
  while comments < len(lines) and lines[comments].startswith("#"):
    comments += 1
  if comments > skipped and _names_columns(lines[comments - 1]):
    comments -= 1
    lines[comments] = lines[comments].lstrip("# ")
  skipped, body = comments, "".join(lines[comments:])
  delimiter = sep or _delimiter(body.split("\n", 20)[:20])
  # Spaces between a closing quote and the end of its cell are nobody's text.
  body = re.sub(rf'" +(?=[{re.escape(delimiter)}\r\n]|$)', '"', body)
  reader = csv.reader(
    io.StringIO(body, newline=""),
    delimiter=delimiter,
    # `a, "b, c"`: a quote after a space is a quote too.
    skipinitialspace=f'{delimiter} "' in body,
    # A quote that is not closed would take further rows into its cell.
    strict=True,
  )
  rows, end = [], skipped
  try:
    for row in reader:
      end = skipped + reader.line_num
      if any(map(str.strip, row)):
        rows.append((end, row))
  except csv.Error as error:
    reason = str(error)
    if "end of data" in reason or "expected after" in reason:
      reason = (
        "a quote that opens in this row does not close at the end of a cell;"
        ' close it, and write quotes in a text twice: "a ""b"" c"'
      )
    raise DataError(f"{where}, line {end + 1}: {reason}") from None
  return delimiter, rows


def _delimiter(lines: Sequence[str]) -> str:
  """Returns the delimiter that is in most lines, and most often in the first."""
  return max(
    _DELIMITERS,
    key=lambda x: (sum(x in line for line in lines), lines[0].count(x)),
  )


def _names_columns(comment: str) -> bool:
  """Says whether a comment is of words with commas between, as AudioSet's is."""
  cells = comment.lstrip("# ").split(",")
  return len(cells) > 1 and all(len(cell.split()) == 1 for cell in cells)


def _json(text: str, where: str, notes: list[str]) -> Table:
  """Reads JSON objects: one a line, or a list of them, as in WavCaps."""
  try:
    if text.lstrip().startswith("["):
      found = list(enumerate(json.loads(text), start=1))
    elif rows := _wavcaps(text):
      found = list(enumerate(rows, start=1))
    else:
      lines = enumerate(text.split("\n"), start=1)
      found = [(n, json.loads(line)) for n, line in lines if line.strip()]
  except (ValueError, RecursionError) as error:
    raise DataError(
      f"cannot read {where}: {error}; write one JSON object a line"
    ) from None
  for number, row in found:
    if not isinstance(row, dict):
      raise DataError(f"{where}, row {number} is not a JSON object")
  return table_of(found, notes, where)


def _wavcaps(text: str) -> list[dict[str, Any]]:
  """Returns the rows of a table of WavCaps, or none of another.

  It is one object with the rows as its `data`. Files have the names of their
  ids, unless somebody has put paths in place of `wav_path`.
  https://huggingface.co/datasets/cvssp/WavCaps
  """
  if '"num_captions_per_audio"' not in text:
    return []
  try:
    rows = json.loads(text)["data"]
    named = [row.get("audio", "wav_path") != "wav_path" for row in rows]
    return [
      row | {"file": row["audio"] if path else row["id"]}
      for row, path in zip(rows, named)
    ]
  except (ValueError, KeyError, TypeError, AttributeError):
    return []


def _parquet(data: bytes, where: str) -> Table:
  # Here, because only this needs it.
  import pyarrow as pa
  from pyarrow import parquet

  try:
    rows = parquet.read_table(io.BytesIO(data)).to_pylist()
  except (pa.ArrowException, OSError, ValueError) as error:
    line = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise DataError(f"cannot read {where}: {line}") from None
  return table_of(list(enumerate(rows, start=1)), [], where)


def table_of(
  rows: Sequence[tuple[int, Mapping[str, Any]]], notes: list[str], where: str
) -> Table:
  """Makes a table of rows that name their columns themselves."""
  header = list(dict.fromkeys(str(key) for _, row in rows for key in row))
  if not header:
    raise DataError(f"{where} is empty; it has no row")
  lines = [
    (
      number,
      dict.fromkeys(header, "") | {str(k): _cell(v) for k, v in row.items()},
    )
    for number, row in rows
  ]
  return Table(header, lines, notes)


def _cell(value: Any) -> str | list[str]:
  """Returns a value as text; of lists that of each entry, of objects JSON."""
  if isinstance(value, list | tuple):
    if any(isinstance(item, Mapping) for item in value):
      return json.dumps(value, ensure_ascii=False, default=str)
    return [str(item) for item in value if item is not None]
  return "" if value is None else str(value)
