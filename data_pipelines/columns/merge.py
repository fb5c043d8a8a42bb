"""Merges annotations from files: tables, subtitles and Whisper's JSON.

A table (tables.py: CSV, JSON lines, Parquet) has a column that names the clip, by
its id or by the file that it was cut from, and columns of what is said of it.
`by` and `confidence` are columns too. Several rows of a clip are several
annotations. Subtitles (VTT, SRT) and Whisper's JSON are one file a clip, or a
film's from which clips were cut (`NAME_t00010000` begins at 10 s): they give
`transcript` and `words`. Subtitles say when a line is shown, not each word, so
words are spread over the line.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import html
import json
import os
import pathlib
import re
from typing import Any

from data_pipelines.assemble import Log
from data_pipelines.caption_rows import parse_seconds
from data_pipelines.columns import records, store
from data_pipelines.columns.values import BY, KINDS, ColumnError
from data_pipelines.file_names import FileIndex
from data_pipelines.schema import DataError
from data_pipelines.tables import read_table
from v2a_jax.basics.files import read_bytes
from v2a_jax.basics.paths import as_path, local_path
from v2a_jax.basics.text import did_you_mean

_CAPTIONS = ("caption", "audio_caption")
_NAMES = (
  "id",
  "file",
  "file_name",
  "filename",
  "path",
  "video",
  "audio",
  "name",
)
_SUBTITLES = (".vtt", ".srt", ".json")
# What `clips.extract` appends to the id of a stretch: its start in ms.
_STRETCH = re.compile(r"(.+)_t(\d{8})")
_TIMES = re.compile(r"([\d:]+[.,]\d+)\s*-->\s*([\d:]+[.,]\d+)")
_MARKS = re.compile(r"<[^>]*>|\{[^}]*\}")
_YES = {"true": True, "yes": True, "false": False, "no": False}
# What reading a file of another form raises.
_OF_ANOTHER_FORM = (
  *(ValueError, KeyError, TypeError, AttributeError),
  RecursionError,
)
_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Spoken:
  """Words between two times, seconds from the start of the film."""

  start: float
  end: float
  words: Sequence[Mapping[str, Any]]
  confidence: float | None = None


def merge(
  dataset: str | os.PathLike,
  path: str | os.PathLike,
  *,
  name: str | None = None,
  by: str = "",
  columns: Mapping[str, str] | None = None,
  log: Log = print,
) -> None:
  """Writes what a file, or a folder of them, says as columns.

  Rows of clips that the source has already are replaced.

  Args:
    dataset: folder of the data set.
    path: table or subtitles, or folder of subtitles.
    name: source that the columns are written to; None for the file's name.
    by: who says it, where the file does not; empty for `human`.
    columns: column of the table by the name that it is to have here.
    log: called with each line of the summary.

  Raises:
    DataError: a file cannot be read, or nothing in it is of a clip.
    ColumnError: a value is refused.
  """
  path = local_path(path, "the annotations")
  if not path.exists():
    raise DataError(f"no annotations at {path}")
  name = name or re.sub(r"[^a-z0-9_]+", "_", path.stem.lower()).strip("_")
  known = records.make_records(dataset)
  clips = _Clips(known)
  if path.is_dir() or path.suffix.lower() in (".vtt", ".srt"):
    rows = _of_subtitles(path, clips)
  elif path.suffix.lower() == ".json" and _is_whisper(path):
    rows = _of_subtitles(path, clips)
  else:
    rows = _of_table(path, clips, columns or {}, log)
  annotated = set()
  with store.Journal(dataset, name, fresh=True) as journal:
    for index, row in rows:
      row = {BY: by or "human"} | row
      try:
        journal.add(clips.ids[index], clips.hashes[index], row)
      except ColumnError as error:
        raise ColumnError(f"{path}: {clips.ids[index]}: {error}") from None
      annotated.add(index)
    if annotated:
      journal.finish()
  if clips.unknown:
    shown = ", ".join(clips.unknown[:_SHOWN])
    more = ", …" * (len(clips.unknown) > _SHOWN)
    log(f"{len(clips.unknown):,} names are of no clip: {shown}{more}")
  if not annotated:
    raise DataError(f"nothing in {path} is of a clip of {dataset}")
  log(
    f"{len(annotated):,} of {len(known):,} clips have annotations {name!r}:"
    f" config.data.annotations=('{name}',) reads their captions and words"
  )


class _Clips:
  """Finds the clips that a name means."""

  def __init__(self, known: records.Records):
    self.ids = known.table["id"].to_pylist()
    self.hashes = known.table["sha256"].to_pylist()
    self.seconds = known.table["duration"].to_pylist()
    self.unknown: list[str] = []
    self._exact = {id: i for i, id in enumerate(self.ids)}
    self._films: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for index, id in enumerate(self.ids):
      film, start = id, 0.0
      if match := _STRETCH.fullmatch(id):
        film, start = match[1], int(match[2]) / 1000
      self._films[film].append((index, start))
    self._find = FileIndex(list(self._films))

  def __call__(self, name: str) -> list[tuple[int, float]]:
    """Returns (index, start in seconds) of the clips of a name, [] if none."""
    if name in self._exact:
      return [(self._exact[name], 0.0)]
    path = pathlib.PurePosixPath(name.replace("\\", "/"))
    # The id of a file is its path with its slashes replaced.
    for form in (name, str(path), str(path.with_suffix(""))):
      id = re.sub(r"[^\w.\-]+", "_", form.replace("/", "__"))
      if id in self._films:
        return self._films[id]
    film, _ = self._find(path.stem)
    if film:
      return self._films[film]
    self.unknown.append(name)
    return []


def _of_table(
  path, clips: _Clips, columns: Mapping[str, str], log: Log
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields the rows of a table: index of the clip and its columns."""
  table = read_table(
    path,
    without_header=lambda rows: (),
    ends_with_text=_ends_with_caption,
  )
  for note in table.notes:
    log(note)
  names = {column: field for field, column in columns.items()}
  for column in names:
    if column not in table.header:
      raise DataError(
        f"{path} has no column {column!r}{did_you_mean(column, table.header)};"
        f" it has {', '.join(table.header)}"
      )
  fields = {c: names.get(c, _field(c)) for c in table.header}
  own = [c for c in table.header if fields[c] in _NAMES]
  if not own:
    raise DataError(
      f"{path}: no column names the clips among {', '.join(table.header)}; name"
      " it with --columns id=COLUMN"
    )
  own.sort(key=lambda column: _NAMES.index(fields[column]))
  used = {
    c: f for c, f in fields.items() if f not in (*_NAMES, "sha256", "key")
  }
  kinds = {
    column: _kind(field, (values[column] for _, values in table.lines))
    for column, field in used.items()
  }
  columns_of = Counter(used.values())
  kinds |= {c: "texts" for c, field in used.items() if columns_of[field] > 1}
  for _, values in table.lines:
    row: dict[str, Any] = {}
    for column, field in used.items():
      value = _converted(values[column], kinds[column])
      if value is not None:
        row[field] = row[field] + value if field in row else value
    for index, _ in clips(str(values[own[0]])):
      if values.get("sha256") in (None, "", clips.hashes[index]):
        yield index, row
      else:
        clips.unknown.append(f"{clips.ids[index]} (of other bytes)")


def _ends_with_caption(header: Sequence[str]) -> bool:
  """Says whether the last column is a caption, and no other is any text."""
  *others, last = map(_field, header)
  return last in _CAPTIONS and set(others) <= {*_NAMES, "sha256", "key"}


def _field(column: str) -> str:
  """Returns the name of a column here; that of `Captions` or `caption_2` too."""
  plain = _plain(column)
  name = re.sub(r"s?_?\d*$", "", plain)
  return name if name in _CAPTIONS else plain


def _plain(column: str) -> str:
  return re.sub(r"\W+", "_", column.strip().lower()).strip("_") or "column"


def _kind(field: str, values) -> str:
  """Returns what the texts of a column are: numbers, yes or no, texts."""
  found = [value for value in values if value not in ("", [])]
  if any(isinstance(value, list) for value in found):
    return "texts"
  if "text" in KINDS.get(field, ()):
    return "text"  # Such as the caption `1984`.
  if found and all(value.strip().lower() in _YES for value in found):
    return "yes or no"
  try:
    [float(value) for value in found]
  except ValueError:
    return "text"
  return "number"


def _converted(value, kind: str):
  """Returns a cell's value, None if it is empty."""
  if value in ("", []):
    return None
  if kind == "texts":
    return value if isinstance(value, list) else [value]
  if kind == "yes or no":
    return _YES[value.strip().lower()]
  return float(value) if kind == "number" else value


def _of_subtitles(
  path: pathlib.Path, clips: _Clips
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields transcript and words of each clip that the files are of."""
  files = [path]
  if path.is_dir():
    files = sorted(f for f in path.rglob("*") if f.suffix.lower() in _SUBTITLES)
    if not files:
      raise DataError(f"no {', '.join(_SUBTITLES)} file in {path}")
  for file in files:
    name = file.relative_to(path).as_posix() if path.is_dir() else file.name
    # `talk.en.vtt`, as downloaders write it, is of `talk`.
    found = clips(name)
    if not found and len(file.suffixes) > 1:
      clips.unknown.pop()
      found = clips(re.sub(r"\.[\w-]{2,8}$", "", file.with_suffix("").name))
    if not found:
      continue
    spoken = read_spoken(file)
    for index, start in found:
      row = _between(spoken, start, start + clips.seconds[index])
      if row:
        yield index, row


def _between(
  spoken: Sequence[Spoken], start: float, end: float
) -> dict[str, Any]:
  """Returns the columns of the words that begin between two times."""
  words, sure = [], []
  for part in spoken:
    own = [w for w in part.words if start <= w["start"] < end]
    words += [
      w
      | {
        "start": round(w["start"] - start, 3),
        "end": round(w["end"] - start, 3),
      }
      for w in own
    ]
    if part.confidence is not None:
      sure += [part.confidence] * len(own)
  if not words:
    return {}
  row = {"words": words, "transcript": " ".join(w["word"] for w in words)}
  if sure:
    row["confidence"] = min(max(sum(sure) / len(sure), 0.0), 1.0)
  return row


def read_spoken(path: str | os.PathLike) -> list[Spoken]:
  """Reads VTT, SRT or Whisper's JSON.

  Raises:
    DataError: it is none of these.
  """
  path = as_path(path)
  try:
    text = read_bytes(path).decode("utf-8-sig")
    if path.suffix.lower() == ".json":
      return _whisper(json.loads(text))
    return _subtitles(text)
  except OSError as error:
    raise DataError(f"cannot read {path}: {error}") from None
  except _OF_ANOTHER_FORM as error:
    kind = "Whisper's JSON" if path.suffix.lower() == ".json" else "subtitles"
    raise DataError(f"{path} is not {kind}: {error!r}") from None


def _subtitles(text: str) -> list[Spoken]:
  """Reads VTT or SRT; what has no time is skipped, as are repeated lines."""
  found: list[Spoken] = []
  before = ""
  for block in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n")):
    lines = block.strip().split("\n")
    times = next((i for i, line in enumerate(lines) if "-->" in line), None)
    if times is None:
      continue
    match = _TIMES.search(lines[times])
    if not match:
      raise ValueError(f"no times in {lines[times]!r}")
    start, end = (parse_seconds(t.replace(",", ".")) for t in match.groups())
    said = [
      html.unescape(_MARKS.sub("", line)).strip() for line in lines[times + 1 :]
    ]
    # Rolling captions show the line before once more.
    said = [line for line in said if line and line != before]
    if not said:
      continue
    before = said[-1]
    words = " ".join(said).split()
    step = max(end - start, 0.0) / len(words)
    timed = [
      {"word": w, "start": start + i * step, "end": start + (i + 1) * step}
      for i, w in enumerate(words)
    ]
    found.append(Spoken(start, end, timed))
  return found


def _is_whisper(path: pathlib.Path) -> bool:
  """Says whether a JSON file is an object with segments."""
  try:
    value = json.loads(read_bytes(path))
  except (ValueError, RecursionError):
    return False
  return isinstance(value, dict) and "segments" in value


def _whisper(value: Mapping[str, Any]) -> list[Spoken]:
  """Reads the JSON of openai-whisper, faster-whisper's tools or WhisperX."""
  found = []
  for segment in value["segments"]:
    start, end = float(segment["start"]), float(segment["end"])
    words = [
      {
        "word": str(word.get("word", word.get("text"))).strip(),
        "start": float(word.get("start", start)),
        "end": float(word.get("end", end)),
      }
      for word in segment.get("words") or ()
    ]
    sure = [
      float(word.get("probability", word.get("score")))
      for word in segment.get("words") or ()
      if word.get("probability", word.get("score")) is not None
    ]
    if not words:
      texts = str(segment["text"]).split()
      step = (end - start) / max(len(texts), 1)
      words = [
        {"word": w, "start": start + i * step, "end": start + (i + 1) * step}
        for i, w in enumerate(texts)
      ]
    found.append(
      Spoken(start, end, words, sum(sure) / len(sure) if sure else None)
    )
  return found
