"""Between waveforms and the energies that the watermark is made of."""

import functools
import math

import numpy as np
from scipy import signal

from v2a_jax.watermark import pattern


@functools.cache
def transform(hop: int) -> signal.ShortTimeFFT:
  """The short-time Fourier transform of the mark: 32 ms Hann frames."""
  window = signal.windows.hann(pattern.WINDOW, sym=False)
  return signal.ShortTimeFFT(window, hop, pattern.SAMPLE_RATE)


def resample(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
  """`samples` [t ...] at `rate` Hz to `new_rate` Hz, without delay."""
  if rate == new_rate:
    return samples
  common = math.gcd(rate, new_rate)
  return signal.resample_poly(
    samples, new_rate // common, rate // common, axis=0
  )


def check(samples: np.ndarray, sample_rate: int) -> np.ndarray:
  """Returns samples as float64 [t, channels].

  Raises:
    ValueError: a shape, rate or value that is no sound.
  """
  samples = np.asarray(samples)
  if samples.ndim != 2 or not np.issubdtype(samples.dtype, np.floating):
    raise ValueError(
      f"watermark: samples of shape {samples.shape} and type {samples.dtype};"
      " give floats [t, channels]"
    )
  if sample_rate != int(sample_rate) or sample_rate <= 0:
    raise ValueError(f"watermark: a sample rate of {sample_rate} Hz")
  if not np.isfinite(samples).all():
    raise ValueError("watermark: samples hold NaN or infinity; mend them first")
  return samples.astype(np.float64)
