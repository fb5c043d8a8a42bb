"""One encoded sound track whose length every decoder agrees on.

AAC comes in blocks of 1024 samples after 1024 of priming. Encoders usually pad
the last block and declare its true length, which FFmpeg's decoders ignore: a
5 s sound then decodes to up to 23 ms more. Here the padding goes in front
instead: with n samples, p = -n mod 1024 zeros come first, the block grid ends
exactly at n, and the MP4 edit list (sample-exact in every player that honours
priming at all) hides 1024 + p samples at the start.
https://developer.apple.com/documentation/quicktime-file-format/background_aac_encoding
"""

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import soxr

from v2a_jax.media.base import MediaError

_BLOCK = 1024  # samples of AAC
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000) + (
  12000,
  11025,
  8000,
)
_OPUS_RATE = 48000


def check_samples(samples: np.ndarray, name: str) -> np.ndarray:
  """Returns float32 [t, channels] in [-1, 1]; [t] is taken as mono.

  Raises:
    MediaError: another shape, no samples, or samples that are not finite.
  """
  samples = np.asarray(samples, np.float32)
  if samples.ndim == 1:
    samples = samples[:, None]
  if samples.ndim != 2 or samples.shape[1] not in (1, 2) or not len(samples):
    raise MediaError(
      name,
      f"cannot hold audio of shape {samples.shape}",
      "give [t, channels] with 1 or 2 channels and t > 0",
    )
  if not np.isfinite(samples).all():
    raise MediaError(
      name,
      "was to be given samples that are not finite",
      "look for the NaN where the sound is made",
    )
  return np.clip(samples, -1.0, 1.0)


class AudioTrack:
  """An audio stream of an output container, and the packets to fill it."""

  def __init__(
    self,
    container: av.container.OutputContainer,
    samples: np.ndarray,
    *,
    sample_rate: int,
    codec: str,
    bit_rate: int | None,
    name: str,
  ):
    samples = check_samples(samples, name)
    if codec == "aac" and sample_rate not in _AAC_RATES:
      raise MediaError(
        name,
        f"AAC knows no sample rate of {sample_rate} Hz",
        f"resample to one of {_AAC_RATES}",
      )
    if codec == "libopus" and sample_rate != _OPUS_RATE:
      seconds = Fraction(len(samples), sample_rate)
      samples = soxr.resample(samples, sample_rate, _OPUS_RATE, quality="HQ")
      samples = fit_length(samples, round(seconds * _OPUS_RATE))
      sample_rate = _OPUS_RATE
    self._padding = -len(samples) % _BLOCK if codec == "aac" else 0
    self._samples = np.pad(samples, ((self._padding, 0), (0, 0)))
    self._rate = sample_rate
    channels = samples.shape[1]
    self._layout = "mono" if channels == 1 else "stereo"
    self._stream = container.add_stream(
      codec,
      rate=sample_rate,
      layout=self._layout,
      bit_rate=bit_rate or default_bit_rate(sample_rate, channels),
    )
    self._stream.time_base = Fraction(1, sample_rate)

  def packets(self) -> Iterator[av.Packet]:
    """Encodes a second at a time."""
    for begin in range(0, len(self._samples), self._rate):
      block = self._samples[begin : begin + self._rate]
      frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(block.T), format="fltp", layout=self._layout
      )
      frame.sample_rate = self._rate
      frame.time_base = Fraction(1, self._rate)
      frame.pts = begin - self._padding
      yield from self._stream.encode(frame)
    yield from self._stream.encode(None)


def default_bit_rate(sample_rate: int, channels: int) -> int:
  """Bits a second: 128 k a channel, or what AAC's 6 bits a sample allow."""
  return channels * min(128_000, 5 * sample_rate)


def fit_length(samples: np.ndarray, length: int) -> np.ndarray:
  """Trims [t, channels] at its end, or pads it there with silence."""
  missing = max(length - len(samples), 0)
  return np.pad(samples[:length], ((0, missing), (0, 0)))
