"""Loudness and true peak of sound, and bringing it to both.

Loudness is the integrated one of ITU-R BS.1770-4 and EBU R 128, in LUFS. The
true peak is that of the curve between the samples, found as in Annex 2 of the
same recommendation by oversampling to at least 192 kHz, in dBTP.
"""

import math

import numpy as np
import pyloudnorm
from scipy import ndimage, signal

BLOCK = 0.4  # seconds, of the meter; shorter sound has no loudness
PEAK = -1.0  # dBTP, the highest of EBU R 128
_OVERSAMPLED = 192_000  # Hz
_REACH = 0.010  # seconds before and after a peak in which it is turned down
_PIECE = 10  # seconds that are oversampled at a time
_EDGE = 64  # samples around a piece that the filter needs
_NEAR = 0.05  # LU; a loudness this close to the target is there
_ROUNDS = 8


def integrated(samples: np.ndarray, sample_rate: int) -> float | None:
  """Measures the loudness of samples [t channels] in LUFS.

  None for sound that is shorter than the meter's block, or silent.
  """
  if len(samples) < BLOCK * sample_rate:
    return None
  meter = pyloudnorm.Meter(sample_rate)
  found = float(meter.integrated_loudness(np.asarray(samples, np.float64)))
  return found if math.isfinite(found) else None


def true_peak(samples: np.ndarray, sample_rate: int) -> float:
  """Measures the true peak of samples [t channels] in dBTP; -180 of silence."""
  return decibels(_peaks(samples, sample_rate).max(initial=0.0))


def decibels(amplitude: float) -> float:
  """Converts an amplitude; 0 becomes -180."""
  return 20 * math.log10(max(float(amplitude), 1e-9))


def gain(
  samples: np.ndarray, sample_rate: int, loudness: float | None
) -> np.float32:
  """Returns the factor that brings samples to a loudness, without a limit."""
  now = None if loudness is None else integrated(samples, sample_rate)
  return np.float32(1.0 if now is None else 10 ** ((loudness - now) / 20))


def level(
  samples: np.ndarray,
  sample_rate: int,
  *,
  loudness: float | None,
  peak: float = PEAK,
) -> np.ndarray:
  """Brings samples [t channels] to a loudness, under a true peak.

  Peaks above the limit are turned down for some milliseconds and the rest is
  raised again, until the loudness is reached or limiting gains no more.

  Args:
    samples: float32.
    sample_rate: hertz.
    loudness: LUFS, or None to leave the level as it is, or turn all of it down
      where the peak is too high. Sound that has no loudness is left so, too.
    peak: highest true peak in dBTP.

  Returns:
    float32 [t channels].
  """
  samples = np.asarray(samples, np.float32)
  now = None if loudness is None else integrated(samples, sample_rate)
  if now is None:
    over = true_peak(samples, sample_rate) - peak
    return samples * np.float32(10 ** (-max(over, 0.0) / 20))
  raised = 0.0  # dB
  for _ in range(_ROUNDS):
    raised += loudness - now
    louder = samples * np.float32(10 ** (raised / 20))
    out = limit(louder, sample_rate, peak=peak)
    before, now = now, integrated(out, sample_rate)
    if now is None or abs(loudness - now) < _NEAR or abs(now - before) < 1e-3:
      break
  return out


def limit(
  samples: np.ndarray, sample_rate: int, *, peak: float = PEAK
) -> np.ndarray:
  """Turns samples [t channels] down around true peaks over `peak` dBTP.

  The gain of all channels is the smallest that any peak within 10 ms needs,
  smoothed over as long a time, so that it is there when the peak comes.
  """
  ceiling = 10 ** (peak / 20)
  peaks = _peaks(samples, sample_rate)
  if peaks.max(initial=0.0) <= ceiling:
    return samples
  reach = max(round(_REACH * sample_rate), 1)
  needed = np.minimum(ceiling / np.maximum(peaks, 1e-9), 1.0)
  needed = ndimage.minimum_filter1d(needed, 2 * reach + 1, mode="nearest")
  window = np.hanning(2 * reach + 3)[1:-1]
  gain = ndimage.convolve1d(needed, window / window.sum(), mode="nearest")
  out = (samples * gain[:, None]).astype(np.float32)
  # A gain that moves bends the curve between samples a little.
  over = _peaks(out, sample_rate).max() / ceiling
  return (out / max(over, 1.0)).astype(np.float32)


def _peaks(samples: np.ndarray, sample_rate: int) -> np.ndarray:
  """Returns the largest amplitude from each sample to the next, float32 [t]."""
  factor = max(math.ceil(_OVERSAMPLED / sample_rate), 1)
  count, size = len(samples), _PIECE * sample_rate
  peaks = np.zeros(count, np.float32)
  for begin in range(0, count, size):
    end = min(begin + size, count)
    first, last = max(begin - _EDGE, 0), min(end + _EDGE, count)
    piece = np.asarray(samples[first:last], np.float32)
    between = signal.resample_poly(piece, factor, 1, axis=0)
    between = np.abs(between).reshape(last - first, -1).max(axis=1)
    exact = np.abs(piece).max(axis=1)
    found = np.maximum(between, exact)
    peaks[begin:end] = found[begin - first : end - first]
  return peaks
