"""Bandwidth: up to which frequency there is sound, and what of it is lost.

The power spectrum is averaged over frames of 2048 samples (Hann, half
overlapping) and over a third of an octave around each frequency. The bandwidth
is the highest frequency whose density is at most 60 dB below the largest one.
A low-pass or a low sample rate ends it; a bright sound does not move it much.

  lost band = max(0, log2(bandwidth of the true sound / bandwidth))  octaves
"""

import numpy as np
from scipy import signal

from v2a_jax.evaluation.metrics import base

_FRAME = 2048
_RANGE_DB = 60.0
_LOWEST_HZ = 40.0
_SILENT = 1e-13  # of the density, full scale^2 / Hz
_HALF_BAND = 2 ** (1 / 6)


class LostBand(base.ClipMetric):
  """Octaves at the top of the true sound's spectrum that are missing."""

  id = variant = "lost_band"
  label = "Lost band"
  unit = "octaves"
  direction = "lower"
  role = "sanity"
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
  direction = "none"
  role = "shown"
  about = "Mean of the highest frequency within 60 dB of the strongest."

  def get_state(self, sample: base.Sample) -> float:
    return bandwidth_of(sample) / 1000


def bandwidth_of(sample: base.Sample) -> float:
  """Returns a sample's bandwidth in Hz, NaN for silence."""
  return sample.cached(_bandwidth)


def _bandwidth(sample: base.Sample) -> float:
  return bandwidth(sample.waveform, sample.sample_rate)


def bandwidth(waveform: np.ndarray, sample_rate: int) -> float:
  """Returns the bandwidth of [samples, channels] in Hz, NaN for silence."""
  if len(waveform) < _FRAME:
    waveform = np.pad(waveform, ((0, _FRAME - len(waveform)), (0, 0)))
  hz, density = signal.welch(
    waveform.astype(np.float64),
    sample_rate,
    nperseg=_FRAME,
    detrend=False,
    axis=0,
  )
  total = np.concatenate([[0.0], np.cumsum(density.mean(axis=1))])
  first = np.searchsorted(hz, hz / _HALF_BAND)
  last = np.searchsorted(hz, hz * _HALF_BAND, side="right")
  smooth = (total[last] - total[first]) / np.maximum(last - first, 1)
  smooth[hz < _LOWEST_HZ] = 0
  if smooth.max() < _SILENT:
    return np.nan
  loud = smooth >= smooth.max() * 10 ** (-_RANGE_DB / 10)
  return float(hz[np.flatnonzero(loud)[-1]])
