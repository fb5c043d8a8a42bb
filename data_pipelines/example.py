"""A record becomes an example: fixed shapes, one clock, masks.

The example is a window of `seconds` into the record. Frames keep the times at
which they are shown, audio is resampled, text becomes token ids; what the clip
does not have is zero and masked. The keys are those of docs/architecture.md.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
import threading
from typing import Any

import numpy as np

from data_pipelines import features as features_lib
from data_pipelines import schema
from data_pipelines.features import Features
from data_pipelines.tokenizer import TextTokenizer, Tokenizer, spread
from v2a_jax import media

Example = dict[str, np.ndarray]

# Records up to this many windows long are decoded whole, which lets a cache
# serve every crop; of longer ones only the window is decoded.
_WHOLE_WINDOWS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
  """The shape of an example.

  Attributes:
    seconds: length of the window.
    fps: at most this many frames a second.
    frame_size: (height, width) to which the picture is squashed.
    sample_rate: Hz.
    channels: 1 or 2.
    prompt_length: caption tokens.
    transcript_length: tokens of spoken words.
    caption_fields: fields that may serve as the prompt, the best first.
    features: numbers of a frame's cached features; 0 leaves them out.
    frames: whether frames are decoded.
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

  @property
  def num_frames(self) -> int:
    return math.ceil(self.fps * self.seconds - 1e-6)

  @property
  def num_samples(self) -> int:
    return round(self.seconds * self.sample_rate)


@dataclasses.dataclass(frozen=True)
class Media:
  """The decoded part of a record that a window is cut from.

  Attributes:
    start: seconds into the record at which this part begins.
    frames: uint8 [n, h, w, 3]; times: float64 [n], seconds into the record.
    audio: float32 [t, channels].
    features: cached features of frames, or None.
  """

  start: float
  frames: np.ndarray
  times: np.ndarray
  audio: np.ndarray
  features: Features | None = None

  @property
  def nbytes(self) -> int:
    cached = self.features.nbytes if self.features else 0
    return cached + self.frames.nbytes + self.audio.nbytes + self.times.nbytes


class MediaCache:
  """Keeps decoded records in memory until it is full; then keeps those.

  Nothing is evicted: in a shuffled epoch the record that was not used for the
  longest time is the one that comes next, the worst one to throw away.
  """

  def __init__(self, megabytes: float):
    self._free = int(megabytes * 2**20)
    self._kept: dict[int, Media] = {}
    self._lock = threading.Lock()

  def get(self, key: int) -> Media | None:
    return self._kept.get(key)

  def put(self, key: int, value: Media) -> None:
    with self._lock:
      if key not in self._kept and value.nbytes <= self._free:
        self._kept[key] = value
        self._free -= value.nbytes

  # A worker process starts with an empty cache of its own.
  def __getstate__(self):
    return self._free + sum(media.nbytes for media in self._kept.values())

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
) -> Example:
  """Makes an example of a record.

  Args:
    record: see `schema`.
    window: the example's shape.
    tokenizer: of transcripts, and of captions unless they have another.
    prompt_tokenizer: of captions.
    index: the record's index in its source.
    rng: for crop, choice of caption and gain; None leaves nothing to chance.
    crop: "start", or "random" (needs `rng`) for a window anywhere.
    random_caption: with `rng`, any caption that is not empty may be taken.
    gain_db: with `rng`, the audio is made up to this much louder or quieter.
    cache: of decoded media, by `index`.

  Returns:
    One row of a loader's batch. A record without sound has duration 0: there
    is nothing to learn from it.

  Raises:
    MediaError: the record's media cannot be decoded.
    DataError: cached features are not those of this window.
  """
  duration = record["duration"]
  start = 0.0
  if rng is not None and crop == "random":
    # On whole samples, so that audio and frames are cut at the same instant.
    spare = max(duration - window.seconds, 0.0) * rng.random()
    start = math.floor(spare * window.sample_rate) / window.sample_rate
    if window.features and duration > window.seconds:
      _check_crop(record, window)
  content = decode_media(record, window, start, cache=cache, index=index)
  example = {
    **cut_frames(content, window, start),
    **_cut_audio(content, window, start, duration),
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
  if rng is not None and gain_db:
    gain = np.float32(10 ** (rng.uniform(-gain_db, gain_db) / 20))
    example["audio"] = np.clip(example["audio"] * gain, -1.0, 1.0)
  return example


def blank_example(window: Window, *, index: int) -> Example:
  """An example in which nothing is known: all masks False, duration 0."""
  height, width = window.frame_size
  empty = Media(
    0.0,
    np.zeros((0, height, width, 3), np.uint8),
    np.zeros(0),
    np.zeros((0, window.channels), np.float32),
  )
  prompt, spoken = window.prompt_length, window.transcript_length
  return {
    **cut_frames(empty, window, 0.0),
    **_cut_audio(empty, window, 0.0, 0.0),
    "prompt": np.zeros(prompt, np.int32),
    "prompt_mask": np.zeros(prompt, bool),
    "transcript": np.zeros(spoken, np.int32),
    "transcript_times": np.zeros(spoken, np.float32),
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
) -> Media:
  """Decodes what the window at `start` is cut from; see `decode_record`."""
  whole = record["duration"] <= _WHOLE_WINDOWS * window.seconds
  if not whole:
    return _read(record, window, start=start, duration=window.seconds)
  content = cache.get(index) if cache else None
  if content is None:
    content = _read(record, window, start=0.0, duration=None)
    if cache:
      cache.put(index, content)
  return content


def _read(record, window: Window, *, start, duration) -> Media:
  height, width = window.frame_size
  frames, times = np.zeros((0, height, width, 3), np.uint8), np.zeros(0)
  if record["video"] and window.frames:
    video = media.read_video(
      record["video"],
      start=start,
      duration=duration,
      max_fps=window.fps,
      size=window.frame_size,
    )
    frames, times = video.frames, video.times + start
  audio = np.zeros((0, window.channels), np.float32)
  if record["audio"]:
    audio = media.read_audio(
      record["audio"],
      sample_rate=window.sample_rate,
      channels=window.channels,
      start=start,
      duration=duration,
    ).samples
  features = None
  if window.features:
    features = features_lib.unpack(record["features"], window.features)
  return Media(start, frames, times, audio, features)


def _check_crop(record, window: Window) -> None:
  """Refuses a window anywhere where cached features are not of its frames."""
  cached = features_lib.unpack(record["features"], window.features)
  whole = record["duration"] <= _WHOLE_WINDOWS * window.seconds
  if not (cached.whole and whole):
    raise schema.DataError(
      f"of its {record['duration']:g} s cached features serve only the window"
      " at the start: set data.crop='start', or build it of shorter clips"
    )


def cut_frames(content: Media, window: Window, start: float) -> Example:
  """The frames shown in the window that begins at `start` seconds."""
  found = {}
  if window.frames:
    times, values = content.times, content.frames
    found = _place("frames", times, values, window, start)
  if window.features:
    cached = content.features or features_lib.unpack(b"", window.features)
    more = _place("features", cached.times, cached.values, window, start)
    if found and not np.allclose(found["frame_times"], more["frame_times"]):
      raise schema.DataError(
        "its cached features are of other frames than those of the window: run"
        " `v2a data features` again"
      )
    found |= more
  return found


def inside(times, window: Window, start: float) -> np.ndarray:
  """Indices of the times that lie in the window, as many as it has frames."""
  times = times - start
  within = (times >= 0) & (times < window.seconds)
  return np.flatnonzero(within)[: window.num_frames]


def _place(name, times, values, window: Window, start: float) -> Example:
  """Those of `values` whose times lie in the window, with times and mask."""
  count, shown = window.num_frames, inside(times, window, start)
  placed = np.zeros((count, *values.shape[1:]), values.dtype)
  frame_times = np.zeros(count, np.float32)
  placed[: len(shown)] = values[shown]
  frame_times[: len(shown)] = times[shown] - start
  mask = np.arange(count) < len(shown)
  return {name: placed, "frame_times": frame_times, "frame_mask": mask}


def _cut_audio(
  content: Media, window: Window, start: float, duration: float
) -> Example:
  audio = np.zeros((window.num_samples, window.channels), np.float32)
  seconds = min(max(duration - start, 0.0), window.seconds)
  length = min(round(seconds * window.sample_rate), window.num_samples)
  first = round((start - content.start) * window.sample_rate)
  cut = content.audio[first : first + length]
  audio[: len(cut)] = np.clip(cut, -1.0, 1.0)
  seconds = seconds if len(content.audio) else 0.0
  return dict(audio=audio, duration=np.float32(seconds))


def _prompt(record, window: Window, tokenizer: TextTokenizer, rng) -> Example:
  texts = [record[field] for field in window.caption_fields if record[field]]
  pick = 0 if rng is None or not texts else int(rng.integers(len(texts)))
  ids, mask = tokenizer.encode(
    texts[pick] if texts else "", window.prompt_length
  )
  return dict(prompt=ids, prompt_mask=mask)


def _transcript(
  record, window: Window, tokenizer: Tokenizer, start: float
) -> Example:
  """The words that begin inside the window, on the window's clock."""
  words: Sequence[Mapping[str, Any]] = record["words"] or [
    {"word": word} for word in record["transcript"].split()
  ]
  onsets = spread([word.get("start") for word in words], record["duration"])
  inside = [
    {"word": word["word"], "start": onset - start}
    for word, onset in zip(words, onsets)
    if 0 <= onset - start < window.seconds
  ]
  ids, times, mask = tokenizer.encode_words(
    inside, window.transcript_length, window.seconds
  )
  timed = bool(words) and all(word.get("start") is not None for word in words)
  return dict(
    transcript=ids,
    transcript_times=times,
    transcript_mask=mask,
    transcript_timed=np.bool_(timed),
  )
