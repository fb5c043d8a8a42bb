"""Reads stretches of one media file, as the media of a data set's records.

The file is read in the media sandbox: a process that may be killed, with limits
on time, memory, pixels and duration. The file's own bytes are stored only if
they decoded; everything else is re-encoded. What an earlier build has read is
taken from its data set.
"""

import dataclasses
import functools
import importlib.metadata
import pathlib
from typing import Any

import numpy as np

from data_pipelines import schema
from data_pipelines.readings import Reading
from v2a_jax import media
from v2a_jax.basics.settings import SettingError, check

# A sound that stays below this is silence: -80 dB of full scale, which dither
# does not reach.
_SILENCE = 1e-4
# Larger files are always re-encoded.
_KEEP_BYTES = 32 << 20
# Options that do not shape the media of a record that could be read.
_NOT_OF_MEDIA = "val_fraction test_fraction file_seconds read_limits".split()


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
    audio_track: number of the sound track of files that have several, from 0;
      None for the main one.
    drop_silent: drop clips whose sound is silence, below -80 dB of full scale.
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
  audio_track: int | None = None
  drop_silent: bool = False
  allow_audio_only: bool = False
  allow_video_only: bool = False
  val_fraction: float = 0.05
  test_fraction: float = 0.05
  file_seconds: float = 25.0
  read_limits: float = 1.0

  def __post_init__(self):
    check(self, short_side="[2, inf)", max_sample_rate="[4_000, inf)")
    check(self, max_fps="(0, inf)", file_seconds="(0, inf)")
    check(self, read_limits="(0, inf)", audio_track="[0, inf)")
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
  def of_media(self) -> dict[str, Any]:
    """What shapes the media of a record, and PyAV's version, which does too."""
    options = dataclasses.asdict(self)
    for name in _NOT_OF_MEDIA:
      del options[name]
    return options | {"av": importlib.metadata.version("av")}

  @property
  def limits(self) -> media.Limits:
    """Resource limits of reading one file."""
    limits = media.Limits().scaled(self.read_limits)
    return dataclasses.replace(limits, seconds=self.file_seconds)


class _Refused(Exception):
  """A clip that is dropped; its arguments are reason and detail."""


class ClipFile:
  """One media file, which is opened only for what no build has read before."""

  def __init__(
    self, path: pathlib.Path, options: ClipOptions, known: Reading | None
  ):
    self._path, self._options, self._known = path, options, known

  @functools.cached_property
  def _info(self) -> media.MediaInfo:
    limits, number = self._options.limits, self._options.audio_track
    info = media.probe_limited(self._path, limits=limits)
    if number is None or number == info.audio_track:
      return info
    if number >= info.audio_tracks:  # `_refusal` says so
      return info
    return media.probe_limited(self._path, limits=limits, audio_track=number)

  def check(self) -> tuple[float | None, dict[str, Any]]:
    """Returns the file's length in seconds, and its part if it is refused."""
    if self._known:
      return self._known.seconds, self._known.part(None, None) or {}
    refusal = _refusal(self._info, self._options)
    if refusal:
      whole = {"start": None, "end": None}
      return None, whole | dict(zip(("reason", "detail"), refusal))
    return self._info.duration, {}

  def read(self, start: float, end: float) -> tuple[dict, dict[str, Any]]:
    """Returns the media of a stretch (none if refused), and its part."""
    part = self._known and self._known.part(start, end)
    if part:
      content = {} if "reason" in part else self._known.media(start, end)
      if content is not None:
        return content, part
    part = {"start": start, "end": end}
    try:
      content, notes = _read_media(
        self._path, self._info, start, end, self._options
      )
    except _Refused as refused:
      return {}, part | dict(zip(("reason", "detail"), refused.args))
    return content, part | {"notes": notes}


def _refusal(info: media.MediaInfo, options: ClipOptions):
  """Returns reason and detail if a whole file is dropped, or None."""
  if not info.has_video and not options.allow_audio_only:
    return "no video", "only sound; --allow_audio_only keeps it"
  if not info.has_audio:
    if options.allow_video_only:
      return None
    return "no audio", "no sound track; --allow_video_only keeps it"
  number, tracks = options.audio_track, info.audio_tracks
  if number is not None and number >= tracks:
    text = f"only {tracks} sound track{'s' * (tracks > 1)}"
    return text, f"--audio_track is {number}, counted from 0"
  return media.sound_refusal(info.sample_rate, info.channels)


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
    audio_track=options.audio_track,
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
  if len(sound) and np.abs(sound).max() < _SILENCE:
    if options.drop_silent:
      raise _Refused("silent", "its sound stays below -80 dB")
    notes.append("silent")
  if len(sound) and (track := info.several_tracks()):
    notes.append(f"with {track}")
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
