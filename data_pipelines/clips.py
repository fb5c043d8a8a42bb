"""Turns one media file into the records of its clips, or reasons why not.

clip_file.py reads the media; this file cuts, names, splits and captions them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
import dataclasses
import errno
import hashlib
import math
import pathlib
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines import schema
from data_pipelines.archives import Member, file_of
from data_pipelines.assemble import Item, drop
from data_pipelines.caption_rows import Row
from data_pipelines.clip_file import ClipFile, ClipOptions
from data_pipelines.readings import Readings
from data_pipelines.writer import Outcome
from v2a_jax import media
from v2a_jax.basics.files import sha256_of
from v2a_jax.basics.paths import is_remote

if TYPE_CHECKING:
  from v2a_jax.basics.store import StorePath

# Fraction by which a file's last clip may be longer than `max_seconds`: files
# that were cut "to 10 s" last 10.03 s.
_STRETCH = 0.05
# A file at most this many times as long as a stretch of its film is the stretch.
_FILM_PART = 1.1
# Fields of a record that a row of captions fills.
_ROW_TEXTS = "caption audio_caption transcript label licence source".split()


def clip_names(files: Sequence[str]) -> dict[str, str]:
  """Returns a unique id of each file: its path as a name without suffix."""
  stem = lambda file: str(pathlib.PurePosixPath(file).with_suffix(""))
  plain = {
    file: re.sub(r"[^\w.\-]+", "_", stem(file).replace("/", "__"))
    for file in files
  }
  counts = Counter(plain.values())
  return {
    file: name if counts[name] == 1 else f"{name}-{_hash(file)[:8]}"
    for file, name in plain.items()
  }


def split_of(name: str, *, val: float, test: float) -> str:
  """Returns the split of a file, by a hash of its name.

  Adding files to a folder thus moves no other file to another split.
  """
  place = int(_hash(name)[:8], 16) / 2**32
  if place < test:
    return "test"
  return "val" if place < test + val else "train"


def clip_facts(
  record: Mapping[str, Any],
  said: Sequence[tuple[str, str, float | None]] = (),
) -> dict[str, Any]:
  """Returns what a build remembers of a record that it has written.

  Args:
    record: see `schema`.
    said: see `caption_rows.Row`.
  """
  texts = [record["caption"], record["audio_caption"], record["transcript"]]
  texts += record["other_captions"]
  texts, known = [text for text in texts if text], {t: e for t, *e in said}
  return {
    "id": record["id"],
    "split": record["split"],
    "seconds": float(np.float32(record["duration"])),  # as it is stored
    "captioned": any(texts[:2]),
    "texts": texts,
    # Who says each text, and how sure that is.
    **({"said": [known.get(t) for t in texts]} if known else {}),
  }


def stretches(
  duration: float, rows: Sequence[Row], max_seconds: float
) -> list[tuple[float, float, Row]]:
  """Divides a file of `duration` seconds into clips, sorted (start, end, row).

  Clips last `max_seconds`, the last one up to 5 % longer; 0 leaves each row's
  stretch whole. Times are cut at the file's end.
  """
  clips = []
  for row in rows:
    start = row.start or 0.0
    end = duration if row.end is None else min(row.end, duration)
    if row.of_film and row.end and duration <= (row.end - start) * _FILM_PART:
      start, end = 0.0, duration  # The file is the stretch, not the film.
    length = end - start
    count = 1
    if max_seconds:
      count = max(math.ceil(length / max_seconds - _STRETCH), 1)
    cuts = [start + i * max_seconds for i in range(count)] + [end]
    clips += [(a, b, row) for a, b in zip(cuts, cuts[1:])]
  return sorted(clips, key=lambda clip: clip[:2])


def extract(
  file: str,
  *,
  directory: "pathlib.Path | StorePath",
  names: Mapping[str, str],
  rows: Mapping[str, Sequence[Row]],
  members: Mapping[str, Member],
  options: ClipOptions,
  earlier: Readings = Readings(),  # noqa: B008
) -> Item:
  """Returns the outcome and records of one file; its faults become drops.

  Args:
    file: path relative to `directory`, or name of a member.
    directory: folder of the files.
    names: id by file.
    rows: rows of the captions table by file.
    members: those of the files that are in archives.
    options: how the file is cut and stored.
    earlier: what earlier builds with the same `options.of_media` have read.

  Raises:
    OSError: an object store does not answer, or the disk of temporary files is
      full, which are no faults of the file.
  """
  sha256, clips = "", _Clips()
  own = rows.get(file) or [Row(line=0)]
  try:
    with file_of(directory, file, members) as path:
      sha256 = sha256_of(path)
      source = ClipFile(path, options, earlier.find(path, sha256))
      _read_clips(source, names[file], sha256, own, options, clips)
  except media.MediaError as error:
    clips.drops.append(drop("unreadable", error.reason))
  except OSError as error:
    if _is_passing(error, directory):
      raise
    clips.drops.append(drop("unreadable", error.strerror or str(error)))
  drops, facts = clips.drops, clips.facts
  if not facts:
    # The whole file is dropped, for the first of its reasons.
    drops = [drops[0] | {"start": None, "end": None}]
  outcome = Outcome(
    key=file,
    sha256=sha256,
    clips=facts,
    drops=drops,
    notes=[note for part in clips.parts for note in part.get("notes", ())],
    seconds=clips.seconds,
    parts=clips.parts,
  )
  return outcome, clips.records


@dataclasses.dataclass
class _Clips:
  """What `_read_clips` fills in; see `Outcome`."""

  records: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  facts: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  drops: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  parts: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  seconds: float | None = None


def _read_clips(file: ClipFile, name, sha256, rows, options, clips: _Clips):
  """Fills in `clips` with what the stretches of a file give."""
  clips.seconds, refused = file.check()
  if refused:
    clips.parts.append(refused)
    clips.drops.append(drop(refused["reason"], refused["detail"]))
    return
  split = next((row.split for row in rows if row.split), "") or split_of(
    name, val=options.val_fraction, test=options.test_fraction
  )
  cuts = stretches(clips.seconds, rows, options.max_seconds)
  for start, end, row in cuts:
    try:
      content, part = file.read(start, end)
    except media.MediaError as error:
      # The rest is dropped too: each further clip may take its full time.
      clips.drops.append(drop("unreadable", error.reason, start=start))
      return
    clips.parts.append(part)
    if not content:
      reason = part["reason"], part["detail"]
      clips.drops.append(drop(*reason, start=start, end=end))
      continue
    whole = len(cuts) == 1 and start == 0 and end == clips.seconds
    record = schema.make_record(
      id=name if whole else f"{name}_t{round(start * 1000):08d}",
      tags=list(row.tags),
      other_captions=list(row.other_captions),
      split=split,
      sha256=sha256,
      **{field: getattr(row, field) for field in _ROW_TEXTS},
      **content,
    )
    clips.records.append(record)
    clips.facts.append(clip_facts(record, row.said))


def _is_passing(error: OSError, directory) -> bool:
  """Says whether reading a file again, later, may go well."""
  if error.errno in (errno.ENOSPC, errno.EDQUOT):
    return True
  return is_remote(directory) and not isinstance(error, FileNotFoundError)


def _hash(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()
