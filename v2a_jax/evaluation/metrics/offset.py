"""Signed offset in time between a sound and the true sound.

Two curves at 100 Hz stand for the sounds: the strength of onsets (onsets.py),
smoothed with a Gaussian of 20 ms, and the level (RMS of 10 ms in dB, floored at
-80 dBFS). With centred curves a of the sound and b of the true sound,

  r(lag) = sum_t a(t + lag) b(t) / (|a| |b|)
  offset = the lag in [-500 ms, 500 ms] of the largest r

with a parabola through the three values around the peak. A positive offset is
late. A plain correlation rather than one corrected for the shorter overlap of
large lags, as chance peaks are largest there. r(0) falls smoothly with a shift,
to about 0.8 at 20 ms, 0.4 at 40 ms and 0 at 80 ms of delay, where a count of
matches within a tolerance is a staircase.

Knapp and Carter, "The generalized correlation method for estimation of time
delay", 1976, without the weighting of frequencies.
"""

import abc
from collections.abc import Sequence

import numpy as np
from scipy import ndimage, signal

from v2a_jax.evaluation import intervals
from v2a_jax.evaluation.metrics import base, onsets

LARGEST = 500.0  # ms
_STEP = 10.0  # ms between values of a curve
_SMOOTHING = 2.0  # steps
_LEVEL_FLOOR = 1e-8  # -80 dBFS


class _Offset(base.ClipMetric):
  """Median offset over clips, and how far clips are apart."""

  unit = "ms"
  bounds = (-LARGEST, LARGEST)
  direction = "none"
  role = "shown"
  needs_sight = True

  @abc.abstractmethod
  def curve(self, sample: base.Sample) -> np.ndarray:
    """Returns the curve of which the lag is measured, float [frames]."""

  def get_state(self, sample: base.Sample) -> float:
    return offset(self.curve(sample), self.curve(sample.truth))

  def compute(self, states, *, seed=0) -> intervals.Estimate:
    return median_with_spread(self.values(states), seed=seed)


class OnsetOffset(_Offset):
  """Offset of the onsets from those of the true sound."""

  id = "onset_offset"
  label = "Offset of onsets"
  about = (
    "Median over clips of the lag, within ±500 ms, at which onsets correlate"
    " best with those of the true sound; positive is late. `spread` is the"
    " range of the middle half of the clips: near 10 ms where sounds are in"
    " time, some hundred where lags are arbitrary."
  )

  def curve(self, sample: base.Sample) -> np.ndarray:
    return smoothed_onsets(sample)


class EnvelopeOffset(_Offset):
  """Offset of the level from that of the true sound."""

  id = "envelope_offset"
  label = "Offset of level"
  about = (
    "As the offset of onsets, by the level in dB of every 10 ms: holds for"
    " sounds without clear onsets."
  )

  def curve(self, sample: base.Sample) -> np.ndarray:
    return sample.cached(_levels)


class SyncError(base.ClipMetric):
  """Mean size of the offset of onsets."""

  id = "sync_error"
  label = "Sync error"
  unit = "ms"
  bounds = (0.0, LARGEST)
  direction = "lower"
  about = (
    "Mean size of the offset of onsets. A sound without onsets counts as 500"
    " ms, arbitrary lags are 250 to 300 ms on average."
  )
  judges_timing = needs_sight = True

  def get_state(self, sample: base.Sample) -> float:
    true = smoothed_onsets(sample.truth)
    if not _varies(true):
      return np.nan
    lag = offset(smoothed_onsets(sample), true)
    return abs(lag) if np.isfinite(lag) else LARGEST


class OnsetCorrelation(base.ClipMetric):
  """Correlation of the strength of onsets, without any lag."""

  id = "onset_correlation"
  label = "Onset correlation"
  bounds = (-1.0, 1.0)
  direction = "higher"
  about = (
    "Correlation of the strength of onsets with that of the true sound: 1 at"
    " best, 0 by chance and for silence. A delay of 20 ms leaves about 0.8, one"
    " of 40 ms 0.4, one of 80 ms nothing."
  )
  judges_timing = needs_sight = True

  def get_state(self, sample: base.Sample) -> float:
    true = smoothed_onsets(sample.truth)
    if not _varies(true):
      return np.nan
    own = smoothed_onsets(sample)
    return correlation(own, true)[len(true) - 1] if _varies(own) else 0.0


def smoothed_onsets(sample: base.Sample) -> np.ndarray:
  """Returns the strength of onsets, smoothed, float64 [frames]."""
  return sample.cached(_smoothed)


def _smoothed(sample: base.Sample) -> np.ndarray:
  rises = onsets.strength_of(sample).astype(np.float64)
  return ndimage.gaussian_filter1d(rises, _SMOOTHING, mode="constant")


def _levels(sample: base.Sample) -> np.ndarray:
  """Returns the level of every 10 ms, dBFS, float64 [frames]."""
  mono = sample.waveform.mean(axis=1, dtype=np.float64)
  step = round(sample.sample_rate * _STEP / 1000)
  frames = mono[: len(mono) // step * step].reshape(-1, step)
  return 10 * np.log10(np.square(frames).mean(axis=1) + _LEVEL_FLOOR)


def _varies(curve: np.ndarray) -> bool:
  return len(curve) > 1 and np.ptp(curve) > 1e-6


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Returns r of every lag from 1 - len(b) to len(a) - 1; both vary."""
  a, b = a - a.mean(), b - b.mean()
  product = np.linalg.norm(a) * np.linalg.norm(b)
  return signal.correlate(a, b, mode="full", method="fft") / product


def offset(a: np.ndarray, b: np.ndarray) -> float:
  """Returns how much later `a` is than `b`, ms; NaN where one is constant.

  The curves have a value every 10 ms.
  """
  if not (_varies(a) and _varies(b)):
    return np.nan
  r, zero = correlation(a, b), len(b) - 1
  most = round(LARGEST / _STEP)
  first = max(0, zero - most)
  near = r[first : zero + most + 1]
  peak = int(near.argmax())
  return _STEP * (first + peak + _vertex(near, peak) - zero)


def _vertex(values: np.ndarray, peak: int) -> float:
  """Returns where the parabola around a peak has its top, from the peak."""
  if not 0 < peak < len(values) - 1:
    return 0.0
  before, at, after = values[peak - 1 : peak + 2]
  bend = before - 2 * at + after
  return 0.5 * (before - after) / bend if bend < -1e-12 else 0.0


def median_with_spread(
  offsets: Sequence[float], *, seed: int = 0
) -> intervals.Estimate:
  """Estimates the median; the extra `spread` is the interquartile range."""
  estimate = intervals.median(offsets, seed=seed)
  known = np.asarray(offsets)[np.isfinite(offsets)]
  quartiles = np.quantile(known, [0.25, 0.75]) if len(known) else [np.nan] * 2
  spread = {"spread": float(quartiles[1] - quartiles[0])}
  return intervals.with_extras(estimate, spread)
