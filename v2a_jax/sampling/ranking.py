"""Scores that order several soundtracks of one video.

`motion_onset`: how well the sound starts when the picture moves. Both are
reduced to curves at 100 Hz: the rise of the sound's log band energies (spectral
flux, Bello et al., IEEE TSAP 13(5), 2005) and the rise of the mean
absolute frame difference. The score is their largest correlation within ±40 ms,
so it lies in [-1, 1]; silence and still pictures score 0. It uses nothing that the
generator was trained with.
"""

import numpy as np
from scipy import ndimage, signal

RATE = 100.0  # Hz, of both curves
NAME = "motion_onset"


def onset_curve(samples, sample_rate: int, count: int):
  """Spectral flux [count] at `RATE` of samples [t channels]."""
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
  """Change of motion [count] at `RATE`.

  Args:
    frames: uint8 [n h w 3].
    times: [n], seconds, ascending.
    count: values wanted.
  """
  if len(frames) < 3:
    return np.zeros(count)
  change = np.abs(np.diff(frames.astype(np.float32), axis=0))
  change = change.mean(axis=(1, 2, 3)) / np.maximum(np.diff(times), 1e-3)
  jerk = np.abs(np.diff(change, prepend=change[:1]))
  return np.interp(np.arange(count) / RATE, times[1:], jerk)


def motion_onset(samples, sample_rate: int, frames, times) -> float:
  """Agreement of sound and picture in time; see the module.

  Args:
    samples: float [t channels].
    sample_rate: hertz.
    frames: uint8 [n h w 3], any small size.
    times: [n], seconds from the first sample.
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
