"""Exact duration of a stream, from the time stamps of its packets."""

import dataclasses
from fractions import Fraction

from v2a_jax.media.base import (
  DEFAULT_LIMITS,
  Limits,
  MediaError,
  Source,
  source_name,
)
from v2a_jax.media.container import (
  check_duration,
  find_tracks,
  open_input,
  read_packets,
)


@dataclasses.dataclass(frozen=True)
class Span:
  """Extent of a stream on the container's clock.

  Attributes:
    start: presentation time of the first packet in seconds.
    end: end of the last packet in seconds.
    packets: number of packets, without those that an edit list hides.
  """

  start: Fraction
  end: Fraction
  packets: int

  @property
  def duration(self) -> Fraction:
    """Seconds from start to end."""
    return self.end - self.start


def span_of(packets: list[tuple[int, int]], stream, name: str) -> Span:
  """Returns the span of some packets.

  Args:
    packets: (pts, duration) of each packet, in ticks of the stream's time base.
      A last packet of duration 0 is taken to last one frame at the average
      rate, or else as long as the one before it.
    stream: stream of the packets.
    name: name of the file for errors.

  Raises:
    MediaError: there are no packets.
  """
  if not packets:
    raise MediaError(
      name, f"its {stream.type} stream holds no packets", "replace it"
    )
  packets = sorted(packets)
  (last, length), base = packets[-1], stream.time_base
  if length:
    tail = length * base
  elif getattr(stream, "average_rate", None):
    tail = 1 / stream.average_rate
  else:
    tail = (last - packets[-2][0]) * base if len(packets) > 1 else Fraction(0)
  return Span(packets[0][0] * base, last * base + tail, len(packets))


def measure(
  source: Source, kind: str, *, limits: Limits = DEFAULT_LIMITS
) -> Span:
  """Measures a stream by its packets, without decoding.

  Args:
    source: path, or bytes of the file.
    kind: "video" or "audio".
    limits: resource limits of the file.

  Raises:
    MediaError: the file has no such stream, or it is over a limit.
  """
  name = source_name(source)
  with open_input(source, limits=limits) as container:
    stream = getattr(find_tracks(container, name, limits=limits), kind)
    if stream is None:
      raise MediaError(name, f"has no {kind}", f"give a file with {kind}")
    packets = [
      (packet.pts, packet.duration or 0)
      for packet in read_packets(container, stream)
      if not packet.is_discard
    ]
    span = span_of(packets, stream, name)
    check_duration(span.duration, name, limits)
    return span


def video_duration(source: Source) -> Fraction:
  """Returns the exact duration of a video in seconds.

  It is the last pts, plus the duration of the last frame, minus the first pts.

  Args:
    source: path, or bytes of the file.

  Raises:
    MediaError: the file has no readable video.
  """
  return measure(source, "video").duration
