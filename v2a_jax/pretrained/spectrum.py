"""Spectra and mel bands of published audio networks.

Each network wants the front end that it was trained with, and they differ in
window, scale and filters; these are the parts they share. Mel scales:

  HTK    m = 1127 ln(1 + f / 700), also Kaldi's
  Slaney m = f / (200/3) below 1 kHz; above it 15 + 27 ln(f / 1000) / ln 6.4
"""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp
import numpy as np

Scale = Callable[[np.ndarray], np.ndarray]


def htk(hz):
  """Maps frequencies in Hz to HTK's mel scale."""
  return 1127.0 * np.log1p(np.asarray(hz) / 700.0)


def slaney(hz):
  """Maps frequencies in Hz to Slaney's mel scale, linear below 1 kHz."""
  hz = np.asarray(hz, float)
  high = 15.0 + 27.0 * np.log(np.maximum(hz, 1.0) / 1000.0) / np.log(6.4)
  return np.where(hz < 1000.0, hz * 3.0 / 200.0, high)


def inverse(scale: Scale, mels) -> np.ndarray:
  """Maps mels back to Hz by interpolation of an increasing scale."""
  mels = np.asarray(mels)
  if scale is htk:
    return 700.0 * np.expm1(mels / 1127.0)
  high = 1000.0 * np.exp((mels - 15.0) * np.log(6.4) / 27.0)
  return np.where(mels < 15.0, mels * 200.0 / 3.0, high)


def triangles(points: np.ndarray, edges: np.ndarray) -> np.ndarray:
  """Returns triangular filters, float64 [points, bands].

  Args:
    points: frequencies of the bins, [points], in Hz or on a mel scale: sides
      are straight on that scale.
    edges: left end, centre and right end of band i are edges[i : i + 3].
  """
  left, centre, right = edges[:-2], edges[1:-1], edges[2:]
  rising = (points[:, None] - left) / (centre - left)
  falling = (right - points[:, None]) / (right - centre)
  return np.maximum(0.0, np.minimum(rising, falling))


def mel_edges(scale: Scale, bands: int, low: float, high: float) -> np.ndarray:
  """Returns edges of bands that are equally wide on a scale, on that scale."""
  return np.linspace(scale(low), scale(high), bands + 2)


@functools.cache
def slaney_filters(
  sample_rate: int, fft: int, bands: int, low: float, high: float
) -> np.ndarray:
  """Returns triangles of equal area, straight in Hz, [fft / 2 + 1, bands].

  Their edges are equally far on Slaney's scale; these are librosa's filters.
  float32.
  """
  hz = np.arange(fft // 2 + 1) * sample_rate / fft
  edges = inverse(slaney, mel_edges(slaney, bands, low, high))
  filters = triangles(hz, edges) * 2 / (edges[2:] - edges[:-2])
  return filters.astype(np.float32)


def frames(waveform: jax.Array, length: int, hop: int) -> jax.Array:
  """Cuts [b, samples] into whole overlapping frames, [b, t, length]."""
  count = 1 + (waveform.shape[-1] - length) // hop
  index = np.arange(count)[:, None] * hop + np.arange(length)
  return waveform[:, index]


def centred(waveform: jax.Array, length: int, hop: int) -> jax.Array:
  """Cuts frames whose i-th is centred at sample i * hop; mirrors the ends."""
  pad = ((0, 0), (length // 2, length // 2))
  return frames(jnp.pad(waveform, pad, mode="reflect"), length, hop)


def hann(length: int, *, periodic: bool = True) -> np.ndarray:
  """Returns a Hann window, float32."""
  window = np.hanning(length + 1)[:-1] if periodic else np.hanning(length)
  return window.astype(np.float32)


def magnitude(framed: jax.Array, window: np.ndarray, fft: int) -> jax.Array:
  """Returns magnitudes [..., fft / 2 + 1] of frames, zero-padded to `fft`."""
  return jnp.abs(jnp.fft.rfft(framed * window, fft))


def power(framed: jax.Array, window: np.ndarray, fft: int) -> jax.Array:
  """Returns the squares of `magnitude`."""
  return jnp.square(magnitude(framed, window, fft))


def decibels(power: jax.Array) -> jax.Array:
  """Returns 10 log10 of power, at least -100 dB."""
  return 10 * jnp.log10(jnp.maximum(power, 1e-10))


def log_mel(
  waveform: jax.Array, filters: np.ndarray, *, fft: int, hop: int
) -> jax.Array:
  """Returns the power in bands in dB, [b, frames, bands].

  Frames are centred, with Hann windows as long as the FFT.
  """
  framed = centred(waveform, fft, hop)
  return decibels(bands(power(framed, hann(fft), fft), filters))


def bands(spectrum: jax.Array, filters: np.ndarray) -> jax.Array:
  """Sums a spectrum [..., bins] into bands by filters [bins, bands]."""
  filters = filters.astype(np.float32)
  return jnp.matmul(spectrum, filters, precision="highest")
