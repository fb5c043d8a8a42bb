"""A score by which soundtracks of one video are ranked.

`motion_onset` measures how well onsets of sound coincide with those of motion.
Both are curves at 100 Hz: the increase of the sound's log band energies
(spectral flux, Bello et al., IEEE TSAP 13(5), 2005), and the change of the mean
absolute frame difference. The score is their largest correlation within ±40 ms,
in [-1, 1]; silence and still pictures score 0. It does not use any model.
"""

from collections.abc import Iterable
import dataclasses

import numpy as np
from scipy import ndimage, signal

RATE = 100.0  # of both curves, in Hz
NAME = "motion_onset"
_FRAMES = 6000  # frames of the spectrum that are computed at a time


@dataclasses.dataclass(frozen=True)
class Motion:
  """How much the picture changes from frame to frame.

  Attributes:
    changes: mean absolute difference of each frame to the one before, [n - 1].
    times: times of the frames in seconds from the first sample, [n].
  """

  changes: np.ndarray
  times: np.ndarray

  @classmethod
  def of(cls, frames, times) -> "Motion":
    """Measures frames, uint8 [n h w 3], of any small size."""
    change = np.abs(np.diff(frames.astype(np.float32), axis=0))
    return cls(change.mean(axis=(1, 2, 3)), np.asarray(times))

  @classmethod
  def joined(cls, parts: Iterable["Motion"]) -> "Motion":
    """Joins parts that each begin with the last frame of the one before."""
    parts = list(parts)
    if not parts:
      return cls(np.zeros(0), np.zeros(0))
    times = [parts[0].times, *(part.times[1:] for part in parts[1:])]
    changes = [part.changes for part in parts]
    return cls(np.concatenate(changes), np.concatenate(times))


def onset_curve(samples, sample_rate: int, count: int):
  """Computes the spectral flux [count] at `RATE` of samples [t channels]."""
  hop = sample_rate / RATE
  window = 4 * int(hop)
  if len(samples) < window:
    return np.zeros(count)
  level = np.concatenate(list(_levels(samples, window, int(hop))), axis=1)
  times = np.arange(level.shape[1]) * int(hop) / sample_rate
  flux = np.maximum(np.diff(level, axis=1, prepend=level[:, :1]), 0).sum(axis=0)
  return np.interp(np.arange(count) / RATE, times, flux)


def _levels(samples, window: int, hop: int):
  """Yields log energies of 16 bands [16 frames], of consecutive frames."""
  # As much silence before and after as scipy's stft adds.
  before = after = window // 2
  after += -(len(samples) + 2 * after - window) % hop
  total = 1 + (len(samples) + before + after - window) // hop
  for first in range(0, total, _FRAMES):
    last = min(first + _FRAMES, total)
    begin = first * hop - before
    end = (last - 1) * hop + window - before
    part = np.asarray(samples[max(begin, 0) : end], np.float64).mean(axis=-1)
    silence = max(-begin, 0), max(end - len(samples), 0)
    _, _, spectrum = signal.stft(
      np.pad(part, silence),
      nperseg=window,
      noverlap=window - hop,
      boundary=None,
      padded=False,
    )
    bands = np.array_split(np.abs(spectrum) ** 2, 16)
    yield np.log10(1e-7 + np.stack([b.sum(axis=0) for b in bands]))


def motion_curve(motion: Motion, count: int):
  """Computes the change of motion [count] at `RATE`; see `motion_onset`."""
  times = motion.times
  if len(times) < 3:
    return np.zeros(count)
  change = motion.changes / np.maximum(np.diff(times), 1e-3)
  jerk = np.abs(np.diff(change, prepend=change[:1]))
  return np.interp(np.arange(count) / RATE, times[1:], jerk)


def motion_onset(samples, sample_rate: int, motion: Motion) -> float:
  """Scores the synchronisation of sound and picture, in [-1, 1].

  Args:
    samples: sound, float [t channels].
    sample_rate: sample rate in Hz.
    motion: that of the picture.
  """
  count = int(len(samples) / sample_rate * RATE)
  if count < 10:
    return 0.0
  smooth = lambda x: ndimage.gaussian_filter1d(x, 2.0)
  sound = smooth(onset_curve(samples, sample_rate, count))
  moved = smooth(motion_curve(motion, count))
  if sound.std() < 1e-9 or moved.std() < 1e-9:
    return 0.0
  sound = (sound - sound.mean()) / sound.std()
  moved = (moved - moved.mean()) / moved.std()
  lags = range(-4, 5)
  return float(max(np.mean(sound * np.roll(moved, lag)) for lag in lags))
