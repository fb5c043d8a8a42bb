"""The rows of the results: the model, and anchors to read its scores by.

generated       the system under evaluation; a model is given the clip's video,
                caption and transcript
word_times      the model, given the true times of the words too; only if asked
compressed_video, noisy_video, slow_video, film_video
                the model, given a worse picture (pictures.py); only if asked
no_video        the model, given words but no picture; only if asked
shuffled_transcript
                the model, given this clip's video and the words that another
                clip says, scored against this clip: the score of words that are
                not heeded; only if asked
ground_truth    the clip's true sound: the score of a perfect model
codec           the true sound through the codec: the model's ceiling
shuffled_video  the model, given another clip's video and this clip's words,
                scored against this clip: the score of following words alone;
                of a folder of sounds, the sound of another clip
shifted         the true sound 120 ms late: the right sound out of time
metronome       five clicks a second at the true sound's level: sound with
                onsets that knows nothing of the clip
silence         digital silence
noise           pink noise at the true sound's level
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any, Protocol

import numpy as np

from v2a_jax.basics.text import one_of
from v2a_jax.batch import Batch, Conditioning
from v2a_jax.evaluation import best_of, pictures
from v2a_jax.evaluation import clips as clips_lib
from v2a_jax.evaluation.clips import Clip
from v2a_jax.evaluation.metrics.level_error import level_dbfs
from v2a_jax.evaluation.schema import GENERATED, GROUND_TRUTH, SHUFFLED

ROWS = (
  *(GENERATED, GROUND_TRUTH, "codec", SHUFFLED),
  *("shifted", "metronome", "silence", "noise"),
)
WORD_TIMES = "word_times"
DEGRADED = tuple(pictures.DEGRADED)
NO_VIDEO, OTHER_WORDS = "no_video", "shuffled_transcript"
# Rows that are made only if they are asked for.
ASKED = (WORD_TIMES, *DEGRADED, NO_VIDEO, OTHER_WORDS)
# Rows that a model makes, and those that need a codec of its own.
MODEL_ROWS = (GENERATED, *ASKED, "codec", SHUFFLED)
# Rows that need other clips.
SWAPPED = (SHUFFLED, OTHER_WORDS)
_VIDEO_KEYS = ("frames", "frame_times", "frame_mask", "features")
_LOWEST_HZ = 20.0
SHIFT_MS = 120
_CLICK_EVERY = 0.2  # seconds
_CLICK_HZ, _CLICK_DECAY = 1000.0, 0.005  # a click's tone; seconds to 1 / e


class Tracker(Protocol):
  """The model under evaluation, such as `v2a_jax.soundtrack.Soundtracker`."""

  sample_rate: int  # of its sounds, Hz
  loader_config: Any  # of the examples that it takes
  # Bytes of a video to features [n f], where it does not encode the example's
  # frames.
  see: Callable[[bytes], np.ndarray] | None
  size: Mapping[str, Any]  # its `parameters` and their `precision`

  def sample(
    self,
    cond: Conditioning,
    *,
    seed: np.ndarray,
    seconds: np.ndarray,
    sampler: Any,
  ):
    """Returns sounds [b, samples, channels], one for each of `seed` [b].

    `seconds` [b] are the lengths of the clips.
    """

  def reconstruct(self, audio: np.ndarray):
    """Returns sounds [b, samples, channels], encoded and decoded."""

  def describe(self) -> dict[str, Any]:
    """Returns `name`, `checkpoint`, `config`, `sampler` for results.json."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """How the sounds of a row are generated.

  Attributes:
    seed: random seed of the model and of the noise row. The clip at position i
      is sampled with seed + i in all of the model's rows.
    batch_size: clips per call of the model.
    sampler: overrides of the sampler's fields.
    best_of: number of takes of a clip, of which the best is its sound; see
      best_of.py.
  """

  seed: int = 0
  batch_size: int = 8
  sampler: Any = None
  best_of: int = 1


def make(
  name: str,
  tracker: Tracker,
  clips: Sequence[Clip],
  *,
  settings: Settings,
  donors: Sequence[Clip] = (),
) -> list[np.ndarray]:
  """Generates the sounds of a row.

  Args:
    name: the row: one of `ROWS` or of `ASKED`.
    tracker: the model; rows that are not of `MODEL_ROWS` only read the
      `sample_rate` of the true sounds.
    clips: the clips.
    settings: how sounds are generated.
    donors: for each clip, the one whose video it gets in `shuffled_video`; one
      of them gives the words of `shuffled_transcript`.

  Returns:
    float32 [samples, channels] each, as long as the model's window, or as the
    clip for rows without a model.
  """
  if name == GROUND_TRUTH:
    return [clip.audio for clip in clips]
  if name == "silence":
    return [np.zeros_like(clip.audio) for clip in clips]
  if name == "shifted":
    delay = round(SHIFT_MS / 1000 * tracker.sample_rate)
    return [delayed(clip.audio, delay) for clip in clips]
  if name == "metronome":
    return [metronome(clip.audio, tracker.sample_rate) for clip in clips]
  if name == "noise":
    return [
      pink_noise(
        clip.audio, tracker.sample_rate, seed=(settings.seed, clip.position)
      )
      for clip in clips
    ]
  if name == "codec":
    call = lambda batch, seeds: tracker.reconstruct(batch["audio"])
    return _batched(call, clips, settings)
  if name == SHUFFLED:
    clips = with_videos_of(clips, donors)
  elif name == OTHER_WORDS:
    clips = with_words_of_others(clips, donors)
  elif name == WORD_TIMES:
    clips = [_given(clip, clip.word_times) for clip in clips]
  elif name == NO_VIDEO:
    clips = [_given(clip, _unseen(clip.example)) for clip in clips]
  elif name in DEGRADED:
    clips = [
      dataclasses.replace(
        clip, example=pictures.degrade(name, clip.example, seed=clip.position)
      )
      for clip in clips
    ]
  elif name != GENERATED:
    raise ValueError(f"row {name!r} {one_of((*ROWS, *ASKED))}")

  def sample(batch, seeds):
    cond = Batch.from_arrays(batch).cond
    return tracker.sample(
      cond, seed=seeds, seconds=batch["duration"], sampler=settings.sampler
    )

  def take(offset: int) -> list[np.ndarray]:
    seed = settings.seed + offset
    return _batched(sample, clips, dataclasses.replace(settings, seed=seed))

  return best_of.choose(
    take,
    clips,
    count=settings.best_of,
    sample_rate=tracker.sample_rate,
    loader=tracker.loader_config,
  )


def _batched(call, clips, settings: Settings) -> list[np.ndarray]:
  """Calls with batches of one shape, so that one program is compiled."""
  sounds, size = [], settings.batch_size
  for start in range(0, len(clips), size):
    part = clips[start : start + size]
    places = [clip.position for clip in part]
    places += places[-1:] * (size - len(part))
    seeds = (settings.seed + np.array(places, np.int64)) % best_of.SEEDS
    batch = call(clips_lib.stacked(part, size=size), seeds)
    sounds += list(np.asarray(batch, np.float32)[: len(part)])
  return sounds


def with_videos_of(clips: Sequence[Clip], donors: Sequence[Clip]) -> list[Clip]:
  """Gives every clip and its example the video of the donor beside it."""
  return [
    dataclasses.replace(
      _given(clip, _taken(donor, _VIDEO_KEYS)), video=donor.video
    )
    for clip, donor in zip(clips, donors, strict=True)
  ]


def with_words_of_others(
  clips: Sequence[Clip], donors: Sequence[Clip]
) -> list[Clip]:
  """Gives every example the words of the nearest donor that says others.

  That is the one beside the clip or one before; where none says others, the one
  beside it gives what it has.
  """
  changed = []
  for i, clip in enumerate(clips):
    nearest = [*reversed(donors[: i + 1]), *reversed(donors[i + 1 :])]
    says = lambda donor, own=clip.transcript: donor.transcript not in ("", own)
    donor = next(filter(says, nearest), donors[i])
    changed.append(_given(clip, _taken(donor, clips_lib.TEXTS)))
  return changed


def _given(clip: Clip, arrays: Mapping[str, np.ndarray]) -> Clip:
  return dataclasses.replace(clip, example={**clip.example, **arrays})


def _taken(clip: Clip, keys: Sequence[str]) -> dict[str, np.ndarray]:
  return {k: v for k, v in clip.example.items() if k in keys}


def _unseen(example: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns what stands for the frames of an example without a picture."""
  return {k: np.zeros_like(v) for k, v in example.items() if k in _VIDEO_KEYS}


def pink_noise(true: np.ndarray, sample_rate: int, *, seed) -> np.ndarray:
  """Draws noise of power 1 / f above 20 Hz, as long and loud as `true`."""
  rng = np.random.default_rng(seed)
  spectrum = np.fft.rfft(rng.standard_normal(true.shape), axis=0)
  hz = np.fft.rfftfreq(len(true), 1 / sample_rate)
  spectrum *= np.maximum(hz, _LOWEST_HZ)[:, None] ** -0.5
  spectrum[hz < _LOWEST_HZ] = 0
  noise = np.fft.irfft(spectrum, len(true), axis=0)
  return at_level_of(noise, true)


def delayed(sound: np.ndarray, samples: int) -> np.ndarray:
  """Delays a sound, which begins with silence; negative: it begins early."""
  gap = np.zeros_like(sound[: abs(samples)])
  if samples < 0:
    return np.concatenate([sound[-samples:], gap])
  return np.concatenate([gap, sound])[: len(sound)]


def metronome(true: np.ndarray, sample_rate: int) -> np.ndarray:
  """Makes five clicks a second, as long and, if they fit, loud as `true`."""
  time = np.arange(len(true)) / sample_rate % _CLICK_EVERY
  clicks = np.sin(2 * np.pi * _CLICK_HZ * time) * np.exp(-time / _CLICK_DECAY)
  return at_level_of(np.repeat(clicks[:, None], true.shape[1], 1), true)


def at_level_of(sound: np.ndarray, true: np.ndarray) -> np.ndarray:
  """Scales a sound to the level of another, clipped at full scale."""
  gain = level_dbfs(true) - level_dbfs(sound)
  return np.clip(sound * 10 ** (gain / 20), -1, 1).astype(np.float32)
