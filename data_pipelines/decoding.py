"""Decodes the media of a record, as far as a window needs them.

Short records are decoded whole if they are to be kept in memory, so that what
is kept serves every window of them.
"""

from collections.abc import Mapping
import dataclasses
import threading
from typing import Any

import numpy as np

from data_pipelines import features as features_lib
from data_pipelines import stages
from data_pipelines.features import Features
from data_pipelines.window import Window
from v2a_jax import media

# Records of up to this many windows go into the cache, decoded whole, so that it
# serves every crop.
_WHOLE_WINDOWS = 4


@dataclasses.dataclass(frozen=True)
class Media:
  """A decoded part of a record, from which a window is cut.

  Attributes:
    start: seconds into the record at which the part begins.
    frames: video frames, uint8 [n, h, w, 3].
    times: presentation times of the frames, float64 [n], seconds into the
      record.
    audio: samples, float32 [t, channels].
    features: cached features of the frames, or None.
  """

  start: float
  frames: np.ndarray
  times: np.ndarray
  audio: np.ndarray
  features: Features | None = None

  @property
  def nbytes(self) -> int:
    """Bytes of memory."""
    cached = self.features.nbytes if self.features else 0
    return cached + self.frames.nbytes + self.audio.nbytes + self.times.nbytes


class MediaCache:
  """Decoded records in memory, up to a size; nothing is evicted.

  In shuffled epochs the record that was used longest ago is needed sooner than
  most others, so evicting it, as an LRU cache does, would be worst.
  """

  def __init__(self, megabytes: float):
    """Makes an empty cache of at most `megabytes` MiB."""
    self._free = int(megabytes * 2**20)
    self._media: dict[int, Media] = {}
    self._records: dict[int, Mapping[str, Any]] = {}
    self._lock = threading.Lock()

  def get(self, key: int) -> Media | None:
    """Returns the record of index `key`, or None if it is not cached."""
    return self._media.get(key)

  def record(self, key: int) -> Mapping[str, Any] | None:
    """Returns a cached record without its media, which need not be read."""
    return self._records.get(key)

  def put(self, key: int, value: Media, record: Mapping[str, Any]) -> None:
    """Stores the record of index `key` if there is room."""
    with self._lock:
      if key not in self._media and value.nbytes <= self._free:
        self._media[key] = value
        self._records[key] = dict(record, video=b"", audio=b"")
        self._free -= value.nbytes

  # A worker process starts with an empty cache of the same size.
  def __getstate__(self):
    return self._free + sum(media.nbytes for media in self._media.values())

  def __setstate__(self, free):
    self.__init__(free / 2**20)


def decode_media(
  record: Mapping[str, Any],
  window: Window,
  start: float = 0.0,
  *,
  cache: MediaCache | None = None,
  index: int = 0,
  out: np.ndarray | None = None,
) -> Media:
  """Decodes the media of the window at `start` s, or more of the record.

  The frames are those of the whole record that lie in the window.

  Args:
    record: see `schema`.
    window: shape of the example.
    start: start of the window in seconds.
    cache: holds short records, whole.
    index: index of the record in the cache.
    out: array that may take the frames.

  Raises:
    MediaError: the record's media cannot be decoded.
  """
  whole = record["duration"] <= _WHOLE_WINDOWS * window.seconds
  if not (cache and whole):
    return _read(record, window, start=start, whole_sound=whole, out=out)
  content = cache.get(index)
  if content is None:
    content = _read(record, window, start=None)
    cache.put(index, content, record)
  return content


def _read(
  record, window: Window, *, start=None, whole_sound=True, out=None
) -> Media:
  """Reads the window at `start` s, or with None the whole record."""
  height, width = window.frame_size
  frames, times = np.zeros((0, height, width, 3), np.uint8), np.zeros(0)
  if record["video"] and window.frames:
    with stages.stage("video"):
      video = media.read_video(
        record["video"],
        start=start or 0.0,
        duration=None if start is None else window.seconds,
        max_fps=window.fps,
        grid=0.0,
        size=window.frame_size,
        out=out,
      )
    frames, times = video.frames, video.times + (start or 0.0)
  audio, begin = np.zeros((0, window.channels), np.float32), 0.0
  if record["audio"] and window.sound:
    # Sound of a short record is resampled as one, so that every window of it
    # has the same samples.
    begin = 0.0 if whole_sound or start is None else start
    with stages.stage("sound"):
      audio = media.read_audio(
        record["audio"],
        sample_rate=window.sample_rate,
        channels=window.channels,
        start=begin,
        duration=None if begin == 0.0 and whole_sound else window.seconds,
      ).samples
  features = None
  if window.features:
    features = features_lib.unpack(record["features"], window.features)
  return Media(begin, frames, times, audio, features)
