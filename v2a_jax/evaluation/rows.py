"""The rows of a report: the model's sound, and anchors to read it by.

generated       the model, given the clip's video, caption and transcript
ground_truth    the clip's own sound: what a perfect answer scores
codec           the true sound through the codec: the model's ceiling
shuffled_video  the model, given another clip's video and this clip's words;
                scored against this clip: what following only words scores
silence         digital silence
noise           pink noise at the true sound's level
"""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any, Protocol

import numpy as np

from v2a_jax.batch import Batch, Conditioning
from v2a_jax.evaluation import clips as clips_lib
from v2a_jax.evaluation.clips import Clip
from v2a_jax.evaluation.metrics import sanity

ROWS = (
  "generated",
  "ground_truth",
  "codec",
  "shuffled_video",
  "silence",
  "noise",
)
_VIDEO_KEYS = ("frames", "frame_times", "frame_mask")
_LOWEST_HZ = 20.0


class Tracker(Protocol):
  """What is asked of a model; `v2a_jax.soundtrack.Soundtracker` has it."""

  sample_rate: int
  window_seconds: float
  loader_config: Any

  def sample(self, cond: Conditioning, *, seed: int, sampler: Any):
    """Sound [b, samples, channels]; row i is drawn from seed + i."""

  def reconstruct(self, audio: np.ndarray):
    """Sound [b, samples, channels] through the codec."""

  def describe(self) -> dict[str, Any]:
    """`name`, `checkpoint`, `config` and `sampler` of results.json."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """How rows are made.

  Attributes:
    seed: of the model's noise, of the shuffle and of the noise row. Clip i is
      sampled with seed + i in both of the model's rows.
    batch_size: clips a call of the model.
    sampler: overrides of the sampler's fields.
  """

  seed: int = 0
  batch_size: int = 8
  sampler: Any = None


def make(
  name: str,
  tracker: Tracker,
  clips: Sequence[Clip],
  *,
  settings: Settings,
  progress: Callable[[int], None] = lambda done: None,
) -> list[np.ndarray]:
  """A row's sounds.

  Args:
    name: of `ROWS`.
    tracker: the model.
    clips: what it answers.
    settings: see `Settings`.
    progress: told how many clips are done.

  Returns:
    float32 [samples, channels] a clip, as it came from the model: the length
    is the model's window, or the clip's where no model is asked.
  """
  if name == "ground_truth":
    return [clip.audio for clip in clips]
  if name == "silence":
    return [np.zeros_like(clip.audio) for clip in clips]
  if name == "noise":
    return [
      pink_noise(clip.audio, tracker.sample_rate, seed=(settings.seed, i))
      for i, clip in enumerate(clips)
    ]
  if name == "codec":
    call = lambda batch, start: tracker.reconstruct(batch["audio"])
    return _batched(call, clips, settings.batch_size, progress)
  if name == "shuffled_video":
    clips = with_other_videos(clips, seed=settings.seed)
  elif name != "generated":
    raise ValueError(f"no row is named {name!r}; there are {', '.join(ROWS)}")

  def sample(batch, start):
    cond = Batch.from_arrays(batch).cond
    return tracker.sample(
      cond, seed=settings.seed + start, sampler=settings.sampler
    )

  return _batched(sample, clips, settings.batch_size, progress)


def _batched(call, clips, size, progress) -> list[np.ndarray]:
  """Calls on batches of one shape, so that one program is compiled."""
  sounds = []
  for start in range(0, len(clips), size):
    part = clips[start : start + size]
    made = call(clips_lib.stacked(part, size=size), start)
    sounds += list(np.asarray(made, np.float32)[: len(part)])
    progress(len(sounds))
  return sounds


def with_other_videos(clips: Sequence[Clip], *, seed: int) -> list[Clip]:
  """Clips in which every example has the video of another one.

  The videos move one place along a random circle: each is used once, and none
  stays.
  """
  order = np.random.default_rng(seed).permutation(len(clips))
  giver = dict(zip(order, np.roll(order, 1)))
  shuffled = []
  for i, clip in enumerate(clips):
    video = {key: clips[giver[i]].example[key] for key in _VIDEO_KEYS}
    shuffled.append(
      dataclasses.replace(clip, example={**clip.example, **video})
    )
  return shuffled


def pink_noise(true: np.ndarray, sample_rate: int, *, seed) -> np.ndarray:
  """Noise with power 1 / f above 20 Hz, of the shape and level of `true`."""
  rng = np.random.default_rng(seed)
  spectrum = np.fft.rfft(rng.standard_normal(true.shape), axis=0)
  hz = np.fft.rfftfreq(len(true), 1 / sample_rate)
  spectrum *= np.maximum(hz, _LOWEST_HZ)[:, None] ** -0.5
  spectrum[hz < _LOWEST_HZ] = 0
  noise = np.fft.irfft(spectrum, len(true), axis=0)
  gain = sanity.level_dbfs(true) - sanity.level_dbfs(noise)
  return np.clip(noise * 10 ** (gain / 20), -1, 1).astype(np.float32)
