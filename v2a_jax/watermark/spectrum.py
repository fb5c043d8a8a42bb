"""Short-time Fourier transform, resampling and checks of waveforms."""

import functools
import math

import numpy as np
from scipy import signal

from v2a_jax.watermark import pattern


@functools.cache
def transform(hop: int) -> signal.ShortTimeFFT:
  """Returns the transform of the watermark: 32 ms Hann frames, `hop` apart."""
  window = signal.windows.hann(pattern.WINDOW, sym=False)
  return signal.ShortTimeFFT(window, hop, pattern.SAMPLE_RATE)


def resample(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
  """Resamples [t ...] from `rate` Hz to `new_rate` Hz without delay."""
  if rate == new_rate:
    return samples
  common = math.gcd(rate, new_rate)
  return signal.resample_poly(
    samples, new_rate // common, rate // common, axis=0
  )


def check(samples: np.ndarray, sample_rate: int) -> np.ndarray:
  """Returns floats [t, channels] as float64; raises ValueError for others."""
  samples = np.asarray(samples)
  if samples.ndim != 2 or not np.issubdtype(samples.dtype, np.floating):
    raise ValueError(
      f"watermark: samples have shape {samples.shape} and type "
      f"{samples.dtype}; give floats [t, channels]"
    )
  if sample_rate != int(sample_rate) or sample_rate <= 0:
    raise ValueError(
      f"watermark: sample_rate={sample_rate} is not a positive whole number"
    )
  if not np.isfinite(samples).all():
    raise ValueError("watermark: samples hold NaN or infinity; repair them")
  return samples.astype(np.float64)
