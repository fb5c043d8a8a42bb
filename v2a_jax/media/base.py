"""What the media room speaks: clips, their facts, limits and errors.

One clock: time zero is the presentation time of the first video frame (of the
first audio sample where there is no video), and everything is in seconds from
there.
"""

import dataclasses
import os
from typing import TypeAlias

import numpy as np

# A path, or the bytes of a file (a record's `video` field).
Source: TypeAlias = "str | os.PathLike[str] | bytes"


class MediaError(ValueError):
  """A file that cannot be read or written: one line, ready to be shown.

  Attributes:
    name: which file.
    reason: what is wrong with it.
    advice: what to do next.
  """

  def __init__(self, name: str, reason: str, advice: str):
    super().__init__(name, reason, advice)  # positional, so it can be pickled
    self.name, self.reason, self.advice = name, reason, advice

  def __str__(self) -> str:
    return " ".join(f"{self.name}: {self.reason}; {self.advice}".split())


def source_name(source: Source) -> str:
  """How messages call a source: its path, or that it came as bytes."""
  if isinstance(source, bytes):
    return f"<{len(source)} bytes>"
  return os.fspath(source)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
  """What one file may cost. Larger claims are refused before decoding.

  Attributes:
    seconds: wall clock of one call (enforced in the sandbox).
    memory_bytes: address space a call may add (enforced in the sandbox), and
      the largest array that a read may return.
    file_bytes: size of the file.
    pixels: of one frame, as stored.
    duration: seconds that the file claims to last.
    frames: frames that one read may return.
  """

  seconds: float = 30.0
  memory_bytes: int = 2 << 30
  file_bytes: int = 8 << 30
  pixels: int = 8192 * 4320
  duration: float = 4 * 3600.0
  frames: int = 50_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class MediaInfo:
  """The facts of a file.

  Attributes:
    container: FFmpeg's name of the format, for example "mov,mp4,m4a,…".
    has_video: a cover picture does not count.
    has_audio: whether there is a sound track.
    duration: seconds of the video, or of the audio where there is no video.
    video_start: seconds on the container's clock at which the first frame is
      shown; this is the zero of every time that the reader returns.
    fps: average frames a second; 0 without video.
    width: of the upright picture in square pixels; 0 without video.
    height: likewise.
    rotation: degrees clockwise by which the stored picture was turned upright;
      0, 90, 180 or 270.
    video_codec: for example "h264"; "" without video.
    audio_codec: for example "aac"; "" without audio.
    sample_rate: Hz; 0 without audio.
    channels: 0 without audio.
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Video:
  """Frames at their own times.

  Attributes:
    frames: uint8 [n, h, w, 3], upright RGB.
    times: float64 [n], seconds from the start of the window, increasing.
    damaged: packets that could not be decoded and frames that the decoder
      marked as damaged on the way.
  """

  frames: np.ndarray
  times: np.ndarray
  damaged: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Audio:
  """Samples on the video's clock.

  Attributes:
    samples: float32 [t, channels]; sample i sounds i / sample_rate seconds
      after the start of the window. Lossy codecs and resampling may overshoot
      [-1, 1] a little.
    sample_rate: Hz.
    damaged: packets that could not be decoded (they are silent).
  """

  samples: np.ndarray
  sample_rate: int
  damaged: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
  """All that one file gives; `video` or `audio` is None where it has none."""

  info: MediaInfo
  video: Video | None
  audio: Audio | None
