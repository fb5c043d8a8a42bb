"""Levels of a sound: loudness in LUFS, and up to which frequency it reaches.

The power spectrum is averaged over frames of 2048 samples (Hann, half
overlapping) and over a third of an octave around each frequency. The bandwidth
is the highest frequency whose density is at most 60 dB below the largest one.
A low-pass or a low sample rate ends it; a bright sound does not move it much.
"""

import numpy as np
import pyloudnorm
from scipy import signal

_FRAME = 2048
_RANGE_DB = 60.0
_LOWEST_HZ = 40.0
_SILENT = 1e-13  # of the density, full scale^2 / Hz
_HALF_BAND = 2 ** (1 / 6)
_BLOCK_SECONDS = 0.4
_GATE = -70.0  # LUFS


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


def loudness(waveform: np.ndarray, sample_rate: int) -> float:
  """Returns LUFS of [samples, channels], at least -70; NaN under 0.4 s."""
  if len(waveform) < _BLOCK_SECONDS * sample_rate:
    return np.nan
  if not np.any(waveform):
    return _GATE
  meter = pyloudnorm.Meter(sample_rate)
  value = meter.integrated_loudness(waveform.astype(np.float64))
  return max(float(value), _GATE)
