"""Short-time Fourier transforms and mel filters, with hops that divide windows.

  X[m, k] = sum_n w[n] x[m hop + n] exp(-2 pi i k n / n_fft)

Because the hop divides the window, frames are cut by stacking shifted reshapes
and overlap-added by summing them: no gather, no scatter, so both directions and
their gradients are cheap on every backend.

Sources: Griffin and Lim, "Signal estimation from modified short-time Fourier
transform", 1984 (overlap-add with the squared window's envelope); the mel
scale is Slaney's, Auditory Toolbox, 1998, as in librosa.filters.mel.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np


@functools.cache
def hann(size: int) -> np.ndarray:
  """Returns a periodic Hann window, float32 [size]."""
  phase = 2 * np.pi * np.arange(size) / size
  return (0.5 - 0.5 * np.cos(phase)).astype(np.float32)


def frame(signal: jax.Array, size: int, hop: int) -> jax.Array:
  """Cuts [..., t] into overlapping frames [..., 1 + (t - size) // hop, size].

  Raises:
    ValueError: `hop` does not divide `size`, or the signal is too short.
  """
  if size % hop:
    raise ValueError(f"frame: hop {hop} does not divide the size {size}.")
  count = 1 + (signal.shape[-1] - size) // hop
  if count < 1:
    raise ValueError(f"frame: {signal.shape[-1]} samples are less than {size}.")
  overlap = size // hop
  used = (count + overlap - 1) * hop
  hops = signal[..., :used].reshape(*signal.shape[:-1], -1, hop)
  parts = [hops[..., i : i + count, :] for i in range(overlap)]
  return jnp.concatenate(parts, axis=-1)


def overlap_add(frames: jax.Array, hop: int) -> jax.Array:
  """Transposes `frame`: [..., n, size] to [..., (n - 1) hop + size]."""
  *lead, count, size = frames.shape
  overlap = size // hop
  parts = frames.reshape(*lead, count, overlap, hop)
  padded = (
    jnp.pad(
      parts[..., i, :],
      [(0, 0)] * len(lead) + [(i, overlap - 1 - i), (0, 0)],
    )
    for i in range(overlap)
  )
  return sum(padded).reshape(*lead, -1)


def stft(signal: jax.Array, *, n_fft: int, hop: int) -> jax.Array:
  """Computes a centred short-time Fourier transform with a Hann window.

  Args:
    signal: float32 [..., t].
    n_fft: window and transform length in samples.
    hop: samples between frames; divides `n_fft`.

  Returns:
    complex64 [..., 1 + t // hop, n_fft // 2 + 1]; frame `m` is centred on
    sample `m hop` of the signal, which is padded with zeros.
  """
  pad = [(0, 0)] * (signal.ndim - 1) + [(n_fft // 2, n_fft // 2)]
  frames = frame(jnp.pad(signal, pad), n_fft, hop)
  return jnp.fft.rfft(frames * hann(n_fft))


def istft(spectrum: jax.Array, *, hop: int) -> jax.Array:
  """Inverts a transform whose frame `m` is centred on sample (m + 1/2) hop.

  Args:
    spectrum: complex64 [..., n, n_fft // 2 + 1].
    hop: samples between frames; divides `n_fft`.

  Returns:
    float32 [..., n hop].
  """
  count, n_fft = spectrum.shape[-2], 2 * (spectrum.shape[-1] - 1)
  window = hann(n_fft)
  frames = jnp.fft.irfft(spectrum, n=n_fft) * window
  envelope = overlap_add(jnp.broadcast_to(window**2, (count, n_fft)), hop)
  edge = (n_fft - hop) // 2
  kept = slice(edge, edge + count * hop)
  return overlap_add(frames, hop)[..., kept] / envelope[kept]


def _hz_to_mel(hertz: np.ndarray) -> np.ndarray:
  linear = hertz / (200 / 3)
  logarithmic = 15 + np.log(np.maximum(hertz, 1e-9) / 1000) * 27 / np.log(6.4)
  return np.where(hertz < 1000, linear, logarithmic)


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
  linear = mel * (200 / 3)
  return np.where(mel < 15, linear, 1000 * 6.4 ** ((mel - 15) / 27))


@functools.cache
def mel_filters(*, sample_rate: int, n_fft: int, n_mels: int) -> np.ndarray:
  """Returns triangular mel filters of equal area [n_fft // 2 + 1, n_mels].

  They are those of `librosa.filters.mel(...).T` with its defaults.
  """
  bins = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)
  top = _hz_to_mel(np.asarray(sample_rate / 2))
  edges = _mel_to_hz(np.linspace(0, top, n_mels + 2))
  widths = np.diff(edges)
  rising = (bins[:, None] - edges[:-2]) / widths[:-1]
  falling = (edges[2:] - bins[:, None]) / widths[1:]
  triangles = np.maximum(0, np.minimum(rising, falling))
  return (triangles * 2 / (edges[2:] - edges[:-2])).astype(np.float32)
