"""A new soundtrack beside untouched pictures.

The video's packets are copied: same payloads, same order, same times from the
first frame on, same rotation and aspect. (FFmpeg's muxers reframe what their
container demands: H.264 from a transport stream, hidden frames of VP9.) All
other streams of the source are dropped. The new sound is as long as the video,
to the sample.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
from fractions import Fraction
import hashlib
import heapq
import math
import os
import pathlib

import av
import numpy as np

from v2a_jax.media.base import Limits, MediaError, Source, source_name
from v2a_jax.media.container import (
  check_duration,
  find_tracks,
  is_untimed,
  open_input,
  read_packets,
)
from v2a_jax.media.timing import span_of
from v2a_jax.media.track import AudioTrack, check_samples, fit_length
from v2a_jax.media.writer import written

# Which container holds which video codec as players expect it, in the order
# of preference; Matroska holds everything.
_HOLDS = {
  ".mp4": {"h264", "hevc", "av1", "vp9", "vvc", "mpeg4", "mpeg2video"},
  ".webm": {"vp8", "vp9", "av1"},
  ".mov": {"h264", "hevc", "mpeg4", "mjpeg", "prores", "dnxhd", "qtrle", "png"},
  ".mkv": set(),  # all of them
}
_AUDIO = {  # the first is taken where the wanted one does not fit
  ".mp4": ("aac", "flac", "alac"),
  ".webm": ("libopus",),
  ".mov": ("aac", "alac"),
  ".mkv": ("flac", "libopus"),
}
_FORMATS = {".mp4": "mp4", ".webm": "webm", ".mov": "mov", ".mkv": "matroska"}
_DEFAULT = Limits()
_MAX_TIMESCALE = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class _Plan:
  """What the first pass over the source found out.

  Attributes:
    codec: canonical name of the video codec.
    duration: seconds that the video is shown.
    times: (pts, dts) of each packet in ticks, the first shown at 0.
    tail: ticks to give the last packet, so that the track, which MP4 measures
      in decoding times, lasts as long as the pictures.
  """

  codec: str
  duration: Fraction
  times: list[tuple[int, int]]
  tail: int


def mux(
  video_path: Source,
  samples: np.ndarray,
  *,
  sample_rate: int,
  out: str | os.PathLike,
  audio_codec: str = "aac",
  bit_rate: int | None = None,
  limits: Limits = _DEFAULT,
) -> pathlib.Path:
  """Writes the pictures of `video_path` with a new soundtrack.

  Args:
    video_path: the source, a path or the file's bytes. Its own sound is
      replaced.
    samples: float32 [t, channels] in [-1, 1], from the first frame on; trimmed
      or padded with silence to the video's duration.
    sample_rate: Hz.
    out: where to write. Its suffix chooses the container (.mp4, .mov, .webm,
      .mkv) if that can hold the video's codec.
    audio_codec: "aac", or "flac" for a lossless track in MP4; where the
      container cannot hold it, the container's own is used.
    bit_rate: bits a second; None for 128 k a channel at 44.1 kHz.
    limits: caps on the source.

  Returns:
    The path written: `out`, or `out` with the suffix of the container that
    had to be taken instead.

  Raises:
    MediaError: no video, an unreadable source, bad samples, failing disk.
  """
  name = source_name(video_path)
  plan = _plan(video_path, name, limits)
  out = pathlib.Path(out)
  suffix = _container_for(plan.codec, out.suffix.lower())
  out = out if out.suffix.lower() == suffix else out.with_suffix(suffix)
  if not isinstance(video_path, bytes) and _same_file(video_path, out):
    raise MediaError(str(out), "is the source itself", "write to another file")
  if audio_codec not in _AUDIO[suffix]:
    audio_codec = _AUDIO[suffix][0]
  samples = check_samples(samples, str(out))
  samples = fit_length(samples, round(plan.duration * sample_rate))
  with open_input(video_path, limits=limits) as source, written(out) as part:
    stream = find_tracks(source, name, limits=limits).video
    with av.open(
      str(part),
      "w",
      format=_FORMATS[suffix],
      container_options=_options(suffix, sample_rate, stream.time_base),
    ) as container:
      video = _copy_stream(container, stream)
      sound = AudioTrack(
        container,
        samples,
        sample_rate=sample_rate,
        codec=audio_codec,
        bit_rate=bit_rate,
        name=str(out),
      )
      _interleave(
        container, _copied(source, stream, video, plan), sound.packets()
      )
  return out


def _container_for(codec: str, wanted: str) -> str:
  """The wanted container, or else the first that holds the codec as it is."""
  return next(
    suffix
    for suffix in (wanted, *_HOLDS)
    if suffix == ".mkv" or codec in _HOLDS.get(suffix, ())
  )


def _same_file(a, b: pathlib.Path) -> bool:
  return b.exists() and os.path.samefile(a, b)


def _plan(source, name: str, limits: Limits) -> _Plan:
  """Walks the source once: its packets' times, repaired where need be."""
  with open_input(source, limits=limits) as container:
    stream = find_tracks(container, name, limits=limits).video
    if stream is None:
      raise MediaError(name, "has no video", "name a file with video")
    codec = stream.codec_context.codec.canonical_name
    packets = [
      (p.pts, p.dts, p.duration or 0, p.is_discard)
      for p in read_packets(container, stream)
    ]
    if is_untimed(container):
      packets = _timed_by_decoding(source, packets, name, limits)
    start = _check_hidden(packets, name, second=1 / stream.time_base)
    span = span_of(
      [(pts, length) for pts, _, length, hidden in packets if not hidden],
      stream,
      name,
    )
    check_duration(span.duration, name, limits)
    if not span.duration:
      raise MediaError(name, "its video lasts 0 s", "re-encode it")
    ticks = int(span.duration / stream.time_base)
  times = _ordered([(pts - start, dts - start) for pts, dts, _, _ in packets])
  # From the first packet that is shown, or that one shown needs.
  begin = min(dts for pts, dts in times if pts >= 0)
  tail = max(ticks - (times[-1][1] - begin), 1)
  return _Plan(codec=codec, duration=span.duration, times=times, tail=tail)


def _check_hidden(packets, name: str, *, second: Fraction) -> int:
  """Returns the first shown pts; refuses edit lists that cannot be copied.

  Packets that an edit list hides before the first shown frame stay hidden.
  The few that it hides after the last one, which shown ones may refer to, are
  copied and come after the sound has ended.
  """
  shown = [pts for pts, _, _, hidden in packets if not hidden]
  if not shown:
    raise MediaError(name, "its edit list hides every frame", "re-encode it")
  first, last = min(shown), max(shown)
  for pts, _, _, hidden in packets:
    if hidden and (first < pts < last or pts > last + second):
      raise MediaError(
        name,
        "its edit list cuts inside the picture, which a copy cannot do",
        "re-encode the video first, such as: ffmpeg -i IN -c:v libx264 OUT",
      )
  return first


def _timed_by_decoding(source, packets, name: str, limits: Limits):
  """Gives AVI packets the presentation times that AVI does not store.

  The n-th picture that the decoder puts out is shown in the n-th slot.
  """
  with open_input(source, limits=limits) as container:
    stream = find_tracks(container, name, limits=limits).video
    stream.codec_context.copy_opaque = True
    shown = []
    for index, packet in enumerate(read_packets(container, stream)):
      packet.opaque = index
      with contextlib.suppress(av.FFmpegError):
        shown.extend(frame.opaque for frame in packet.decode())
    shown.extend(frame.opaque for frame in stream.decode(None))
  slots = sorted(dts for _, dts, _, _ in packets)
  # Packets that give no picture (damage) take the slots that are left.
  shown = dict.fromkeys(i for i in shown if i is not None)
  shown |= dict.fromkeys(range(len(packets)))
  slot_of = dict(zip(shown, slots, strict=True))
  return [
    (slot_of[index], dts, length, discard)
    for index, (_, dts, length, discard) in enumerate(packets)
  ]


def _ordered(times: list[tuple[int, int]]) -> list[tuple[int, int]]:
  """Makes decoding times increase and stay at or before presentation.

  Files in order pass unchanged; muxers refuse the others.
  """
  fixed, previous, lag = [], None, 0
  for pts, dts in times:
    dts = dts if previous is None else max(dts, previous + 1)
    fixed.append((pts, dts))
    previous, lag = dts, max(lag, dts - pts)
  return [(pts, dts - lag) for pts, dts in fixed]


def _options(suffix: str, sample_rate: int, time_base: Fraction):
  if suffix not in (".mp4", ".mov"):
    return {}
  # Edit lists count in the movie's time scale: exact for both streams where
  # that fits in the field, otherwise for the sound.
  scale = math.lcm(sample_rate, time_base.denominator)
  scale = scale if scale <= _MAX_TIMESCALE else sample_rate
  return {"movie_timescale": str(scale), "movflags": "+faststart"}


def _copy_stream(container, stream: av.VideoStream) -> av.VideoStream:
  copy = container.add_stream_from_template(stream, opaque=True)
  copy.time_base = stream.time_base
  if stream.codec_context.codec.canonical_name == "hevc":
    if container.format.name in ("mp4", "mov"):
      copy.codec_context.codec_tag = "hvc1"  # the one that Apple plays
  return copy


def _copied(source, stream, copy, plan: _Plan) -> Iterator[av.Packet]:
  packets = read_packets(source, stream)
  last = len(plan.times) - 1
  for index, packet in enumerate(packets):
    packet.pts, packet.dts = plan.times[index]
    packet.stream = copy
    if index == last:
      packet.duration = plan.tail
    yield packet


def _interleave(container, *tracks: Iterator[av.Packet]) -> None:
  """Muxes packets in the order of their decoding times."""
  for packet in heapq.merge(*tracks, key=lambda p: p.dts * p.time_base):
    container.mux(packet)


def video_packets(source: Source) -> list[tuple[Fraction, str]]:
  """The video's packets in order, to see that a copy is one.

  Returns:
    Of each packet: presentation time in seconds after the first shown one,
    and the MD5 of its payload.
  """
  name, limits = source_name(source), Limits()
  with open_input(source, limits=limits) as container:
    stream = find_tracks(container, name, limits=limits).video
    if stream is None:
      raise MediaError(name, "has no video", "name a file with video")
    packets = [
      (p.pts, p.is_discard, hashlib.md5(bytes(p)).hexdigest())
      for p in read_packets(container, stream)
    ]
    start = min(pts for pts, discard, _ in packets if not discard)
    return [((pts - start) * stream.time_base, md5) for pts, _, md5 in packets]


def video_packets_digest(source: Source) -> str:
  """One MD5 over the payloads of the video's packets in order."""
  payloads = (payload for _, payload in video_packets(source))
  return hashlib.md5("".join(payloads).encode()).hexdigest()
