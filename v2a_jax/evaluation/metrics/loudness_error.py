"""Error of a sound's loudness.

Integrated loudness by ITU-R BS.1770-4 (pyloudnorm), in LUFS: a weighting by
frequency, and quiet blocks are not counted, so it is nearer to what is heard
than the RMS level. Blocks under -70 LUFS are gated; silence is taken as that.
"""

import numpy as np
import pyloudnorm

from v2a_jax.evaluation.metrics import base

_BLOCK_SECONDS = 0.4
_GATE = -70.0  # LUFS


class LoudnessError(base.ClipMetric):
  """Distance of the loudness from the true sound's."""

  id = variant = "loudness_error"
  label = "Loudness error"
  unit = "LU"
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


def loudness(waveform: np.ndarray, sample_rate: int) -> float:
  """Returns LUFS of [samples, channels], at least -70; NaN under 0.4 s."""
  if len(waveform) < _BLOCK_SECONDS * sample_rate:
    return np.nan
  if not np.any(waveform):
    return _GATE
  meter = pyloudnorm.Meter(sample_rate)
  value = meter.integrated_loudness(waveform.astype(np.float64))
  return max(float(value), _GATE)
