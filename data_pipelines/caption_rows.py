"""What a row of a table of captions says: its columns, and their values.

Columns are recognised by their names, which differ from table to table.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
import re

from data_pipelines.schema import PRESENCE_TAGS, DataError

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
    "by": "by annotator captioner said_by",
    "confidence": "confidence",
  }.items()
}
# Fields that take the first value that is not empty from several columns.
_WITH_FALLBACK = ("file", "label")
# Columns with the ids of films, or of stretches of them; from the films the
# files may have been cut.
_FILM_COLUMNS = ("ytid", "youtube_id", "audiocap_id")
# Fields of text that may have delimiters in it, and no other meaning.
_FREE_TEXT = ("caption", "audio_caption", "transcript", "label")
# Fields whose values have none: part of a text in their place is noticed.
_EXACT = ("file", "split", "start", "end", "confidence")
# Fields of which there may be several, in numbered columns or in lists.
_CAPTIONS = ("caption", "audio_caption")
_MOST_SECONDS = 1e9  # 30 years: more is no time in a recording.
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
    said: (text, who says it, confidence in 0..1 or None) of each caption and of
      the transcript.
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
  said: tuple[tuple[str, str, float | None], ...] = ()


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
    if field in _CAPTIONS:
      named = lambda column: re.sub(r"s?_?\d*$", "", _plain(column))
      free = [column for column in header if column not in taken]
      name = next((n for n in names if n in map(named, free)), "")
      own = [column for column in free if named(column) == name]
    if own and field not in mapping:
      several = field in (*_WITH_FALLBACK, *_CAPTIONS)
      mapping[field] = own if several else own[:1]
  if "file" not in mapping:
    raise DataError(
      f"{where}: no column of file names among {', '.join(header)}; "
      "rename one to `file` or name it with --columns file=NAME"
    )
  return {field: mapping[field] for field in COLUMNS if field in mapping}


def ends_with_text(
  header: Sequence[str], mapping: Mapping[str, Sequence[str]]
) -> bool:
  """Says whether the last column is text, and no other may have delimiters.

  Args:
    header: names of the columns.
    mapping: the columns of each field, by `detect_columns`.
  """
  of = lambda fields: {c for field in fields for c in mapping.get(field, ())}
  return header[-1] in of(_FREE_TEXT) and of(_EXACT).issuperset(header[:-1])


def names_files(column: str) -> bool:
  """Says whether a column's name is one of those of file names."""
  return _plain(column) in COLUMNS["file"]


def _plain(column: str) -> str:
  return re.sub(r"[\s\-]+", "_", column.strip().lower())


def parse_seconds(text: str) -> float | None:
  """Reads "12.5" or "1:02:03.5" as seconds; returns None for an empty text.

  Raises:
    ValueError: the text is neither, negative, or 1e9 s and more.
  """
  if not text:
    return None
  seconds = 0.0
  for part in map(float, text.split(":")):
    if math.copysign(1.0, part) < 0 or not math.isfinite(part):
      raise ValueError(text)
    seconds = seconds * 60 + part
  if seconds >= _MOST_SECONDS:
    raise ValueError(text)
  return seconds


def parse(
  number: int,
  cells: Mapping[str, str | list[str]],
  mapping: Mapping[str, Sequence[str]],
  *,
  where: str,
  by: str = "",
) -> tuple[list[str], Row, str]:
  """Returns the file names of a row, the row, and why it is not used or "".

  Args:
    number: line of the table at which the row ends.
    cells: its value by column.
    mapping: the columns of each field, by `detect_columns`.
    where: name of the table, for messages.
    by: where its texts come from, if it has no column of that.

  Returns:
    (names of the file, of which a stretch of a film may have several; the row;
    the reason).

  Raises:
    DataError: its split is unknown.
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
  captions, heard = (
    [text for _, text in values.pop(field, ())] for field in _CAPTIONS
  )
  firsts = (*captions[:1], *heard[:1])
  further = dict.fromkeys(
    text for text in captions + heard if text not in firsts
  )
  found = {}
  for field, own in values.items():
    # Of several columns the first that says something, of a list all.
    texts = [text for column, text in own if column == own[0][0]]
    found[field] = (" " if field == "transcript" else ", ").join(texts)
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
  by = found.pop("by", "") or by
  confidence, sure = found.pop("confidence", ""), None
  try:
    sure = _share(confidence)
  except ValueError:
    problem = f"confidence is not a number from 0 to 1: {confidence!r}"
  texts = dict.fromkeys([*captions, *heard, found.get("transcript", "")])
  row = Row(
    line=number,
    caption=captions[0] if captions else "",
    audio_caption=heard[0] if heard else "",
    other_captions=tuple(further),
    tags=tuple(tag for text in tags for tag in _tags(text)),
    of_film=of_film,
    said=tuple((text, by, sure) for text in texts if text),
    **found,
  )
  return names, row, problem


def _share(text: str) -> float | None:
  """Reads a number from 0 to 1; returns None for an empty text.

  Raises:
    ValueError: the text is something else.
  """
  if not text:
    return None
  if not 0 <= float(text) <= 1:
    raise ValueError(text)
  return float(text)


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
