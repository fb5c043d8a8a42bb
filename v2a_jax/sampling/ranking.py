"""A score by which soundtracks of one video are ranked.

`motion_onset` measures how well onsets of sound coincide with those of motion.
Both are curves at 100 Hz: the increase of the sound's log band energies
(spectral flux, Bello et al., IEEE TSAP 13(5), 2005), and the change of the mean
absolute frame difference. The score is their largest correlation within ±40 ms,
in [-1, 1]; silence and still pictures score 0. It does not use any model.
"""

import numpy as np
from scipy import ndimage, signal

RATE = 100.0  # of both curves, in Hz
NAME = "motion_onset"


def onset_curve(samples, sample_rate: int, count: int):
  """Computes the spectral flux [count] at `RATE` of samples [t channels]."""
  mono = np.asarray(samples, np.float64).mean(axis=-1)
  hop = sample_rate / RATE
  window = 4 * int(hop)
  if mono.size < window:
    return np.zeros(count)
  _, times, spectrum = signal.stft(
    mono, sample_rate, nperseg=window, noverlap=window - int(hop)
  )
  bands = np.array_split(np.abs(spectrum) ** 2, 16)
  level = np.log10(1e-7 + np.stack([b.sum(axis=0) for b in bands]))
  flux = np.maximum(np.diff(level, axis=1, prepend=level[:, :1]), 0).sum(axis=0)
  return np.interp(np.arange(count) / RATE, times, flux)


def motion_curve(frames, times, count: int):
  """Computes the change of motion [count] at `RATE`; see `motion_onset`."""
  if len(frames) < 3:
    return np.zeros(count)
  change = np.abs(np.diff(frames.astype(np.float32), axis=0))
  change = change.mean(axis=(1, 2, 3)) / np.maximum(np.diff(times), 1e-3)
  jerk = np.abs(np.diff(change, prepend=change[:1]))
  return np.interp(np.arange(count) / RATE, times[1:], jerk)


def motion_onset(samples, sample_rate: int, frames, times) -> float:
  """Scores the synchronisation of sound and picture, in [-1, 1].

  Args:
    samples: sound, float [t channels].
    sample_rate: sample rate in Hz.
    frames: uint8 [n h w 3], of any small size.
    times: times [n] of the frames in seconds from the first sample.
  """
  count = int(len(samples) / sample_rate * RATE)
  if count < 10:
    return 0.0
  smooth = lambda x: ndimage.gaussian_filter1d(x, 2.0)
  sound = smooth(onset_curve(samples, sample_rate, count))
  motion = smooth(motion_curve(frames, np.asarray(times), count))
  if sound.std() < 1e-9 or motion.std() < 1e-9:
    return 0.0
  sound = (sound - sound.mean()) / sound.std()
  motion = (motion - motion.mean()) / motion.std()
  lags = range(-4, 5)
  return float(max(np.mean(sound * np.roll(motion, lag)) for lag in lags))
