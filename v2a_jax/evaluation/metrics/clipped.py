"""Share of clipped clips."""

import numpy as np

from v2a_jax.evaluation.metrics import base
from v2a_jax.evaluation.metrics.fault import Fault

_FULL_SCALE = 0.999
_LARGEST_SHARE = 1e-3


class ClippedClips(Fault):
  """Share of clips with many samples at full scale."""

  id = "clipped"
  variant = "clipped_where_truth_is_not"
  label = "Clipped clips"
  chosen_by = ("quality",)
  about = (
    "Share of the clips with more than one sample in a thousand at full scale, of"
    " those whose true sound has not."
  )

  def has_fault(self, sample: base.Sample) -> bool:
    return is_clipped(sample.waveform)


def is_clipped(waveform: np.ndarray) -> bool:
  """Returns whether more than one sample in a thousand is at full scale."""
  if not waveform.size:
    return False
  return bool(np.mean(np.abs(waveform) >= _FULL_SCALE) > _LARGEST_SHARE)
