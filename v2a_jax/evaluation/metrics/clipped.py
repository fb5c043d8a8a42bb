"""Share of clipped clips."""

import numpy as np

from v2a_jax.evaluation import intervals
from v2a_jax.evaluation.metrics import base

_FULL_SCALE = 0.999
_LARGEST_SHARE = 1e-3


class ClippedClips(base.ClipMetric):
  """Share of clips with many samples at full scale."""

  id = "clipped"
  label = "Clipped clips"
  bounds = (0.0, 1.0)
  direction = "lower"
  role = "sanity"
  about = (
    "Share of clips with more than one sample in a thousand at full scale."
  )

  def get_state(self, sample: base.Sample) -> bool:
    return is_clipped(sample.waveform)

  def compute(self, states, *, seed=0) -> intervals.Estimate:
    return intervals.share(states)


def is_clipped(waveform: np.ndarray) -> bool:
  """Returns whether more than one sample in a thousand is at full scale."""
  if not waveform.size:
    return False
  return bool(np.mean(np.abs(waveform) >= _FULL_SCALE) > _LARGEST_SHARE)
