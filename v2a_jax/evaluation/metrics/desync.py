"""How far in time a sound is from its picture, by the published Synchformer.

  DeSync = mean over clips of |likeliest offset|, seconds, at both ends of a clip

as av-benchmark computes it for MMAudio (https://arxiv.org/abs/2412.15322), for
clips of 4.8 seconds and longer. The network was trained on real video, and
conditions MMAudio's generators, whose sound it may therefore favour.
"""

import functools

import numpy as np

from data_pipelines import footage
from v2a_jax.evaluation.looks import Look
from v2a_jax.evaluation.metrics import base
from v2a_jax.hearing import synchformer


class DeSync(base.ClipMetric):
  """Mean size of the offset that Synchformer finds likeliest."""

  id, variant = "desync", "synchformer_ends_4.8s"
  label = "DeSync"
  unit = "s"
  bounds = (0.0, 2.0)
  direction = "lower"
  role = "shown"
  embedding = synchformer.Synchformer
  needs_video = needs_sight = True
  look = Look(
    "synchformer",
    synchformer.FPS,
    functools.partial(footage.smaller, pixels=synchformer.PIXELS),
    lambda video, seconds: synchformer.judge().watch(
      footage.at_instants(video, fps=synchformer.FPS, seconds=seconds)
    ),
  )
  unmet = "no clip with a picture of what sounds is 4.8 s long"
  about = (
    "Mean size of the likeliest offset, of 21 within ±2 s, of the first and of"
    " the last 4.8 s of each clip, by Synchformer, as in av-benchmark. Random"
    " answers come to 1.05 s."
  )

  def judges(self, clip) -> bool:
    return super().judges(clip) and clip.seconds >= _LEAST

  def get_state(self, sample: base.Sample) -> float:
    sound = sample.features[self.embedding.id].vectors
    picture = (sample.truth or sample).cached(_picture)
    sound = sound.reshape(len(sound), -1, picture.shape[-1])
    if min(len(sound), len(picture)) < synchformer.SEGMENTS:
      return float("nan")
    return synchformer.judge().offset(picture, sound)


# Of the segments that are compared, to the frame.
_LEAST = 0.32 * (synchformer.SEGMENTS + 1)


def _picture(sample: base.Sample) -> np.ndarray:
  return sample.clip.look(DeSync.look)
