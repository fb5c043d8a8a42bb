"""Types of the media package: clips, their metadata, limits and errors.

One clock: time zero is the presentation time of the first video frame (of the
first audio sample in a file without video). All times are in seconds after it.
"""

import dataclasses
import math
import os
from typing import TypeAlias

import numpy as np

# A path, or the bytes of a file (such as the `video` field of a record).
Source: TypeAlias = "str | os.PathLike[str] | bytes"


class MediaError(ValueError):
  """A file cannot be read or written; the message is one line.

  Attributes:
    name: path of the file, or its size if it was passed as bytes.
    reason: description of the problem.
    advice: next step for the user.
  """

  def __init__(self, name: str, reason: str, advice: str):
    super().__init__(name, reason, advice)  # positional, so it can be pickled
    self.name, self.reason, self.advice = name, reason, advice

  def __str__(self) -> str:
    return " ".join(f"{self.name}: {self.reason}; {self.advice}".split())


def source_name(source: Source) -> str:
  """Returns the path of a source, or `<N bytes>`, for error messages."""
  if isinstance(source, bytes):
    return f"<{len(source)} bytes>"
  return os.fspath(source)


def more(field: str) -> str:
  """Returns the advice that names the flag, and the field of `Limits`."""
  return f"allow more with --read_limits=2 (in Python, Limits.{field})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
  """Resource limits of one file; larger claims are refused before decoding.

  Attributes:
    seconds: CPU seconds that a call may take beyond what the packets and pixels
      that it has decoded earn (see work.py), and seconds of wall-clock time for
      which it may stand still (both enforced in the sandbox).
    memory_bytes: address space that a call may add (enforced in the sandbox),
      and size of the largest array that a read may return.
    file_bytes: size of the file in bytes.
    pixels: pixels of one stored frame.
    decoded_pixels: pixels of all frames that one read decodes together; the
      default is about two hours of 1080p at 25 frames a second.
    duration: duration that the file claims, in seconds.
    frames: number of frames that one read may return.
  """

  seconds: float = 30.0
  memory_bytes: int = 2 << 30
  file_bytes: int = 8 << 30
  pixels: int = 8192 * 4320
  decoded_pixels: float = 4e11
  duration: float = 4 * 3600.0
  frames: int = 500_000

  def scaled(self, factor: float) -> "Limits":
    """Returns limits that are `factor` times as high.

    Raises:
      ValueError: the factor is not above 0 and finite.
    """
    if not 0 < factor < math.inf:
      raise ValueError(f"read_limits={factor} must be above 0 and finite")
    values = dataclasses.asdict(self)
    return Limits(**{k: type(v)(v * factor) for k, v in values.items()})


DEFAULT_LIMITS = Limits()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadOptions:
  """Window and output format of one read; raises ValueError out of range.

  Attributes:
    start: start of the window in seconds after the first frame, at least 0.
    duration: length of the window in seconds; None reads to the end.
    max_fps: highest frame rate in Hz; None keeps every frame.
    grid: where the grid of `max_fps` begins, in seconds after the first frame;
      None for `start`.
    size: (height, width) of the returned frames in pixels; None keeps the
      upright size with square pixels.
    sample_rate: sample rate of the returned audio in Hz; None only where no
      audio is read.
    channels: 1 (mean of all), 2, or None for the channels of the file.
    audio_track: number of the audio stream among those of the file, from 0;
      None for the main one, as FFmpeg sees it.
    limits: resource limits of the read.
  """

  start: float = 0.0
  duration: float | None = None
  max_fps: float | None = None
  grid: float | None = None
  size: tuple[int, int] | None = None
  sample_rate: int | None = None
  channels: int | None = None
  audio_track: int | None = None
  limits: Limits = DEFAULT_LIMITS

  def __post_init__(self):
    if not self.start >= 0:
      raise ValueError(f"start={self.start} s must be at least 0")
    for name in ("duration", "max_fps", "sample_rate"):
      value = getattr(self, name)
      if value is not None and not value > 0:
        raise ValueError(f"{name}={value} must be above 0, or None")
    if self.size is not None and min(self.size) < 1:
      raise ValueError(f"size={self.size} must be at least 1 x 1 pixels")
    if self.channels not in (None, 1, 2):
      raise ValueError(f"channels={self.channels} must be 1, 2 or None")
    if self.audio_track is not None and self.audio_track < 0:
      raise ValueError(f"audio_track={self.audio_track} must be at least 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MediaInfo:
  """Metadata of a file; numbers are 0 and names "" where a stream is missing.

  Attributes:
    container: FFmpeg's name of the format, such as "mov,mp4,m4a,…".
    has_video: whether there is a video stream; cover art does not count.
    has_audio: whether there is an audio stream.
    duration: seconds of the video, or of the audio in a file without video.
    video_start: presentation time of the first frame on the container's clock,
      in seconds; it is time zero of everything that is read.
    fps: average frame rate in Hz.
    width: width of the upright picture in square pixels.
    height: height of the upright picture in pixels.
    rotation: clockwise rotation in degrees from the stored to the upright
      picture: 0, 90, 180 or 270.
    video_codec: FFmpeg's name of the codec, such as "h264".
    audio_codec: FFmpeg's name of the codec, such as "aac".
    sample_rate: sample rate of the audio in Hz.
    channels: number of audio channels.
    audio_tracks: number of audio streams.
    audio_track: number of the one that is read, from 0.
    language: its language as the file names it, such as "eng".
    timecode: time code of the first frame, such as "01:00:00:00".
  """

  container: str
  has_video: bool
  has_audio: bool
  duration: float
  video_start: float = 0.0
  fps: float = 0.0
  width: int = 0
  height: int = 0
  rotation: int = 0
  video_codec: str = ""
  audio_codec: str = ""
  sample_rate: int = 0
  channels: int = 0
  audio_tracks: int = 0
  audio_track: int = 0
  language: str = ""
  timecode: str = ""

  def several_tracks(self) -> str:
    """Returns which of several audio streams is read; "" if there is one."""
    if self.audio_tracks < 2:
      return ""
    known = self.language not in ("", "und")
    return (
      f"sound track {self.audio_track} of {self.audio_tracks}"
      f"{f' ({self.language})' * known}"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Video:
  """Frames and their presentation times.

  Attributes:
    frames: uint8 [n, h, w, 3], upright RGB.
    times: float64 [n], seconds after the start of the window, increasing.
    damaged: number of packets that could not be decoded plus frames that the
      decoder flagged as corrupt.
  """

  frames: np.ndarray
  times: np.ndarray
  damaged: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Audio:
  """Samples on the video's clock.

  Attributes:
    samples: float32 [t, channels]; sample i is presented i / sample_rate
      seconds after the start of the window. Lossy codecs and resampling may
      overshoot [-1, 1] slightly.
    sample_rate: sample rate in Hz.
    damaged: number of packets that could not be decoded and are silent here.
  """

  samples: np.ndarray
  sample_rate: int
  damaged: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
  """Metadata, frames and samples of one file; None where there is no stream."""

  info: MediaInfo
  video: Video | None
  audio: Audio | None
