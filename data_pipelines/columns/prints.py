"""Fingerprints of sounds and pictures that survive re-encoding.

A sound has 32 bits every 32 ms: the signs of how the differences of energy
between 33 bands from 300 to 3000 Hz change over time (Haitsma and Kalker, "A
Highly Robust Audio Fingerprinting System", ISMIR 2002). A picture has 64 bits
every half second: which of the lowest 8 x 8 frequencies of the frame, in grey
at 32 x 32 pixels, are above their median (the perceptual hash pHash,
https://www.phash.org). Silence and frames of one colour have none.

As text they are base64 of little-endian uint32, [n] of a sound and [n 2] of a
picture, 0 for none.
"""

import base64

import numpy as np
from scipy import fft
import soxr

_RATE, _FFT, _HOP = 8000, 4096, 256
_BANDS, _LOW_HZ, _HIGH_HZ = 33, 300.0, 3000.0
_SILENT = 1e-3  # RMS
_FLAT = 4.0  # standard deviation of a frame, in levels of 255
_STEP = 0.5  # seconds between frames
_SIDE = 32


def of_sound(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
  """Returns the fingerprint of [samples, channels], uint32 [n]."""
  mono = waveform.mean(axis=1, dtype=np.float32)
  if sample_rate != _RATE:
    mono = soxr.resample(mono, sample_rate, _RATE)
  if len(mono) < _FFT + _HOP:
    return np.zeros(0, np.uint32)
  framed = np.lib.stride_tricks.sliding_window_view(mono, _FFT)[::_HOP]
  edges = np.geomspace(_LOW_HZ, _HIGH_HZ, _BANDS + 1) * _FFT / _RATE
  starts = np.round(edges).astype(int)
  window = np.hanning(_FFT).astype(np.float32)
  energies = np.zeros((len(framed), _BANDS))
  for first in range(0, len(framed), 256):  # Little memory for long sounds.
    power = np.abs(fft.rfft(framed[first:][:256] * window, axis=1)) ** 2
    sums = np.add.reduceat(power[:, : starts[-1]], starts[:-1], axis=1)
    energies[first : first + 256] = sums
  apart = energies[:, :-1] - energies[:, 1:]
  bits = (apart[1:] - apart[:-1]) > 0
  print_ = bits @ (1 << np.arange(32, dtype=np.uint64))
  level = np.sqrt(np.square(framed[1:]).mean(axis=1))
  return np.where(level < _SILENT, 0, print_).astype(np.uint32)


def of_picture(grey: np.ndarray, times: np.ndarray) -> np.ndarray:
  """Returns the fingerprint of frames, uint32 [n 2].

  Args:
    grey: float [m, h, w], sides multiples of 32 pixels.
    times: seconds [m], ascending.
  """
  if not len(grey):
    return np.zeros((0, 2), np.uint32)
  instants = np.arange(0.0, times[-1] + 1e-6, _STEP)
  shown = np.maximum(np.searchsorted(times, instants + 1e-6, "right") - 1, 0)
  grey = grey[shown]
  height, width = grey.shape[1] // _SIDE, grey.shape[2] // _SIDE
  small = grey.reshape(len(grey), _SIDE, height, _SIDE, width).mean((2, 4))
  low = fft.dctn(small, axes=(1, 2))[:, :8, :8].reshape(len(grey), 64)
  bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
  bits[:, 0] = True  # The mean says little, and so no frame is 0.
  words = bits.reshape(-1, 2, 32) @ (1 << np.arange(32, dtype=np.uint64))
  flat = small.std((1, 2)) < _FLAT
  return np.where(flat[:, None], 0, words).astype(np.uint32)


def to_text(print_: np.ndarray) -> str:
  """Packs a fingerprint; see the module's text."""
  return base64.b64encode(print_.astype("<u4").tobytes()).decode()


def from_text(text: str | None) -> np.ndarray:
  """Unpacks a fingerprint, uint32 [n]."""
  return np.frombuffer(base64.b64decode(text or ""), "<u4")
