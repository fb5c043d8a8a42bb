"""One media file becomes the records of its clips, or reasons why not.

The file is read in the media sandbox: a process that may be killed, with caps
on time, memory, pixels and duration. What is stored is ours or harmless: the
file's own bytes only where they decoded without trouble.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import math
import pathlib
import re
from typing import Any, NamedTuple

import numpy as np

from data_pipelines import schema
from data_pipelines.assemble import Made, drop
from data_pipelines.captions import Row
from data_pipelines.manifest import file_sha256
from data_pipelines.writer import Outcome
from v2a_jax import media

# A file this much longer than `max_seconds` stays whole: clips that were cut
# "to 10 s" last 10.03.
_STRETCH = 1.05
# Original bytes are kept up to this size: more is not what a clip needs.
_KEEP_BYTES = 32 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipOptions:
  """How files are cut, stored and split.

  Attributes:
    short_side: pixels; H.264 up to this size is kept as it is, everything
      else is encoded anew, made smaller if need be.
    max_fps: frames a second of what is encoded anew.
    max_seconds: longer files become several clips; 0 leaves them whole.
    min_seconds: shorter clips are dropped.
    max_sample_rate: Hz; higher rates are resampled.
    allow_audio_only: keep clips without pictures.
    allow_video_only: keep clips without a sound track (nothing can be
      learned from them; they are for generating).
    val_fraction: of the files, by a hash of their names; the table's `split`
      goes first. All clips of a file are in one split.
    test_fraction: likewise.
    file_seconds: time that reading one clip of a file may take.
  """

  short_side: int = 256
  max_fps: float = 30.0
  max_seconds: float = 10.0
  min_seconds: float = 0.1
  max_sample_rate: int = 48_000
  allow_audio_only: bool = False
  allow_video_only: bool = False
  val_fraction: float = 0.05
  test_fraction: float = 0.05
  file_seconds: float = 25.0


class _Refused(Exception):
  """A clip that is not kept: (reason, detail)."""


def clip_names(files: Sequence[str]) -> dict[str, str]:
  """Ids for files: their paths without ending, safe as file names, unique."""
  plain = {
    file: re.sub(
      r"[^\w.\-]+",
      "_",
      str(pathlib.PurePosixPath(file).with_suffix("")).replace("/", "__"),
    )
    for file in files
  }
  counts = Counter(plain.values())
  return {
    file: name if counts[name] == 1 else f"{name}-{_hash(file)[:8]}"
    for file, name in plain.items()
  }


def split_of(name: str, *, val: float, test: float) -> str:
  """The split of a file, by a hash of its name: adding files moves none."""
  place = int(_hash(name)[:8], 16) / 2**32
  if place < test:
    return "test"
  return "val" if place < test + val else "train"


def clip_facts(record: Mapping[str, Any]) -> dict[str, Any]:
  """What the build remembers of a record that it has written."""
  texts = [record["caption"], record["audio_caption"], record["transcript"]]
  return {
    "id": record["id"],
    "split": record["split"],
    "seconds": record["duration"],
    "captioned": any(texts[:2]),
    "texts": [text for text in texts if text],
  }


def stretches(
  duration: float, rows: Sequence[Row], max_seconds: float
) -> list[tuple[float, float, Row]]:
  """(start, end, row) of each clip of a file, in order.

  Args:
    duration: seconds of the file.
    rows: what the table says; their times are cut at the file's end.
    max_seconds: upper bound of a clip; 0 for none.
  """
  found = []
  for row in rows:
    start = row.start or 0.0
    end = duration if row.end is None else min(row.end, duration)
    length = end - start
    count = 1
    if max_seconds:
      count = max(math.ceil(length / max_seconds / _STRETCH), 1)
    cuts = [start + i * max_seconds for i in range(count)] + [end]
    found += [(a, b, row) for a, b in zip(cuts, cuts[1:])]
  return sorted(found, key=lambda clip: clip[:2])


def extract(
  file: str,
  *,
  directory: pathlib.Path,
  names: Mapping[str, str],
  rows: Mapping[str, Sequence[Row]],
  options: ClipOptions,
) -> Made:
  """Reads one file; never raises for what is wrong with the file.

  Args:
    file: path relative to `directory`.
    directory: of all files.
    names: file -> id.
    rows: file -> what the table says.
    options: how it is cut and stored.

  Returns:
    The outcome, and a record for each of its clips.
  """
  path, sha256 = directory / file, ""
  found = _Found([], [], [])
  try:
    sha256 = file_sha256(path)
    name = names[file]
    _read_clips(
      path, name, sha256, rows.get(file) or [Row(line=0)], options, found
    )
  except _Refused as refused:
    found.drops.append(drop(*refused.args))
  except media.MediaError as error:
    found.drops.append(drop("unreadable", error.reason))
  except OSError as error:
    found.drops.append(drop("unreadable", error.strerror or str(error)))
  drops = found.drops
  if not found.records:
    # The whole file is dropped, for the first of its reasons.
    drops = [drops[0] | {"start": None, "end": None}]
  outcome = Outcome(
    key=file,
    sha256=sha256,
    clips=[clip_facts(record) for record in found.records],
    drops=drops,
    notes=found.notes,
  )
  return outcome, found.records


class _Found(NamedTuple):
  records: list[dict[str, Any]]
  drops: list[dict[str, Any]]
  notes: list[str]


def _read_clips(
  path: pathlib.Path,
  name: str,
  sha256: str,
  rows: Sequence[Row],
  options: ClipOptions,
  found: _Found,
) -> None:
  """Appends to `found` what the file's clips give."""
  info = media.probe_limited(path, limits=_limits(options))
  if not info.has_video and not options.allow_audio_only:
    raise _Refused("no video", "only sound; keep it with --allow_audio_only")
  if not info.has_audio and not options.allow_video_only:
    raise _Refused("no audio", "no sound track; --allow_video_only keeps it")
  clips = stretches(info.duration, rows, options.max_seconds)
  for start, end, row in clips:
    try:
      content, notes = _read_media(path, info, start, end, options)
    except _Refused as refused:
      found.drops.append(drop(*refused.args, start=start, end=end))
      continue
    except media.MediaError as error:
      # What comes after damage is not tried: each try may take its full time.
      found.drops.append(drop("unreadable", error.reason, start=start))
      return
    whole = len(clips) == 1 and not row.start and row.end is None
    split = row.split or split_of(
      name, val=options.val_fraction, test=options.test_fraction
    )
    record = schema.make_record(
      id=name if whole else f"{name}_t{round(start * 1000):08d}",
      caption=row.caption,
      audio_caption=row.audio_caption,
      transcript=row.transcript,
      tags=list(row.tags),
      label=row.label,
      licence=row.licence,
      source=row.source,
      split=split,
      sha256=sha256,
      **content,
    )
    found.records.append(record)
    found.notes.extend(notes)


def _read_media(
  path: pathlib.Path,
  info: media.MediaInfo,
  start: float,
  end: float,
  options: ClipOptions,
) -> tuple[dict[str, Any], list[str]]:
  """Video, audio and duration of one clip, and notes to be counted."""
  if end - start < options.min_seconds:
    raise _Refused("too short", f"{end - start:.3f} s")
  keep = _may_keep(path, info, start, end, options)
  # Bytes that are kept are decoded all the same, small, to be sure of them.
  size = (32, 32) if keep else _fit(info, options.short_side)
  clip = media.read_clip(
    path,
    start=start,
    # To the end of the file, which may say less than it holds.
    duration=None if end >= info.duration else end - start,
    max_fps=None if keep else options.max_fps,
    size=size if info.has_video else None,
    sample_rate=min(info.sample_rate or 16_000, options.max_sample_rate),
    channels=1 if info.channels == 1 else 2,
    limits=_limits(options),
  )
  sound = clip.audio.samples if clip.audio else np.zeros((0, 1), np.float32)
  rate = clip.audio.sample_rate if clip.audio else 1
  video, duration, notes = b"", len(sound) / rate, []
  if clip.video is not None:
    if not len(clip.video.times):
      raise _Refused("no frames", "no picture in this stretch can be decoded")
    # A record's clock starts with its first frame.
    sound = sound[round(clip.video.times[0] * rate) :]
    times = clip.video.times - clip.video.times[0]
    duration = _video_seconds(times, info, start, end, len(sound) / rate)
    sound = sound[: round(duration * rate)]
    if keep:
      video = path.read_bytes()
    else:
      video = media.encode_video(clip.video.frames, times)
    notes.append("kept as they are" if keep else "encoded anew")
  if duration < options.min_seconds:
    raise _Refused("too short", f"{duration:.3f} s can be decoded")
  if not len(sound) and not options.allow_video_only:
    raise _Refused("no audio", "no sound in this stretch can be decoded")
  damaged = sum(part.damaged for part in (clip.video, clip.audio) if part)
  notes += ["with damaged packets"] * bool(damaged)
  notes += ["silent"] * bool(len(sound) and not np.any(sound))
  audio = media.encode_flac(sound, rate) if len(sound) else b""
  return dict(video=video, audio=audio, duration=duration), notes


def _may_keep(path, info, start: float, end: float, options) -> bool:
  return (
    info.video_codec == "h264"
    and min(info.width, info.height) <= options.short_side
    and start == 0
    and end >= info.duration
    and path.stat().st_size <= _KEEP_BYTES
  )


def _fit(info: media.MediaInfo, short_side: int) -> tuple[int, int]:
  """(height, width), even, with the short side at most `short_side`."""
  scale = min(short_side / max(min(info.width, info.height), 1), 1.0)
  height, width = (
    max(round(side * scale / 2) * 2, 2) for side in (info.height, info.width)
  )
  return height, width


def _video_seconds(
  times: np.ndarray,
  info: media.MediaInfo,
  start: float,
  end: float,
  sound_seconds: float,
) -> float:
  """Seconds that the frames last, the last one as long as it is claimed to.

  A claim beyond the frames is believed as far as there is sound: a still
  picture at the end lasts, the missing end of a cut-off file does not.
  """
  gap = 1 / info.fps if info.fps else 0.04
  if len(times) > 1:
    gap = float(np.median(np.diff(times)))
  shown = float(times[-1]) + gap
  claimed = min(end, info.duration) - start
  return max(shown, min(claimed, sound_seconds)) if claimed > shown else shown


def _limits(options: ClipOptions) -> media.Limits:
  return media.Limits(seconds=options.file_seconds)


def _hash(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()
