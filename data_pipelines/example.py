"""Decodes a record as an example: arrays of fixed shapes, with masks.

An example is a window of the record, with times in seconds from the window's
start. Frames keep their presentation times, audio is resampled, text becomes
token ids; whatever the clip lacks is zero and masked. The keys are listed in
docs/architecture.md.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any

import numpy as np

from data_pipelines import features as features_lib
from data_pipelines import schema, stages
from data_pipelines.decoding import Media, MediaCache, decode_media
from data_pipelines.tokenizer import TextTokenizer, Tokenizer, with_times
from data_pipelines.window import Window
from v2a_jax import media
from v2a_jax.basics.settings import SettingError

Example = dict[str, np.ndarray]


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
    One row of a loader's batch, without `audio` where the window has none. Its
    duration ends with the sound, so that what is missing of it has no weight in
    training and evaluation; without sound it is 0.

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
  nothing = dict.fromkeys(schema.BYTES_FIELDS, b"") | {"duration": 0.0}
  empty = decode_media(nothing, window)
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
