"""Bandwidth: up to which frequency there is sound, and what of it is lost.

  lost band = max(0, log2(bandwidth of the true sound / bandwidth))  octaves

`media/levels.py` says how it is measured.
"""

import numpy as np

from v2a_jax.evaluation.metrics import base
from v2a_jax.media.levels import bandwidth


class LostBand(base.ClipMetric):
  """Octaves at the top of the true sound's spectrum that are missing."""

  id = variant = "lost_band"
  label = "Lost band"
  unit = "octaves"
  bounds = (0.0, np.inf)
  direction = "lower"
  role = "sanity"
  chosen_by = ("quality",)
  about = (
    "Mean number of octaves by which the sound ends below the highest frequency"
    " of the true sound, 60 dB under the strongest; 0 where it does not."
    " Undefined for silence."
  )

  def get_state(self, sample: base.Sample) -> float:
    own, true = (bandwidth_of(s) for s in (sample, sample.truth))
    return float(np.maximum(0.0, np.log2(true / own)))  # NaN stays.


class Bandwidth(base.ClipMetric):
  """Highest frequency with sound."""

  id = variant = "bandwidth"
  label = "Bandwidth"
  unit = "kHz"
  bounds = (0.0, np.inf)
  direction = "none"
  role = "shown"
  chosen_by = ("quality",)
  about = "Mean of the highest frequency within 60 dB of the strongest."

  def get_state(self, sample: base.Sample) -> float:
    return bandwidth_of(sample) / 1000


def bandwidth_of(sample: base.Sample) -> float:
  """Returns a sample's bandwidth in Hz, NaN for silence."""
  return sample.cached(_bandwidth)


def _bandwidth(sample: base.Sample) -> float:
  return bandwidth(sample.waveform, sample.sample_rate)
