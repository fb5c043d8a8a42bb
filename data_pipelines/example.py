"""Decodes a record as an example: arrays of fixed shapes, with masks.

An example is a window of the record, with times in seconds from the window's
start. Frames keep their presentation times, audio is resampled, text becomes
token ids; whatever the clip lacks is zero and masked. The keys are listed in
docs/architecture.md.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
import threading
from typing import Any

import numpy as np

from data_pipelines import features as features_lib
from data_pipelines import schema, stages
from data_pipelines.features import Features
from data_pipelines.tokenizer import TextTokenizer, Tokenizer, with_times
from v2a_jax import media
from v2a_jax.basics.settings import SettingError, check

Example = dict[str, np.ndarray]

# Records of up to this many windows go into the cache, decoded whole, so that it
# serves every crop.
_WHOLE_WINDOWS = 4

CROPS = ("random", "start")
# Intervals of the numbers of a `Window`; see `settings.check`.
RANGES = dict(
  seconds="(0, inf)",
  fps="(0, inf)",
  frame_size="[1, inf)",
  sample_rate="[1, inf)",
  channels="[1, 2]",
  prompt_length="[1, inf)",
  transcript_length="[1, inf)",
  features="[0, inf)",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
  """The shape of an example.

  Attributes:
    seconds: length of the window in seconds.
    fps: most frames a second; video of a lower rate keeps its own.
    frame_size: (height, width) in pixels to which frames are resized, whatever
      their aspect ratio.
    sample_rate: sample rate in Hz.
    channels: number of audio channels, 1 or 2.
    prompt_length: number of token ids of the caption.
    transcript_length: number of token ids of the spoken words.
    caption_fields: fields of the record that may serve as the prompt, in order
      of preference.
    features: size of a frame's cached features; 0 leaves them out.
    frames: whether frames are decoded.
    sound: whether sound is decoded.
  """

  seconds: float
  fps: float
  frame_size: tuple[int, int]
  sample_rate: int
  channels: int
  prompt_length: int
  transcript_length: int
  caption_fields: tuple[str, ...]
  features: int = 0
  frames: bool = True
  sound: bool = True

  def __post_init__(self):
    check(self, **RANGES)

  @property
  def num_frames(self) -> int:
    """Number of frames, those that are masked included."""
    return math.ceil(self.fps * self.seconds - 1e-6)

  @property
  def num_samples(self) -> int:
    """Number of audio samples."""
    return round(self.seconds * self.sample_rate)


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


def decode_record(
  record: Mapping[str, Any],
  *,
  window: Window,
  tokenizer: Tokenizer,
  prompt_tokenizer: TextTokenizer | None = None,
  index: int = 0,
  rng: np.random.Generator | None = None,
  crop: str = "start",
  random_caption: bool = False,
  gain_db: float = 0.0,
  cache: MediaCache | None = None,
  out: np.ndarray | None = None,
) -> Example:
  """Decodes a window of a record as an example.

  Args:
    record: see `schema`.
    window: shape of the example.
    tokenizer: tokenizer of transcripts, and of captions by default.
    prompt_tokenizer: tokenizer of captions.
    index: index of the record in its source.
    rng: random generator of crop, caption and gain; None for no randomness.
    crop: "start", or "random" (needs `rng`) for a window anywhere.
    random_caption: whether `rng` chooses among the captions that are not empty;
      otherwise the first is taken.
    gain_db: range of the gain in dB that `rng` draws from [-gain_db, gain_db].
    cache: cache of decoded records, by `index`.
    out: array that takes the frames, a row of a batch; None for a new one.

  Returns:
    One row of a loader's batch, without `audio` where the window has none. Its duration ends with the sound, so that what
    is missing of it has no weight in training and evaluation; without sound it
    is 0.

  Raises:
    MediaError: the record's media cannot be decoded.
    DataError: cached features are missing, damaged, or of other frames.
  """
  duration = record["duration"]
  start = 0.0
  if rng is not None and crop == "random":
    # On whole samples, so that audio and frames are cut at the same instant.
    spare = max(duration - window.seconds, 0.0) * rng.random()
    start = math.floor(spare * window.sample_rate) / window.sample_rate
    if window.features and duration > window.seconds:
      _check_crop(record, window)
    if not window.sound and duration > window.seconds:
      raise SettingError(
        f"its cached latents or codes serve only the window at the start of its"
        f" {duration:g} s: set data.crop='start', or build the data set of"
        " shorter clips"
      )
  content = decode_media(
    record, window, start, cache=cache, index=index, out=out
  )
  with stages.stage("copy"):
    example = {
      **cut_frames(content, window, start, out=out),
      **cut_audio(content, window, start, duration),
    }
  with stages.stage("text"):
    example |= {
      **_prompt(
        record,
        window,
        prompt_tokenizer or tokenizer,
        rng if random_caption else None,
      ),
      **_transcript(record, window, tokenizer, start),
      "presence": schema.presence(record),
      "example": np.int64(index),
    }
  if rng is not None and gain_db and window.sound:
    gain = np.float32(10 ** (rng.uniform(-gain_db, gain_db) / 20))
    example["audio"] = np.clip(example["audio"] * gain, -1.0, 1.0)
  return example


# Arrays that `Tokenizer.encode_words` gives.
SPOKEN = (
  "transcript",
  "transcript_times",
  "transcript_durations",
  "transcript_mask",
)


def blank_example(
  window: Window, *, index: int, out: np.ndarray | None = None
) -> Example:
  """Returns an empty example: all masks False, duration 0."""
  nothing = dict.fromkeys(schema.BYTES_FIELDS, b"")
  empty = _read(nothing, window)
  prompt, spoken = window.prompt_length, window.transcript_length
  return {
    **cut_frames(empty, window, 0.0, out=out),
    **cut_audio(empty, window, 0.0, 0.0),
    "prompt": np.zeros(prompt, np.int32),
    "prompt_mask": np.zeros(prompt, bool),
    "transcript": np.zeros(spoken, np.int32),
    "transcript_times": np.zeros(spoken, np.float32),
    "transcript_durations": np.zeros(spoken, np.float32),
    "transcript_mask": np.zeros(spoken, bool),
    "transcript_timed": np.bool_(False),
    "presence": np.full(3, schema.UNKNOWN, np.int32),
    "example": np.int64(index),
  }


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


def _check_crop(record, window: Window) -> None:
  """Checks that cached features serve a window anywhere in the record."""
  if not features_lib.unpack(record["features"], window.features).whole:
    raise SettingError(
      f"its cached features serve only the window at the start of its"
      f" {record['duration']:g} s: set data.crop='start', or build the data set"
      " of shorter clips"
    )


def cut_frames(
  content: Media,
  window: Window,
  start: float,
  *,
  out: np.ndarray | None = None,
) -> Example:
  """Returns the frames and features of the window.

  Args:
    content: decoded media; its frames may be in `out` already.
    window: shape of the example.
    start: start of the window in seconds.
    out: array that takes the frames; None for a new one.

  Returns:
    `frames` uint8 [n h w 3] and `features` float32 [n f], as far as the window
    has them; `frame_times` float32 [n] in seconds and `frame_mask` bool [n].

  Raises:
    DataError: cached features are of other frames.
  """
  arrays = {}
  if window.frames:
    times, values = content.times, content.frames
    arrays = _place("frames", times, values, window, start, out)
  if window.features:
    cached = content.features or features_lib.unpack(b"", window.features)
    others = _place("features", cached.times, cached.values, window, start)
    if arrays and not np.allclose(arrays["frame_times"], others["frame_times"]):
      raise schema.DataError(
        "its cached features are of other frames than those of the window: run"
        " `v2a data precompute` again"
      )
    arrays |= others
  return arrays


def inside(times: np.ndarray, window: Window, start: float) -> slice:
  """Returns where the first `num_frames` times in the window are.

  Args:
    times: increasing times in seconds.
    window: shape of the example.
    start: start of the window in seconds.
  """
  ends = np.array([start, start + window.seconds]) - media.EDGE
  first, last = np.searchsorted(times, ends)
  return slice(int(first), int(min(last, first + window.num_frames)))


def _place(
  name, times, values, window: Window, start: float, out=None
) -> Example:
  """Returns the `values` whose times are in the window, times and mask."""
  where = inside(times, window, start)
  count, found = window.num_frames, where.stop - where.start
  shape = (count, *values.shape[1:])
  placed = np.empty(shape, values.dtype) if out is None else out
  part = values[where]
  if part.ctypes.data != placed.ctypes.data:  # It may have been decoded there.
    placed[:found] = part
  placed[found:] = 0
  frame_times = np.zeros(count, np.float32)
  frame_times[:found] = np.maximum(times[where] - start, 0.0)
  mask = np.arange(count) < found
  return {name: placed, "frame_times": frame_times, "frame_mask": mask}


def cut_audio(
  content: Media, window: Window, start: float, duration: float
) -> Example:
  """Returns the sound of the window, and how much of it exists.

  Args:
    content: decoded media.
    window: shape of the example.
    start: start of the window in seconds.
    duration: length of the record in seconds.

  Returns:
    `audio` float32 [samples channels], but for a window without sound, and
    `duration` in seconds.
  """
  seconds = min(max(duration - start, 0.0), window.seconds)
  if not window.sound:
    return dict(duration=np.float32(seconds))
  audio = np.zeros((window.num_samples, window.channels), np.float32)
  length = min(round(seconds * window.sample_rate), window.num_samples)
  first = round((start - content.start) * window.sample_rate)
  cut = content.audio[first : first + length]
  audio[: len(cut)] = np.clip(cut, -1.0, 1.0)
  heard = len(cut) / window.sample_rate
  if not heard or seconds - heard > schema.SOUND_SLACK:
    seconds = heard  # What is missing is not silence.
  return dict(audio=audio, duration=np.float32(seconds))


def _prompt(record, window: Window, tokenizer: TextTokenizer, rng) -> Example:
  texts = [record[field] for field in window.caption_fields if record[field]]
  texts += record["other_captions"]
  pick = 0 if rng is None or not texts else int(rng.integers(len(texts)))
  ids, mask = tokenizer.encode(
    texts[pick] if texts else "", window.prompt_length
  )
  return dict(prompt=ids, prompt_mask=mask)


def _transcript(
  record, window: Window, tokenizer: Tokenizer, start: float
) -> Example:
  """Encodes the words that begin in the window, timed from its start."""
  words: Sequence[Mapping[str, Any]] = record["words"] or [
    {"word": word} for word in record["transcript"].split()
  ]
  inside = words_inside(
    with_times(words, record["duration"]), start, window.seconds
  )
  timed = bool(words) and all(word.get("start") is not None for word in words)
  return dict(
    **tokenizer.encode_words(inside, window.transcript_length, window.seconds),
    transcript_timed=np.bool_(timed),
  )


def words_inside(
  words: Sequence[Mapping[str, Any]], start: float, seconds: float
) -> list[dict[str, Any]]:
  """Returns the words that begin in a window, timed from its start.

  Args:
    words: entries {"word", "start", "end"}, in seconds.
    start: the window's start in seconds.
    seconds: its length.
  """
  return [
    {
      "word": word["word"],
      "start": word["start"] - start,
      "end": word["end"] - start,
    }
    for word in words
    if 0 <= word["start"] - start < seconds
  ]
