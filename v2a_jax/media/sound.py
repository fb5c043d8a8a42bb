"""Decoding of audio to samples on the video's clock.

Decoded blocks are placed in one array by their presentation times, so a late
start, gaps and overlaps are kept; differences below `_JITTER` (rounded time
stamps) are not gaps. The array is then resampled once: with native rate r,
target rate s and g = gcd(r, s), r / g native samples are exactly s / g target
samples, and the array starts a whole number of such cells before the window,
so resampling adds no shift.
"""

from collections.abc import Iterator
from fractions import Fraction
import itertools
import math
from typing import NamedTuple

import av
import numpy as np
import soxr

from v2a_jax.media.base import (
  Audio,
  Limits,
  MediaError,
  ReadOptions,
  Source,
  source_name,
)
from v2a_jax.media.container import (
  Decoder,
  SeekError,
  find_track,
  open_input,
)

_JITTER = Fraction(1, 100)  # seconds; below half of any codec's block
_MARGIN = Fraction(1, 10)  # seconds around the window for the resampling filter
_PREROLL = 1  # seconds that a decoder needs to settle after a seek
_MIN_SEEK = 20  # seconds; below, decoding from the start is cheaper
_MAX_PLANES = 8
# Sample rates in Hz and channels of sound; data with others only claim to be it.
_RATES, _MOST_CHANNELS = (4_000, 768_000), 64
_NO_EXACT_SEEK = ("mp3", "aac", "ac3", "amr")  # streams without time stamps


class _Block(NamedTuple):
  """One decoded block of audio."""

  time: Fraction  # of presentation, seconds on the container's clock
  rate: int  # Hz
  samples: np.ndarray  # float32 [t, channels]
  length: int  # samples that the packet declares; below t in a padded block


def refusal(sample_rate: int, channels: int) -> tuple[str, str] | None:
  """Returns what of a stream cannot be that of sound, and why; None for sound.

  Args:
    sample_rate: sample rate in Hz; 0 if unknown.
    channels: number of channels; 0 if unknown.
  """
  low, high = _RATES
  if not low <= (sample_rate or low) <= high:
    return "sample rate", f"{sample_rate:,} Hz is not in [{low:,}, {high:,}]"
  if channels > _MOST_CHANNELS:
    return "channels", f"{channels} are over {_MOST_CHANNELS}"
  return None


def check(name: str, sample_rate: int, channels: int) -> None:
  """Raises MediaError if a stream cannot be that of sound; see `refusal`."""
  if refused := refusal(sample_rate, channels):
    what, why = refused
    raise MediaError(
      name,
      f"cannot be sound by its {what}: {why}",
      "leave it out, or convert it to 48,000 Hz with 1 or 2 channels",
    )


def decode(
  source: Source, options: ReadOptions, *, origin: Fraction | None
) -> Audio:
  """Decodes the audio of `reader.read_audio`, which has the errors.

  `origin` is time zero in seconds on the container's clock; None for the time
  of the first sample.
  """
  if options.start > _MIN_SEEK:
    try:
      return _decode(source, options, origin, seek=True)
    except (SeekError, MediaError):
      pass  # no usable index: decode from the start instead
  return _decode(source, options, origin, seek=False)


def _decode(source, options: ReadOptions, origin, *, seek: bool) -> Audio:
  name, sample_rate = source_name(source), options.sample_rate
  duration = None if options.duration is None else Fraction(options.duration)
  with open_input(source, limits=options.limits) as container:
    stream = find_track(
      container,
      "audio",
      name,
      limits=options.limits,
      audio_track=options.audio_track,
    )
    context = stream.codec_context
    check(name, context.sample_rate, context.channels)
    decoder = Decoder(container, stream, name, options.limits)
    blocks = _blocks(decoder, options.channels)
    first = next(blocks, None)
    if first is None:
      raise decoder.error("no audio block can be used", "re-encode it")
    check(name, first.rate, first.samples.shape[1])
    origin = first.time if origin is None else origin
    cell = Fraction(1, math.gcd(first.rate, sample_rate))  # seconds
    lead = math.ceil(_MARGIN / cell) * cell
    begin = origin + Fraction(options.start) - lead
    if seek:
      blocks = _seek(container, stream, decoder, options, begin, first)
    else:
      blocks = itertools.chain([first], blocks)
    samples = _place(
      blocks,
      first.rate,
      channels=first.samples.shape[1],
      begin=begin,
      seconds=None if duration is None else lead + duration + _MARGIN,
      decoder=decoder,
      limits=options.limits,
    )
  if not np.isfinite(samples).all():
    raise MediaError(
      name, "its audio holds samples that are not finite", "re-encode it"
    )
  if first.rate != sample_rate and len(samples):
    samples = soxr.resample(samples, first.rate, sample_rate, quality="HQ")
  skip = int(lead * sample_rate)
  stop = None if duration is None else skip + round(duration * sample_rate)
  return Audio(
    samples=np.ascontiguousarray(samples[skip:stop], np.float32),
    sample_rate=sample_rate,
    damaged=decoder.damaged,
  )


def _seek(container, stream, decoder, options, begin, first: _Block):
  """Returns the blocks from about `_PREROLL` seconds before `begin` on."""
  if container.format.name in _NO_EXACT_SEEK:
    raise SeekError
  container.seek(int((begin - _PREROLL) / stream.time_base), stream=stream)
  blocks = _blocks(decoder, options.channels)
  block = next(blocks)
  if block.time > max(begin, first.time):
    raise SeekError
  return itertools.chain([block], blocks)


def _blocks(decoder: Decoder, channels: int | None) -> Iterator[_Block]:
  for time, frame in decoder.frames():
    try:
      samples = _mix(_as_float(frame), frame, channels)
    except (av.FFmpegError, ValueError):  # FFmpeg cannot convert this layout
      decoder.damaged += 1
      continue
    channels = channels or samples.shape[1]  # of the first block
    yield _Block(time, frame.sample_rate, samples, _declared_length(frame))


def _declared_length(frame: av.AudioFrame) -> int:
  """Returns the number of samples without padding; ignores rounding."""
  if not frame.duration or not frame.time_base:
    return frame.samples
  tick = frame.time_base * frame.sample_rate
  length = frame.duration if tick == 1 else round(frame.duration * tick)
  return length if frame.samples - length > tick else frame.samples


def _as_float(frame: av.AudioFrame) -> np.ndarray:
  """Returns float32 [t, channels], integer formats scaled to [-1, 1)."""
  if frame.format.is_planar and frame.layout.nb_channels >= _MAX_PLANES:
    # PyAV 18 counts the planes of a frame up to a null pointer, but there is
    # none after eight planes.
    packer = av.AudioResampler(
      frame.format.packed.name, frame.layout, frame.sample_rate
    )
    (frame,) = packer.resample(frame)
  data = frame.to_ndarray()
  if frame.format.is_planar:
    data = data.T
  else:
    data = data.reshape(frame.samples, -1)
  if data.dtype.kind == "f":
    return data.astype(np.float32)
  # Of powers of two nothing is rounded, but the sample itself once.
  half = np.float32(2.0 ** (8 * data.dtype.itemsize - 1))
  samples = data.astype(np.float32)
  if data.dtype.kind == "u":
    samples -= half
  return np.divide(samples, half, out=samples)


def _mix(
  samples: np.ndarray, frame: av.AudioFrame, channels: int | None
) -> np.ndarray:
  """Mixes [t, c] to [t, channels]; surround to stereo as FFmpeg does."""
  if channels is None or channels == samples.shape[1]:
    return samples
  if channels == 1:  # `mean` over the last, short axis takes ten times as long.
    total = sum(samples[:, i] for i in range(samples.shape[1]))
    return (total / samples.shape[1])[:, None]
  if samples.shape[1] == 1:
    return np.repeat(samples, channels, axis=1)
  if channels == 2:
    mixer = av.AudioResampler("fltp", "stereo", frame.sample_rate)
    return np.concatenate([f.to_ndarray() for f in mixer.resample(frame)], 1).T
  # The number of channels changed within the stream; pad those that are gone.
  mixed = np.zeros((len(samples), channels), np.float32)
  mixed[:, : samples.shape[1]] = samples[:, :channels]
  return mixed


def _place(
  blocks: Iterator[_Block],
  rate: int,
  *,
  begin: Fraction,
  seconds: Fraction | None,
  channels: int,
  decoder: Decoder,
  limits: Limits,
) -> np.ndarray:
  """Places blocks in one array by their presentation times.

  Blocks of another rate than `rate` in Hz count as damaged. `begin` is the time
  of the array's first sample in seconds on the container's clock; `seconds` the
  length of the array, None for the end of the last block.
  """
  stop = None if seconds is None else math.ceil(seconds * rate)
  longest = min(limits.duration * rate, limits.memory_bytes // (16 * channels))
  placed, expected, end = [], None, 0
  for block in blocks:
    if block.rate != rate:
      decoder.damaged += 1
      continue
    position = round((block.time - begin) * rate)
    if expected is not None and abs(position - expected) <= _JITTER * rate:
      position = expected
    if stop is not None and position >= stop:
      end = stop
      break
    expected = position + len(block.samples)
    end = position + block.length
    if expected > longest:
      raise decoder.error(
        f"its audio reaches {expected / rate:,.0f} s into the window",
        "read a shorter window, or remux it to repair its time stamps",
      )
    if expected > 0:
      placed.append((position, block.samples))
  total = end if stop is None else min(end, stop)
  samples = np.zeros((max(total, 0), channels), np.float32)
  for position, data in placed:
    data = data[max(-position, 0) :]
    position = max(position, 0)
    samples[position : position + len(data)] = data[: len(samples) - position]
  return samples
