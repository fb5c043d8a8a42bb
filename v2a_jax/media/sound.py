"""From audio packets to samples on the video's clock.

Each decoded block says when it is heard. Blocks are laid into one array by
those times, so a late start, a gap and an overlap all stay where they belong;
jitter below `_JITTER` (rounded time stamps) is not a gap. The array is then
resampled once: with native rate r, target rate s and g = gcd(r, s), r / g
native samples are exactly s / g target samples, and the array starts a whole
number of such cells before the window, so resampling shifts nothing.
"""

from collections.abc import Iterator
from fractions import Fraction
import itertools
import math
from typing import NamedTuple

import av
import numpy as np
import soxr

from v2a_jax.media.base import Audio, Limits, MediaError, Source, source_name
from v2a_jax.media.container import (
  Decoder,
  Overshot,
  find_tracks,
  open_input,
)

_JITTER = Fraction(1, 100)  # s; below half of any codec's block
_MARGIN = Fraction(1, 10)  # s around the window, for the resampling filter
_PREROLL = 1  # s before the window, for decoders to settle after a seek
_SEEK_FROM = 20  # s; nearer starts are decoded through
_MAX_PLANES = 8
_NO_EXACT_SEEK = ("mp3", "aac", "ac3", "amr")  # no time stamps in the stream


class _Block(NamedTuple):
  """One decoded block.

  Attributes:
    time: seconds on the container's clock at which it is heard.
    rate: Hz.
    samples: float32 [t, channels].
    length: samples that its packet declares; fewer than t where the encoder
      padded its last block.
  """

  time: Fraction
  rate: int
  samples: np.ndarray
  length: int


def decode(
  source: Source,
  *,
  origin: Fraction | None,
  start: Fraction,
  duration: Fraction | None,
  sample_rate: int,
  channels: int | None,
  limits: Limits,
) -> Audio:
  """Decodes the window of `reader.read_audio`.

  Args:
    source: a path, or the file's bytes.
    origin: time zero in seconds on the container's clock; None takes that of
      the first sample.
    start: seconds after the origin.
    duration: seconds, or None for all.
    sample_rate: Hz wanted.
    channels: 1, 2 or None for those of the file.
    limits: what it may cost.

  Returns:
    The samples; see `reader.read_audio`.

  Raises:
    MediaError: no sound, not decodable, not finite, or over a limit.
  """
  if channels not in (None, 1, 2):
    raise ValueError(f"channels={channels}: give 1, 2 or None (as in the file)")
  window = (origin, start, duration)
  settings = (sample_rate, channels, limits)
  if start > _SEEK_FROM:
    try:
      return _decode(source, *window, *settings, seek=True)
    except (Overshot, MediaError):
      pass  # no usable index: decode up to the window instead
  return _decode(source, *window, *settings, seek=False)


def _decode(
  source, origin, start, duration, sample_rate, channels, limits, *, seek
) -> Audio:
  name = source_name(source)
  with open_input(source, limits=limits) as container:
    stream = find_tracks(container, name, limits=limits).audio
    if stream is None:
      raise MediaError(name, "has no audio", "name a file with sound")
    decoder = Decoder(container, stream, name)
    blocks = _blocks(decoder, channels)
    first = next(blocks, None)
    if first is None:
      raise decoder.error("no audio block can be used", "re-encode it")
    origin = first.time if origin is None else origin
    cell = Fraction(1, math.gcd(first.rate, sample_rate))  # s
    lead = math.ceil(_MARGIN / cell) * cell
    begin = origin + start - lead
    if seek:
      blocks = _sought(container, stream, decoder, channels, begin, first)
    else:
      blocks = itertools.chain([first], blocks)
    samples = _lay(
      blocks,
      first.rate,
      channels=first.samples.shape[1],
      begin=begin,
      seconds=None if duration is None else lead + duration + _MARGIN,
      decoder=decoder,
      limits=limits,
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


def _sought(container, stream, decoder, channels, begin, first: _Block):
  """Blocks from about `_PREROLL` before `begin`."""
  if container.format.name in _NO_EXACT_SEEK:
    raise Overshot
  container.seek(int((begin - _PREROLL) / stream.time_base), stream=stream)
  blocks = _blocks(decoder, channels)
  block = next(blocks)
  if block.time > max(begin, first.time):
    raise Overshot
  return itertools.chain([block], blocks)


def _blocks(decoder: Decoder, channels: int | None) -> Iterator[_Block]:
  for time, frame in decoder.frames():
    try:
      samples = _mix(_as_float(frame), frame, channels)
    except (av.FFmpegError, ValueError):  # a layout that nothing can convert
      decoder.damaged += 1
      continue
    channels = channels or samples.shape[1]  # those of the first block
    yield _Block(time, frame.sample_rate, samples, _declared_length(frame))


def _declared_length(frame: av.AudioFrame) -> int:
  """Samples that count; a tick of rounding is not a difference."""
  if not frame.duration or not frame.time_base:
    return frame.samples
  length = round(frame.duration * frame.time_base * frame.sample_rate)
  tick = frame.time_base * frame.sample_rate
  return length if frame.samples - length > tick else frame.samples


def _as_float(frame: av.AudioFrame) -> np.ndarray:
  """Returns float32 [t, channels], integer formats scaled to [-1, 1)."""
  if frame.format.is_planar and frame.layout.nb_channels >= _MAX_PLANES:
    # PyAV 18 counts the planes of a frame up to a null pointer, and from
    # eight on there is none.
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
  half = 2.0 ** (8 * data.dtype.itemsize - 1)
  offset = half if data.dtype.kind == "u" else 0.0
  return ((data - offset) / half).astype(np.float32)


def _mix(
  samples: np.ndarray, frame: av.AudioFrame, channels: int | None
) -> np.ndarray:
  """Mixes [t, c] to `channels`; more than stereo to stereo as FFmpeg does."""
  if channels is None or channels == samples.shape[1]:
    return samples
  if channels == 1:
    return samples.mean(axis=1, keepdims=True)
  if samples.shape[1] == 1:
    return np.repeat(samples, channels, axis=1)
  if channels == 2:
    mixer = av.AudioResampler("fltp", "stereo", frame.sample_rate)
    return np.concatenate([f.to_ndarray() for f in mixer.resample(frame)], 1).T
  # A stream that loses channels on its way keeps its first ones silent.
  mixed = np.zeros((len(samples), channels), np.float32)
  mixed[:, : samples.shape[1]] = samples[:, :channels]
  return mixed


def _lay(
  blocks: Iterator[_Block],
  rate: int,
  *,
  begin: Fraction,
  seconds: Fraction | None,
  channels: int,
  decoder: Decoder,
  limits: Limits,
) -> np.ndarray:
  """Lays blocks where they are heard, from `begin` for `seconds` (or all)."""
  stop = None if seconds is None else math.ceil(seconds * rate)
  longest = min(limits.duration * rate, limits.memory_bytes // (16 * channels))
  laid, expected, end = [], None, 0
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
      laid.append((position, block.samples))
  total = end if stop is None else min(end, stop)
  samples = np.zeros((max(total, 0), channels), np.float32)
  for position, data in laid:
    data = data[max(-position, 0) :]
    position = max(position, 0)
    samples[position : position + len(data)] = data[: len(samples) - position]
  return samples
