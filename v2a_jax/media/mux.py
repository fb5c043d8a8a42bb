"""Muxing of a new soundtrack with the unchanged video of a file.

The video packets are copied: same payloads, order, rotation and aspect ratio,
and the same times relative to the first frame. (FFmpeg's muxers reframe what
the container requires: H.264 from a transport stream, hidden frames of VP9.)
So are the title, the chapters and the other tags that the container has a place
for, the time code, and the language of the sound. All other streams of the
source are dropped. The new audio has the duration of the video, to the sample.

The source is read, and the output written, in a confined process (sandbox.py).
"""

from collections.abc import Iterator
import contextlib
import dataclasses
from fractions import Fraction
import functools
import hashlib
import heapq
import math
import os
import pathlib
import tempfile

import av
import numpy as np

from v2a_jax.basics.paths import local_path
from v2a_jax.media import tags
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
  find_tracks,
  has_dts_only,
  open_input,
  read_packets,
)
from v2a_jax.media.opening import open_output, open_raw
from v2a_jax.media.sandbox import limited, run_limited
from v2a_jax.media.timing import span_of
from v2a_jax.media.track import AudioTrack, StoredSamples, check_samples
from v2a_jax.media.writer import write_errors, written

# Video codecs that players support in each container, in order of preference.
_VIDEO = {
  ".mp4": {"h264", "hevc", "av1", "vp9", "vvc", "mpeg4", "mpeg2video"},
  ".webm": {"vp8", "vp9", "av1"},
  ".mov": {
    *("h264", "hevc", "mpeg4", "mjpeg", "prores", "dnxhd", "qtrle", "png"),
    "dvvideo",
  },
  ".mkv": set(),  # every codec; see _container_for
}
_AUDIO = {  # audio codecs of each container, the default first
  ".mp4": ("aac", "flac", "alac"),
  ".webm": ("libopus",),
  ".mov": ("aac", "alac", "pcm_s24le"),
  ".mkv": ("flac", "libopus", "pcm_s24le"),
}
# What is written for a kind of codec: the first that the container has.
_KINDS = {
  "aac": ("aac",),
  "flac": ("flac", "alac"),
  "pcm": ("pcm_s24le", "flac"),
}
_FORMATS = {".mp4": "mp4", ".webm": "webm", ".mov": "mov", ".mkv": "matroska"}
_MAX_TIMESCALE = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class _Plan:
  """Timing of the video packets, from a first pass over a file."""

  duration: Fraction  # seconds of the visible video
  times: list[tuple[int, int]]  # (pts, dts) in ticks; first visible pts is 0
  # Ticks of the last packet. MP4 measures a track in decoding times; this makes
  # it as long as the video.
  tail: int


def mux(
  video_path: Source,
  samples: np.ndarray,
  *,
  sample_rate: int,
  out: str | os.PathLike,
  audio_codec: str = "aac",
  bit_rate: int | None = None,
  limits: Limits = DEFAULT_LIMITS,
) -> pathlib.Path:
  """Writes the video of a file with a new soundtrack.

  Args:
    video_path: path, or bytes of the file; its own audio is dropped.
    samples: float32 [t, channels] in [-1, 1] from the first frame on; trimmed
      or padded with zeros to the duration of the video.
    sample_rate: sample rate of `samples` in Hz.
    out: path of the output. Its suffix chooses the container (.mp4, .mov,
      .webm, .mkv) if that supports the video codec.
    audio_codec: "aac", or lossless: "flac" or, in MOV and MKV, "pcm", both of
      24 bits. A container that has no such codec gets its own default, or
      FLAC for PCM, or ALAC for FLAC.
    bit_rate: bits per second of the audio; None for `track.default_bit_rate`.
    limits: resource limits of the source.

  Returns:
    `out`, with the suffix of another container if its own does not support the
    video codec.

  Raises:
    MediaError: the source has no video or cannot be read or copied, the samples
      are refused, or the output cannot be written.
  """
  codec = limited(_video_codec)(video_path, limits=limits)
  out = local_path(out, "media")
  suffix = _container_for(codec, out.suffix.lower())
  out = out if out.suffix.lower() == suffix else out.with_suffix(suffix)
  is_path = not isinstance(video_path, bytes)
  if is_path and out.exists() and os.path.samefile(video_path, out):
    raise MediaError(str(out), "is the source itself", "write to another file")
  has = _AUDIO[suffix]
  wanted = _KINDS.get(audio_codec, (audio_codec,))
  audio_codec = next((name for name in wanted if name in has), has[0])
  samples = check_samples(samples, str(out))
  write = functools.partial(
    _write,
    channels=samples.shape[1],
    sample_rate=sample_rate,
    suffix=suffix,
    audio_codec=audio_codec,
    bit_rate=bit_rate,
    name=str(out),
    limits=limits,
  )
  with written(out) as part, tempfile.TemporaryFile() as sound:
    # Long sound is read from a file there, not held by both processes.
    samples.tofile(sound)
    sound.flush()
    part.touch()
    paths = f"/dev/fd/{sound.fileno()}", str(part)
    run_limited(write, video_path, *paths, limits=limits, output=part)
  return out


def _video_codec(source: Source, *, limits: Limits) -> str:
  """Returns the canonical name of the video's codec."""
  with open_input(source, limits=limits) as container:
    stream = find_track(container, "video", source_name(source), limits=limits)
    return stream.codec_context.codec.canonical_name


def _write(
  video_path: Source,
  sound: str,
  part: str,
  *,
  channels: int,
  sample_rate: int,
  suffix: str,
  audio_codec: str,
  bit_rate: int | None,
  name: str,
  limits: Limits,
) -> None:
  """Writes the output to `part`; the arguments are those of `mux`.

  `sound` is the file of the samples, `suffix` that of the container and `name`
  that of the output for errors.
  """
  source_path = source_name(video_path)
  plan = _plan(video_path, source_path, limits)
  samples = StoredSamples(
    open_raw(sound), channels, round(plan.duration * sample_rate)
  )
  with open_input(video_path, limits=limits) as source, write_errors(name):
    tracks = find_tracks(source, source_path, limits=limits)
    with av.open(
      open_output(part),
      "w",
      format=_FORMATS[suffix],
      container_options=_options(suffix, sample_rate, tracks.video.time_base),
      # The index is moved to the front, which reads the file again.
      io_open=lambda url, flags, options: open_output(part),
    ) as container:
      video = _copy_stream(container, tracks.video)
      audio = AudioTrack(
        container,
        samples,
        sample_rate=sample_rate,
        codec=audio_codec,
        bit_rate=bit_rate,
        name=name,
      )
      tags.copy(source, tracks, container, seconds=plan.duration)
      _interleave(
        container,
        _copy_packets(source, tracks.video, video, plan),
        audio.packets(),
      )


def _container_for(codec: str, wanted: str) -> str:
  """Returns the wanted suffix, else the first one that supports the codec."""
  return next(
    suffix
    for suffix in (wanted, *_VIDEO)
    if suffix == ".mkv" or codec in _VIDEO.get(suffix, ())
  )


def _plan(source, name: str, limits: Limits) -> _Plan:
  """Reads the times of all video packets and repairs them where necessary."""
  with open_input(source, limits=limits) as container:
    stream = find_track(container, "video", name, limits=limits)
    packets = [
      (p.pts, p.dts, p.duration or 0, p.is_discard)
      for p in read_packets(container, stream)
    ]
    if has_dts_only(container):
      packets = _pts_by_decoding(source, packets, name, limits)
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
  # The first packet that is visible, or that a visible one depends on.
  begin = min(dts for pts, dts in times if pts >= 0)
  tail = max(ticks - (times[-1][1] - begin), 1)
  return _Plan(duration=span.duration, times=times, tail=tail)


def _check_hidden(packets, name: str, *, second: Fraction) -> int:
  """Returns the first visible pts; refuses edit lists that cannot be copied.

  Packets that an edit list hides before the first visible frame stay hidden.
  Those hidden up to one second after the last visible frame, which may depend
  on them, are copied and presented after the audio has ended.
  """
  visible = [pts for pts, _, _, hidden in packets if not hidden]
  if not visible:
    raise MediaError(name, "its edit list hides every frame", "re-encode it")
  first, last = min(visible), max(visible)
  for pts, _, _, hidden in packets:
    if hidden and (first < pts < last or pts > last + second):
      raise MediaError(
        name,
        "its edit list cuts inside the video, which a copy cannot keep",
        "re-encode the video first, such as: ffmpeg -i IN -c:v libx264 OUT",
      )
  return first


def _pts_by_decoding(source, packets, name: str, limits: Limits):
  """Returns the packets of an AVI file with the pts that AVI does not store.

  The packet of the n-th frame in decoder output takes the n-th lowest dts.
  """
  with open_input(source, limits=limits) as container:
    stream = find_track(container, "video", name, limits=limits)
    stream.codec_context.copy_opaque = True
    order = []  # packet indices in presentation order
    for index, packet in enumerate(read_packets(container, stream)):
      packet.opaque = index
      with contextlib.suppress(av.FFmpegError):
        order.extend(frame.opaque for frame in packet.decode())
    order.extend(frame.opaque for frame in stream.decode(None))
  # Damaged packets, which decode to no frame, take the times that are left.
  order = dict.fromkeys(i for i in order if i is not None)
  order |= dict.fromkeys(range(len(packets)))
  times = sorted(dts for _, dts, _, _ in packets)
  pts_of = dict(zip(order, times, strict=True))
  return [
    (pts_of[index], dts, length, hidden)
    for index, (_, dts, length, hidden) in enumerate(packets)
  ]


def _ordered(times: list[tuple[int, int]]) -> list[tuple[int, int]]:
  """Returns (pts, dts) pairs whose dts increase and are at most the pts.

  Muxers refuse all others. Valid pairs are returned unchanged.
  """
  ordered, previous, lag = [], None, 0
  for pts, dts in times:
    dts = dts if previous is None else max(dts, previous + 1)
    ordered.append((pts, dts))
    previous, lag = dts, max(lag, dts - pts)
  return [(pts, dts - lag) for pts, dts in ordered]


def _options(
  suffix: str, sample_rate: int, time_base: Fraction
) -> dict[str, str]:
  """Returns the muxer options of a container."""
  if suffix not in (".mp4", ".mov"):
    return {}
  # The unit of edit lists is the movie's time scale. Make it exact for both
  # streams if that fits the field, otherwise for the audio.
  scale = math.lcm(sample_rate, time_base.denominator)
  scale = scale if scale <= _MAX_TIMESCALE else sample_rate
  return {"movie_timescale": str(scale), "movflags": "+faststart"}


def _copy_stream(container, stream: av.VideoStream) -> av.VideoStream:
  copy = container.add_stream_from_template(stream, opaque=True)
  copy.time_base = stream.time_base
  if stream.codec_context.codec.canonical_name == "hevc":
    if container.format.name in ("mp4", "mov"):
      copy.codec_context.codec_tag = "hvc1"  # required by Apple's players
  return copy


def _copy_packets(source, stream, copy, plan: _Plan) -> Iterator[av.Packet]:
  for index, packet in enumerate(read_packets(source, stream)):
    packet.pts, packet.dts = plan.times[index]
    packet.stream = copy
    if index == len(plan.times) - 1:
      packet.duration = plan.tail
    yield packet


def _interleave(container, *tracks: Iterator[av.Packet]) -> None:
  """Muxes the packets of all tracks in the order of their dts."""
  for packet in heapq.merge(*tracks, key=lambda p: p.dts * p.time_base):
    container.mux(packet)


def video_packets(source: Source) -> list[tuple[Fraction, str]]:
  """Reads the video packets, to verify a copy.

  Returns:
    For each packet in order: presentation time in seconds after the first
    visible one, and MD5 of the payload.

  Raises:
    MediaError: the file has no readable video.
  """
  name, limits = source_name(source), DEFAULT_LIMITS
  with open_input(source, limits=limits) as container:
    stream = find_track(container, "video", name, limits=limits)
    packets = [
      (p.pts, p.is_discard, hashlib.md5(bytes(p)).hexdigest())
      for p in read_packets(container, stream)
    ]
    start = min(pts for pts, hidden, _ in packets if not hidden)
    return [((pts - start) * stream.time_base, md5) for pts, _, md5 in packets]


def video_packets_digest(source: Source) -> str:
  """Returns the MD5 of the payload MD5s of all video packets in order."""
  digests = (digest for _, digest in video_packets(source))
  return hashlib.md5("".join(digests).encode()).hexdigest()
