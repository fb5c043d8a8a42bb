"""Short-time Fourier transform, resampling and checks of waveforms."""

from collections.abc import Iterator
import functools
import math

import numpy as np
from scipy import signal

from v2a_jax.basics import scratch
from v2a_jax.watermark import pattern


@functools.cache
def window() -> np.ndarray:
  """Returns the window of the watermark's frames: Hann's, of 32 ms."""
  return signal.windows.hann(pattern.WINDOW, sym=False)


@functools.cache
def transform(hop: int) -> signal.ShortTimeFFT:
  """Returns the transform that embeds: frames `hop` samples apart."""
  return signal.ShortTimeFFT(window(), hop, pattern.SAMPLE_RATE)


def resample(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
  """Resamples [t ...] from `rate` Hz to `new_rate` Hz without delay."""
  if rate == new_rate:
    return samples
  common = math.gcd(rate, new_rate)
  return signal.resample_poly(
    samples, new_rate // common, rate // common, axis=0
  )


# Seconds that are processed at a time, and that are seen around them. Whole
# ones, so that they begin at a whole sample, and whole slots of the watermark.
_PIECE, _AROUND = 48, 3


def pieces(count: int, rate: int) -> Iterator[tuple[slice, slice]]:
  """Yields pieces of so many samples, with and without those around them."""
  size, around = _PIECE * rate, _AROUND * rate
  starts = range(0, max(count - around, 1), size)
  for start in starts:
    end = count if start == starts[-1] else start + size
    first, last = max(start - around, 0), min(end + around, count)
    yield slice(first, last), slice(start, end)


def at_base(samples: np.ndarray, rate: int) -> np.ndarray:
  """Returns samples [t, channels] at the watermark's rate, float32."""
  new, count = pattern.SAMPLE_RATE, 0
  most = math.ceil(len(samples) * new / rate) + 1
  out = scratch.empty((most, samples.shape[1]))
  for around, piece in pieces(len(samples), rate):
    found = resample(samples[around].astype(np.float64), rate, new)
    skip = (piece.start - around.start) // rate * new
    if piece.stop < len(samples):
      found = found[: skip + (piece.stop - piece.start) // rate * new]
    found = found[skip:]
    out[count : count + len(found)] = found
    count += len(found)
  return out[:count]


def check(samples: np.ndarray, sample_rate: int) -> np.ndarray:
  """Returns floats [t, channels]; raises ValueError for others."""
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
  ends = samples.min(initial=0), samples.max(initial=0)
  if not np.isfinite(ends).all():
    raise ValueError("watermark: samples hold NaN or infinity; repair them")
  return samples
