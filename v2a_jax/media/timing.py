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
  find_track,
  open_input,
  read_packets,
)


@dataclasses.dataclass(frozen=True)
class Span:
  """Extent of a stream on the container's clock, in seconds.

  Attributes:
    start: presentation time of the first packet.
    end: end of the last packet.
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
  """Returns the span of packets, each (pts, duration) in ticks of the stream.

  A last packet of duration 0 is taken to last one frame at the average rate, or
  else as long as the one before it.

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
  source: Source,
  kind: str,
  *,
  limits: Limits = DEFAULT_LIMITS,
  audio_track: int | None = None,
) -> Span:
  """Measures the stream "video" or "audio" by its packets, without decoding.

  Raises:
    MediaError: the file has no such stream, or it is over a limit.
  """
  name = source_name(source)
  with open_input(source, limits=limits) as container:
    stream = find_track(
      container, kind, name, limits=limits, audio_track=audio_track
    )
    packets = [
      (packet.pts, packet.duration or 0)
      for packet in read_packets(container, stream)
      if not packet.is_discard
    ]
    span = span_of(packets, stream, name)
    check_duration(span.duration, name, limits)
    return span


def video_duration(
  source: Source, *, limits: Limits = DEFAULT_LIMITS
) -> Fraction:
  """Returns the exact duration of a video in seconds.

  It is the last pts, plus the duration of the last frame, minus the first pts.

  Raises:
    MediaError: the file has no readable video.
  """
  return measure(source, "video", limits=limits).duration
