"""How long a stream really is: from its packets, in exact rationals."""

import dataclasses
from fractions import Fraction

from v2a_jax.media.base import Limits, MediaError, Source, source_name
from v2a_jax.media.container import (
  check_duration,
  find_tracks,
  open_input,
  read_packets,
)

_DEFAULT = Limits()


@dataclasses.dataclass(frozen=True)
class Span:
  """When a stream is shown or heard, on the container's clock.

  Attributes:
    start: seconds at which the first packet is presented.
    end: seconds at which the last one ends.
    packets: number of them, without those that an edit list hides.
  """

  start: Fraction
  end: Fraction
  packets: int

  @property
  def duration(self) -> Fraction:
    return self.end - self.start


def stream_span(container, stream, name: str) -> Span:
  """Walks the packets of `stream` to the end, without decoding."""
  shown = [
    (packet.pts, packet.duration or 0)
    for packet in read_packets(container, stream)
    if not packet.is_discard
  ]
  return span_of(shown, stream, name)


def span_of(shown: list[tuple[int, int]], stream, name: str) -> Span:
  """The span of (pts, duration) pairs in ticks of the stream's time base.

  A last packet without a duration gets that of the frame rate, or else the
  gap before it.
  """
  if not shown:
    raise MediaError(
      name, f"its {stream.type} stream holds no packets", "replace it"
    )
  shown = sorted(shown)
  (last, length), base = shown[-1], stream.time_base
  if length:
    tail = length * base
  elif getattr(stream, "average_rate", None):
    tail = 1 / stream.average_rate
  else:
    tail = (last - shown[-2][0]) * base if len(shown) > 1 else Fraction(0)
  return Span(shown[0][0] * base, last * base + tail, len(shown))


def measure(source: Source, kind: str, *, limits: Limits = _DEFAULT) -> Span:
  """Measures the "video" or "audio" stream of a file by its packets."""
  name = source_name(source)
  with open_input(source, limits=limits) as container:
    stream = getattr(find_tracks(container, name, limits=limits), kind)
    if stream is None:
      raise MediaError(name, f"has no {kind}", f"name a file with {kind}")
    span = stream_span(container, stream, name)
    check_duration(span.duration, name, limits)
    return span


def video_duration(source: Source) -> Fraction:
  """Seconds from the first frame's time stamp to the end of the last frame.

  Args:
    source: a path, or the file's bytes.

  Returns:
    Exact seconds: last pts + its duration - first pts.

  Raises:
    MediaError: no readable video.
  """
  return measure(source, "video").duration
