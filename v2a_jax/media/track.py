"""Encoding of an audio track that has the same length in every decoder.

AAC is coded in blocks of 1024 samples after 1024 samples of priming. Encoders
usually pad the last block and declare its true length, which FFmpeg's decoders
ignore: 5 s of audio then decode to up to 23 ms more. Here the padding goes
first: with n samples, p = -n mod 1024 zeros come first, the last block ends
exactly at sample n, and the MP4 edit list (sample-exact in every player that
honours priming at all) hides 1024 + p samples at the start.
https://developer.apple.com/documentation/quicktime-file-format/background_aac_encoding
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO

import av
import numpy as np
import soxr

from v2a_jax.media.base import MediaError

_BLOCK = 1024  # samples in a block of AAC
AAC_RATES = (
  *(96000, 88200, 64000, 48000, 44100, 32000),
  *(24000, 22050, 16000, 12000, 11025, 8000),
)  # Hz
_OPUS_RATE = 48000  # Hz
# Formats of lossless codecs that hold 24 bits; their own default holds 16.
_DEEP = {"flac": "s32", "alac": "s32p", "pcm_s24le": "s32"}


def check_samples(samples: np.ndarray, name: str) -> np.ndarray:
  """Returns samples [t, 1 or 2] or [t] as float32 [t, channels] in [-1, 1].

  Raises:
    MediaError: the shape is another one, or a sample is NaN or infinite.
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
  if not (np.isfinite(samples.max()) and np.isfinite(samples.min())):
    raise MediaError(
      name,
      "cannot hold samples that are not finite",
      "look for NaN or infinity where they are computed",
    )
  if max(samples.max(), -samples.min()) <= 1.0:
    return samples  # long sound is not copied without need
  return np.clip(samples, -1.0, 1.0)


class StoredSamples:
  """Samples [t, channels] in a file, which are read as they are sliced.

  Args:
    file: float32 numbers, sample by sample.
    channels: number of channels.
    length: t; what the file has less is silence.
  """

  def __init__(self, file: BinaryIO, channels: int, length: int):
    self._file, self.shape = file, (length, channels)

  def __len__(self) -> int:
    return self.shape[0]

  def __getitem__(self, part: slice) -> np.ndarray:
    """Returns samples of a slice without a step, float32."""
    begin, end, _ = part.indices(len(self))
    out = np.zeros((max(end - begin, 0), self.shape[1]), np.float32)
    left = memoryview(out).cast("B") if out.size else b""
    self._file.seek(4 * begin * self.shape[1])
    while left and (count := self._file.readinto(left)):
      left = left[count:]
    return out


class AudioTrack:
  """An audio stream in an output container, and its packets.

  Args:
    container: output container to which the stream is added.
    samples: floats [t, channels] in [-1, 1].
    sample_rate: sample rate of `samples` in Hz; Opus is resampled to 48 kHz.
    codec: FFmpeg's name of the encoder.
    name: name of the output for errors.
    bit_rate: bits per second; None for `default_bit_rate`.

  Raises:
    MediaError: the samples are refused, or AAC lacks the sample rate.
  """

  def __init__(
    self,
    container: av.container.OutputContainer,
    samples: np.ndarray | StoredSamples,
    *,
    sample_rate: int,
    codec: str,
    name: str,
    bit_rate: int | None = None,
  ):
    if isinstance(samples, np.ndarray):
      samples = check_samples(samples, name)
    if codec == "aac" and sample_rate not in AAC_RATES:
      raise MediaError(
        name,
        f"AAC has no sample rate of {sample_rate} Hz",
        f"resample to one of {AAC_RATES}",
      )
    if codec == "libopus" and sample_rate != _OPUS_RATE:
      seconds = Fraction(len(samples), sample_rate)
      whole = samples[:]
      samples = soxr.resample(whole, sample_rate, _OPUS_RATE, quality="HQ")
      samples = fit_length(samples, round(seconds * _OPUS_RATE))
      sample_rate = _OPUS_RATE
    self._padding = -len(samples) % _BLOCK if codec == "aac" else 0
    self._samples = samples
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
    if codec in _DEEP:
      self._stream.codec_context.format = _DEEP[codec]

  def packets(self) -> Iterator[av.Packet]:
    """Encodes one second at a time and yields the packets."""
    for begin in range(-self._padding, len(self._samples), self._rate):
      block = self._samples[max(begin, 0) : begin + self._rate]
      block = np.pad(block, ((max(-begin, 0), 0), (0, 0)))
      frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(block.T), format="fltp", layout=self._layout
      )
      frame.sample_rate = self._rate
      frame.time_base = Fraction(1, self._rate)
      frame.pts = begin
      yield from self._stream.encode(frame)
    yield from self._stream.encode(None)


def default_bit_rate(sample_rate: int, channels: int) -> int:
  """Returns bits per second: 128 k per channel, less at low sample rates.

  AAC cannot use more than 6 bits per sample.
  """
  return channels * min(128_000, 5 * sample_rate)


def fit_length(samples: np.ndarray, length: int) -> np.ndarray:
  """Returns [length, channels]: trims the end or pads it with zeros."""
  missing = max(length - len(samples), 0)
  if not missing:
    return samples[:length]
  return np.pad(samples[:length], ((0, missing), (0, 0)))
