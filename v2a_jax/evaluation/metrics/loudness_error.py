"""Error of a sound's loudness.

Integrated loudness by ITU-R BS.1770-4 (pyloudnorm), in LUFS: a weighting by
frequency, and quiet blocks are not counted, so it is nearer to what is heard
than the RMS level. Blocks under -70 LUFS are gated; silence is taken as that.
"""

import numpy as np

from v2a_jax.evaluation.metrics import base
from v2a_jax.media.levels import loudness


class LoudnessError(base.ClipMetric):
  """Distance of the loudness from the true sound's."""

  id = variant = "loudness_error"
  label = "Loudness error"
  unit = "LU"
  bounds = (0.0, np.inf)
  direction = "lower"
  role = "sanity"
  about = (
    "Mean distance of the integrated loudness (ITU-R BS.1770-4) from that of"
    " the true sound. Undefined under 0.4 s."
  )

  def get_state(self, sample: base.Sample) -> float:
    own, true = (s.cached(_loudness) for s in (sample, sample.truth))
    return abs(own - true)


def _loudness(sample: base.Sample) -> float:
  return loudness(sample.waveform, sample.sample_rate)
