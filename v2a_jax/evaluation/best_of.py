"""The best of several takes of each clip, chosen as `v2a generate` chooses it.

Takes are ranked by how well their onsets coincide with those of motion in the
picture that the model was given (soundtrack/ranking.py), never by a metric of
timing: who is chosen by a judge cannot be measured by it.
"""

from collections.abc import Callable, Sequence

import numpy as np

from data_pipelines.loader_config import LoaderConfig
from v2a_jax import media
from v2a_jax.evaluation.clips import Clip
from v2a_jax.soundtrack import ranking

SEEDS = 2**32  # After the last seed comes the first.
# Between the seeds of two takes of a clip, so that those of clips do not meet.
_APART = 1_000_000


def choose(
  make: Callable[[int], list[np.ndarray]],
  clips: Sequence[Clip],
  *,
  count: int,
  sample_rate: int,
  loader: LoaderConfig,
) -> list[np.ndarray]:
  """Returns the best of `count` takes of each clip; of equals the first.

  Args:
    make: what is added to seeds → sounds float32 [samples, channels], one for
      each clip.
    clips: what the model is given.
    count: number of takes; of one nothing is chosen.
    sample_rate: sample rate of the sounds in Hz.
    loader: settings of the model's examples.

  Raises:
    MediaError: a picture cannot be read.
  """
  best = make(0)
  if count == 1:
    return best
  motions = [_motion(clip, loader) for clip in clips]

  def scores(sounds: Sequence[np.ndarray]) -> list[float]:
    return [
      ranking.motion_onset(
        sound[: round(clip.seconds * sample_rate)], sample_rate, motion
      )
      for sound, clip, motion in zip(sounds, clips, motions, strict=True)
    ]

  highest = scores(best)
  for take in range(1, count):
    sounds = make(take * _APART)
    for i, score in enumerate(scores(sounds)):
      if score > highest[i]:
        best[i], highest[i] = sounds[i], score
  return best


def _motion(clip: Clip, loader: LoaderConfig) -> ranking.Motion:
  """Measures the motion in the frames of the example, or else of the video."""
  if "frames" in clip.example:
    shown = clip.example["frame_mask"]
    return ranking.Motion.of(
      clip.example["frames"][shown], clip.example["frame_times"][shown]
    )
  video = media.limited(media.read_video)(
    clip.video,
    duration=clip.seconds,
    max_fps=loader.fps,
    size=loader.frame_size,
  )
  return ranking.Motion.of(video.frames, video.times)
