"""Distances of spectra from the true sound's: how well a codec reconstructs.

Of magnitudes X of the sound and Y of the true sound:

  MR-STFT = mean over resolutions of |X - Y|_F / |Y|_F + mean |ln X - ln Y|
  LSD     = mean over frames of sqrt( mean over f of (20 log10 X / Y)^2 )

MR-STFT with the resolutions and the floor of auraloss 0.4.0
(https://github.com/csteinmetz1/auraloss; Yamamoto et al.,
https://arxiv.org/abs/1910.11480): FFTs of 1024, 2048 and 512 with Hann windows
of 600, 1200 and 240 samples every 120, 240 and 50. LSD (Gray and Markel,
"Distance measures for speech processing", 1976) with 2048 every 512 samples,
magnitudes at least -100 dB. Frames are centred, ends are mirrored, channels
count as further frames. A generated sound may be right and far from the true
one in both.
"""

import numpy as np
from scipy import fft, signal

from v2a_jax.evaluation.metrics import base

_RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
_FLOOR = 1e-8  # of the power
_LSD = (2048, 512, 2048)
_LSD_FLOOR = 1e-5  # of a full-scale magnitude: -100 dB
_ABOUT = " For the codec row: generated sounds may be right and far from it."


class MultiResolutionSTFT(base.ClipMetric):
  """Distance of magnitude spectra at several resolutions."""

  id = "mr_stft"
  variant = "mr_stft_auraloss_0.4"
  label = "MR-STFT"
  bounds = (0.0, np.inf)
  direction = "lower"
  role = "shown"
  about = "Multi-resolution distance of spectra from the true sound's." + _ABOUT

  def get_state(self, sample: base.Sample) -> float:
    return mr_stft(sample.waveform, sample.truth.waveform)


class LogSpectralDistance(base.ClipMetric):
  """Distance of log spectra."""

  id = "lsd"
  variant = "lsd_2048_512"
  label = "LSD"
  unit = "dB"
  bounds = (0.0, np.inf)
  direction = "lower"
  role = "shown"
  about = "Log-spectral distance from the true sound." + _ABOUT

  def get_state(self, sample: base.Sample) -> float:
    return log_spectral_distance(sample.waveform, sample.truth.waveform)


def magnitudes(
  waveform: np.ndarray, size: int, hop: int, window: int
) -> np.ndarray:
  """Computes magnitudes of [samples, channels], [channels, frames, size/2+1].

  In float32, which takes a third of the time.
  """
  half = size // 2
  mirrored = np.pad(
    waveform.T.astype(np.float32), ((0, 0), (half, half)), mode="reflect"
  )
  frames = np.lib.stride_tricks.sliding_window_view(mirrored, size, axis=1)
  before = (size - window) // 2
  hann = np.zeros(size, np.float32)
  hann[before : before + window] = signal.get_window("hann", window)
  return np.abs(fft.rfft(frames[:, ::hop] * hann))


def _alike(x: np.ndarray, y: np.ndarray) -> list[np.ndarray] | None:
  """Cuts sounds to the shorter; None where there is less than a frame."""
  length = min(len(x), len(y))
  return [x[:length], y[:length]] if length > _LSD[0] else None


def mr_stft(x: np.ndarray, y: np.ndarray) -> float:
  """Returns MR-STFT of [samples, channels]; NaN under 2048 samples."""
  pair = _alike(x, y)
  if pair is None or not np.any(pair[1]):
    return np.nan
  terms = []
  for resolution in _RESOLUTIONS:
    a, b = (
      np.maximum(magnitudes(w, *resolution), np.sqrt(_FLOOR)) for w in pair
    )
    convergence = np.linalg.norm(a - b) / np.linalg.norm(b)
    terms.append(convergence + np.abs(np.log(a / b)).mean())
  return float(np.mean(terms))


def log_spectral_distance(x: np.ndarray, y: np.ndarray) -> float:
  """Returns LSD of [samples, channels] in dB; NaN under 2048 samples."""
  pair = _alike(x, y)
  if pair is None:
    return np.nan
  scale = 2 / signal.get_window("hann", _LSD[2]).sum()
  a, b = (np.maximum(scale * magnitudes(w, *_LSD), _LSD_FLOOR) for w in pair)
  squares = np.square(20 * np.log10(a / b))
  return float(np.sqrt(squares.mean(axis=-1)).mean())
