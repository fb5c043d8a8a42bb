"""Turns one media file into the records of its clips, or reasons why not.

The file is read in the media sandbox: a process that may be killed, with limits
on time, memory, pixels and duration. The file's own bytes are stored only if
they decoded; everything else is re-encoded.
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
from data_pipelines.assemble import Item, drop
from data_pipelines.captions import Row
from data_pipelines.writer import Outcome
from v2a_jax import media
from v2a_jax.basics.files import sha256_of
from v2a_jax.basics.settings import SettingError, check

# Fraction by which a file's last clip may be longer than `max_seconds`: files
# that were cut "to 10 s" last 10.03 s.
_STRETCH = 0.05
# A file that is longer than a stretch of its film by no more than this factor is
# that stretch.
_FILM_PART = 1.1
# Larger files are always re-encoded.
_KEEP_BYTES = 32 << 20
# Fields of a record that a row of captions fills.
_ROW_TEXTS = "caption audio_caption transcript label licence source".split()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipOptions:
  """Options for cutting, storing and splitting files.

  Attributes:
    short_side: largest short side in pixels; H.264 of at most this size is
      kept as is, other video is scaled down and re-encoded.
    max_fps: most frames a second of video that is re-encoded.
    max_seconds: length in seconds at which files are cut into clips; 0 leaves
      them whole.
    min_seconds: length in seconds below which clips are dropped.
    max_sample_rate: highest sample rate in Hz; higher ones are resampled.
    allow_audio_only: keep clips without video.
    allow_video_only: keep clips without a sound track, for generation only:
      training learns nothing from them.
    val_fraction: fraction of the files in the val split, chosen by a hash of
      their names; the table's `split` column goes first.
    test_fraction: fraction of the files in the test split, chosen likewise.
    file_seconds: computing time in seconds that reading one clip may take beyond
      what its length earns, and time for which it may stand still.
    read_limits: how many times the usual work and memory reading a file may
      take.
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
  read_limits: float = 1.0

  def __post_init__(self):
    check(self, short_side="[2, inf)", max_sample_rate="[1, inf)")
    check(self, max_fps="(0, inf)", file_seconds="(0, inf)")
    check(self, read_limits="(0, inf)")
    check(self, max_seconds="[0, inf)", min_seconds="[0, inf)")
    check(self, val_fraction="[0, 1]", test_fraction="[0, 1]")
    if self.val_fraction + self.test_fraction > 1:
      raise SettingError(
        f"val_fraction={self.val_fraction!r} and test_fraction="
        f"{self.test_fraction!r} add up to more than 1"
      )
    if 0 < self.max_seconds < self.min_seconds:
      raise SettingError(
        f"max_seconds={self.max_seconds!r} is below min_seconds="
        f"{self.min_seconds!r}: every clip would be dropped"
      )

  @property
  def limits(self) -> media.Limits:
    """Resource limits of reading one file."""
    limits = media.Limits().scaled(self.read_limits)
    return dataclasses.replace(limits, seconds=self.file_seconds)


class _Refused(Exception):
  """A clip that is dropped; its arguments are reason and detail."""


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


def clip_facts(record: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what a build remembers of a record that it has written."""
  texts = [record["caption"], record["audio_caption"], record["transcript"]]
  texts += record["other_captions"]
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
  directory: pathlib.Path,
  names: Mapping[str, str],
  rows: Mapping[str, Sequence[Row]],
  options: ClipOptions,
) -> Item:
  """Returns the outcome and records of one file; its faults become drops.

  Args:
    file: path relative to `directory`.
    directory: folder of the files.
    names: id by file.
    rows: rows of the captions table by file.
    options: how the file is cut and stored.
  """
  path, sha256 = directory / file, ""
  clips = _Clips([], [], [])
  try:
    sha256 = sha256_of(path)
    own = rows.get(file) or [Row(line=0)]
    _read_clips(path, names[file], sha256, own, options, clips)
  except _Refused as refused:
    clips.drops.append(drop(*refused.args))
  except media.MediaError as error:
    clips.drops.append(drop("unreadable", error.reason))
  except OSError as error:
    clips.drops.append(drop("unreadable", error.strerror or str(error)))
  drops, facts = clips.drops, [clip_facts(record) for record in clips.records]
  if not facts:
    # The whole file is dropped, for the first of its reasons.
    drops = [drops[0] | {"start": None, "end": None}]
  outcome = Outcome(
    key=file, sha256=sha256, clips=facts, drops=drops, notes=clips.notes
  )
  return outcome, clips.records


# Sample rates in Hz and channels of sound; others are of data that pose as it.
_RATES, _MOST_CHANNELS = (4_000, 768_000), 64


class _Clips(NamedTuple):
  """Lists to which `_read_clips` appends; see `Outcome`."""

  records: list[dict[str, Any]]
  drops: list[dict[str, Any]]
  notes: list[str]


def _read_clips(path, name, sha256, rows, options, clips: _Clips) -> None:
  """Appends the records, drops and notes of a file to `clips`."""
  info = media.probe_limited(path, limits=options.limits)
  if not info.has_video and not options.allow_audio_only:
    raise _Refused("no video", "only sound; --allow_audio_only keeps it")
  if not info.has_audio and not options.allow_video_only:
    raise _Refused("no audio", "no sound track; --allow_video_only keeps it")
  low, high = _RATES
  if info.has_audio and not low <= (info.sample_rate or low) <= high:
    raise _Refused(
      "sample rate", f"{info.sample_rate:,} Hz is not in [{low:,}, {high:,}]"
    )
  if info.has_audio and (info.channels or 1) > _MOST_CHANNELS:
    raise _Refused("channels", f"{info.channels} are over {_MOST_CHANNELS}")
  cuts = stretches(info.duration, rows, options.max_seconds)
  for start, end, row in cuts:
    try:
      content, notes = _read_media(path, info, start, end, options)
    except _Refused as refused:
      clips.drops.append(drop(*refused.args, start=start, end=end))
      continue
    except media.MediaError as error:
      # The rest is dropped too: each further clip may take its full time.
      clips.drops.append(drop("unreadable", error.reason, start=start))
      return
    whole = len(cuts) == 1 and start == 0 and end == info.duration
    split = row.split or split_of(
      name, val=options.val_fraction, test=options.test_fraction
    )
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
    clips.notes.extend(notes)


def _read_media(path, info, start: float, end: float, options: ClipOptions):
  """Returns video, audio and duration of one clip, and notes to count."""
  if start >= info.duration:
    raise _Refused(
      "after the end", f"at {start:g} s; the file has {info.duration:g} s"
    )
  if end - start < options.min_seconds:
    raise _Refused("too short", f"{end - start:.3f} s")
  keep = (
    info.video_codec == "h264"
    and min(info.width, info.height) <= options.short_side
    and start == 0
    and end >= info.duration
    and path.stat().st_size <= _KEEP_BYTES
  )
  # Bytes that are kept are decoded too, at a small size, to test them.
  size = (32, 32) if keep else fit_size(info, options.short_side)
  clip = media.read_clip(
    path,
    start=start,
    # Read to the end of the file, which may last longer than it claims.
    duration=None if end >= info.duration else end - start,
    max_fps=None if keep else options.max_fps,
    size=size if info.has_video else None,
    sample_rate=min(info.sample_rate or 16_000, options.max_sample_rate),
    channels=1 if info.channels == 1 else 2,
    limits=options.limits,
  )
  sound = clip.audio.samples if clip.audio else np.zeros((0, 1), np.float32)
  rate = clip.audio.sample_rate if clip.audio else 1
  video, duration, notes = b"", len(sound) / rate, []
  if clip.video is not None:
    if not len(clip.video.times):
      raise _Refused("no frames", "no frame of this stretch can be decoded")
    # A record's time zero is its first frame.
    sound = sound[round(clip.video.times[0] * rate) :]
    times = clip.video.times - clip.video.times[0]
    duration = _video_seconds(times, info, start, end, len(sound) / rate)
    sound = sound[: round(duration * rate)]
    notes.append("kept as is" if keep else "re-encoded")
    video = (
      path.read_bytes()
      if keep
      else media.encode_video(clip.video.frames, times)
    )
  if duration < options.min_seconds:
    raise _Refused("too short", f"{duration:.3f} s can be decoded")
  if not len(sound) and not options.allow_video_only:
    raise _Refused("no audio", "no sound in this stretch can be decoded")
  missing = duration - len(sound) / rate
  if len(sound) and missing > schema.SOUND_SLACK:
    notes.append("with sound that ends early")
  damaged = sum(part.damaged for part in (clip.video, clip.audio) if part)
  notes += ["with damaged packets"] * bool(damaged)
  notes += ["silent"] * bool(len(sound) and not np.any(sound))
  audio = media.encode_flac(sound, rate) if len(sound) else b""
  return dict(video=video, audio=audio, duration=duration), notes


def fit_size(info: media.MediaInfo, short_side: int) -> tuple[int, int]:
  """Returns (height, width), even, scaled down to `short_side` if need be."""
  scale = min(short_side / max(min(info.width, info.height), 1), 1.0)
  even = lambda side: max(round(side * scale / 2) * 2, 2)
  return even(info.height), even(info.width)


def _video_seconds(times, info, start, end, sound_seconds: float) -> float:
  """Returns the length of a clip with video, in seconds.

  It is the time of the last frame and one frame more. If the file claims to
  last longer, it is the claim as far as there is sound: a still picture at the
  end counts, the missing end of a cut-off file does not.
  """
  gap = 1 / info.fps if info.fps else 0.04
  if len(times) > 1:
    gap = float(np.median(np.diff(times)))
  seen = float(times[-1]) + gap
  claimed = min(end, info.duration) - start
  return max(seen, min(claimed, sound_seconds)) if claimed > seen else seen


def _hash(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()
