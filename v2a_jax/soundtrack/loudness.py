"""Loudness and true peak of sound, and bringing it to both.

Loudness is the integrated one of ITU-R BS.1770-4 and EBU R 128, in LUFS. The
true peak is that of the curve between the samples, found as in Annex 2 of the
same recommendation by oversampling to at least 192 kHz, in dBTP.
"""

from collections.abc import Iterator
import math

import numpy as np
import pyloudnorm
from scipy import ndimage, signal

from v2a_jax.basics import scratch

BLOCK = 0.4  # seconds, of the meter; shorter sound has no loudness
PEAK = -1.0  # dBTP, the highest of EBU R 128
_OVERSAMPLED = 192_000  # Hz
_REACH = 0.010  # seconds before and after a peak in which it is turned down
_PIECE = 10  # seconds that are oversampled at a time
_EDGE = 64  # samples around a piece that the filter needs
_STEP = 0.25  # of a block, from one to the next
_SILENT, _BELOW = -70.0, 10.0  # LUFS and LU: the gates
_NEAR = 0.05  # LU; a loudness this close to the target is there
_ROUNDS = 8


def integrated(samples: np.ndarray, sample_rate: int) -> float | None:
  """Measures the loudness of samples [t channels] in LUFS.

  None for sound that is shorter than the meter's block, or silent.
  """
  if len(samples) < BLOCK * sample_rate:
    return None
  count = round((len(samples) / sample_rate - BLOCK) / (BLOCK * _STEP)) + 1
  first = (BLOCK * _STEP * np.arange(count) * sample_rate).astype(int)
  last = (BLOCK * (_STEP * np.arange(count) + 1) * sample_rate).astype(int)
  last = np.minimum(last, len(samples))
  energy = np.zeros(count)
  for channel in range(samples.shape[1]):
    sums = _energies(samples[:, channel], sample_rate, [first, last])
    energy += (sums[1] - sums[0]) / (BLOCK * sample_rate)
  loudness = lambda x: -0.691 + 10 * np.log10(np.maximum(x, 1e-30))
  heard = energy[loudness(energy) >= _SILENT]
  if not len(heard):
    return None
  heard = heard[loudness(heard) > loudness(heard.mean()) - _BELOW]
  return float(loudness(heard.mean()))


def _energies(mono: np.ndarray, sample_rate: int, places) -> list[np.ndarray]:
  """Returns the K-weighted energy before each of some places in samples [t]."""
  filters = list(pyloudnorm.Meter(sample_rate)._filters.values())
  states = [np.zeros(max(len(f.a), len(f.b)) - 1) for f in filters]
  sums, total = [np.zeros(len(place)) for place in places], 0.0
  for begin, end in _pieces(len(mono), sample_rate):
    x = np.asarray(mono[begin:end], np.float64)
    for i, f in enumerate(filters):
      x, states[i] = signal.lfilter(f.b, f.a, x, zi=states[i])
      x *= f.passband_gain
    until = total + np.concatenate([[0.0], np.cumsum(np.square(x))])
    total = until[-1]
    for place, found in zip(places, sums):
      here = (begin <= place) & (place <= end)
      found[here] = until[place[here] - begin]
  return sums


def _pieces(count: int, sample_rate: int) -> Iterator[tuple[int, int]]:
  """Yields (begin, end) of pieces of so many samples, in order."""
  size = _PIECE * sample_rate
  for begin in range(0, count, size):
    yield begin, min(begin + size, count)


def true_peak(samples: np.ndarray, sample_rate: int) -> float:
  """Measures the true peak of samples [t channels] in dBTP; -180 of silence."""
  return decibels(_highest(samples, sample_rate))


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
    return scaled(samples, -max(over, 0.0))
  raised = 0.0  # dB
  for _ in range(_ROUNDS):
    raised += loudness - now
    out = limit(scaled(samples, raised), sample_rate, peak=peak)
    before, now = now, integrated(out, sample_rate)
    if now is None or abs(loudness - now) < _NEAR or abs(now - before) < 1e-3:
      break
  return out


def scaled(samples: np.ndarray, decibels: float) -> np.ndarray:
  """Returns samples at another level, float32 [t channels]."""
  out = scratch.empty(samples.shape)
  return np.multiply(samples, np.float32(10 ** (decibels / 20)), out=out)


def limit(
  samples: np.ndarray, sample_rate: int, *, peak: float = PEAK
) -> np.ndarray:
  """Turns samples [t channels] down around true peaks over `peak` dBTP.

  The gain of all channels is the smallest that any peak within 10 ms needs,
  smoothed over as long a time, so that it is there when the peak comes.
  """
  ceiling = 10 ** (peak / 20)
  if _highest(samples, sample_rate) <= ceiling:
    return samples
  reach = max(round(_REACH * sample_rate), 1)
  window = np.hanning(2 * reach + 3)[1:-1]
  out = scratch.empty(samples.shape)
  for begin, end in _pieces(len(samples), sample_rate):
    first = max(begin - 2 * reach - 1, 0)
    peaks = _peaks(samples, sample_rate, first, end + 2 * reach + 1)
    needed = np.minimum(ceiling / np.maximum(peaks, 1e-9), 1.0)
    needed = ndimage.minimum_filter1d(needed, 2 * reach + 1, mode="nearest")
    gain = ndimage.convolve1d(needed, window / window.sum(), mode="nearest")
    out[begin:end] = (
      samples[begin:end] * gain[begin - first :, None][: end - begin]
    )
  # A gain that moves bends the curve between samples a little.
  out /= np.float32(max(_highest(out, sample_rate) / ceiling, 1.0))
  return out


def _highest(samples: np.ndarray, sample_rate: int) -> float:
  """Returns the largest amplitude between samples [t channels]."""
  pieces = _pieces(len(samples), sample_rate)
  found = [_peaks(samples, sample_rate, *piece).max() for piece in pieces]
  return float(max(found, default=0.0))


def _peaks(
  samples: np.ndarray, sample_rate: int, begin: int, end: int
) -> np.ndarray:
  """Returns the largest amplitude from each sample to the next, float32.

  Of those in [begin, end), as far as there are any.
  """
  factor = max(math.ceil(_OVERSAMPLED / sample_rate), 1)
  end = min(end, len(samples))
  first, last = max(begin - _EDGE, 0), min(end + _EDGE, len(samples))
  piece = np.asarray(samples[first:last], np.float32)
  between = signal.resample_poly(piece, factor, 1, axis=0)
  between = np.abs(between).reshape(last - first, -1).max(axis=1)
  exact = np.abs(piece).max(axis=1)
  return np.maximum(between, exact)[begin - first : end - first]
