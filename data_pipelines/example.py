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

from data_pipelines import schema
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
  """

  seconds: float
  fps: float
  frame_size: tuple[int, int]
  sample_rate: int
  channels: int
  prompt_length: int
  transcript_length: int
  caption_fields: tuple[str, ...]

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
  """

  start: float
  frames: np.ndarray
  times: np.ndarray
  audio: np.ndarray

  @property
  def nbytes(self) -> int:
    return self.frames.nbytes + self.audio.nbytes + self.times.nbytes


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
  """
  duration = record["duration"]
  start = 0.0
  if rng is not None and crop == "random":
    # On whole samples, so that audio and frames are cut at the same instant.
    spare = max(duration - window.seconds, 0.0) * rng.random()
    start = math.floor(spare * window.sample_rate) / window.sample_rate
  content = _decode_media(record, window, start, cache, index)
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


def _decode_media(record, window, start, cache, index) -> Media:
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
  if record["video"]:
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
  return Media(start, frames, times, audio)


def cut_frames(content: Media, window: Window, start: float) -> Example:
  """The frames shown in the window that begins at `start` seconds."""
  count = window.num_frames
  times = content.times - start
  inside = np.flatnonzero((times >= 0) & (times < window.seconds))[:count]
  frames = np.zeros((count, *window.frame_size, 3), np.uint8)
  frame_times = np.zeros(count, np.float32)
  frames[: len(inside)] = content.frames[inside]
  frame_times[: len(inside)] = times[inside]
  mask = np.arange(count) < len(inside)
  return dict(frames=frames, frame_times=frame_times, frame_mask=mask)


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
