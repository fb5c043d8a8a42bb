"""Spoken words with their times, from files of subtitles or of a recogniser.

SubRip (.srt) and WebVTT (.vtt) have cues, a line or two of text with a start
and an end; their words follow one another in it in proportion to their letters,
unless WebVTT gives single times (`<00:00:01.500>`). Whisper's JSON
(https://github.com/openai/whisper) has segments, and with `word_timestamps`
every word's own times. A plain list of {"word", "start", "end"?} is read, too.
"""

from collections.abc import Iterator
import html
import json
import re
from typing import Any

_TIME = r"(?:(\d+):)?(\d{1,2}):(\d{2})[.,](\d{3})"
_CUE = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}")
_STAMP = re.compile(rf"<{_TIME}>")
_MARKUP = re.compile(r"<[^>]*>|\{\\[^}]*\}")

Word = dict[str, Any]  # {"word", "start", "end"}


class TranscriptError(ValueError):
  """A text has no spoken words with times."""


def parse(text: str) -> tuple[Word, ...]:
  """Reads words with times from SubRip, WebVTT or JSON.

  Returns:
    Entries {"word", "start", "end"} in seconds, by their start; "end" may be
    missing in JSON.

  Raises:
    TranscriptError: it is of none of these forms, or has no word.
  """
  text = text.lstrip("\ufeff")
  try:
    found = (
      _json(json.loads(text)) if text.lstrip()[:1] in "[{" else _cues(text)
    )
    words = sorted(found, key=lambda word: word["start"])
  except (KeyError, TypeError, AttributeError, RecursionError) as error:
    raise TranscriptError(f"has an entry without {error}") from None
  except json.JSONDecodeError as error:
    raise TranscriptError(f"is no JSON ({error})") from None
  if not words:
    raise TranscriptError("has no spoken words with times (SRT, VTT or JSON)")
  return tuple(words)


def _json(value: Any) -> Iterator[Word]:
  if isinstance(value, dict):
    value = value["segments"]
  for entry in value:
    if "word" in entry:
      end = {"end": float(entry["end"])} if entry.get("end") else {}
      start = float(entry["start"])
      yield {"word": entry["word"].strip(), "start": start} | end
    elif entry.get("words"):
      yield from _json(entry["words"])
    else:
      start, end = float(entry["start"]), float(entry["end"])
      yield from _spread(entry["text"], start, end)


def _cues(text: str) -> Iterator[Word]:
  lines = text.splitlines()
  for index, line in enumerate(lines):
    found = _CUE.match(line)
    if not found:
      continue
    start, end = _seconds(found.groups()[:4]), _seconds(found.groups()[4:])
    spoken = []
    for following in lines[index + 1 :]:
      if not following.strip() or _CUE.match(following):
        break
      spoken.append(following)
    # [text, hours, minutes, seconds, thousandths, text, …]
    first, *rest = _STAMP.split("\n".join(spoken))
    stamps = [_seconds(rest[i : i + 4]) for i in range(0, len(rest), 5)]
    times = [start, *stamps, end]
    for part, begin, until in zip([first, *rest[4::5]], times, times[1:]):
      yield from _spread(part, begin, until)


def _seconds(parts) -> float:
  hours, minutes, seconds, thousandths = (int(part or 0) for part in parts)
  return round(hours * 3600 + minutes * 60 + seconds + thousandths / 1000, 3)


def _spread(text: str, start: float, end: float) -> Iterator[Word]:
  """Lays the words of a text out in time, longer ones for longer."""
  words = html.unescape(_MARKUP.sub("", text)).split()
  lengths = [len(word) + 1 for word in words]
  passed = 0
  for word, length in zip(words, lengths):
    at = lambda share: round(start + (end - start) * share / sum(lengths), 3)
    yield {"word": word, "start": at(passed), "end": at(passed + length)}
    passed += length
