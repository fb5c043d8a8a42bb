"""Opening, demuxing and decoding of untrusted media files.

Python opens the path as a regular file and FFmpeg only sees its bytes. So a
name such as "concat:a|b" or "http://…" is a file that does not exist, and
playlist formats, which open further files or URLs, are not on the whitelist.
https://ffmpeg.org/ffmpeg-formats.html#Format-Options
"""

from collections.abc import Container, Iterator
import contextlib
import dataclasses
from fractions import Fraction
import heapq
from typing import BinaryIO

import av
from av.stream import Disposition

from v2a_jax.media import work
from v2a_jax.media.base import Limits, MediaError, Source, more, source_name
from v2a_jax.media.opening import open_source

# Demuxers that never open a second file.
_FORMATS = (
  "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,ogg,wav,w64,flac,mp3,"
  "aac,ac3,aiff,au,caf,asf,gif,h264,hevc,ivf,m4v,mxf,nut,amr,dv"
)
_OPTIONS = {
  "protocol_whitelist": "none",
  "format_whitelist": _FORMATS,
  "fflags": "+genpts",  # raw streams store no presentation times
}
_MAX_TIME = 10**9  # seconds; larger times come from a broken time base

av.logging.set_level(None)  # FFmpeg's errors arrive as exceptions
av.logging.set_skip_repeated(False)


@contextlib.contextmanager
def open_input(
  source: Source, *, limits: Limits
) -> Iterator[av.container.InputContainer]:
  """Opens a path, or the bytes of a file, for demuxing.

  Raises:
    MediaError: the file cannot be opened or is over `limits.file_bytes`, or
      FFmpeg raises in the body of the `with` statement.
  """
  name = source_name(source)
  with contextlib.ExitStack() as stack:
    file = stack.enter_context(open_source(source, name, limits))
    try:
      container = stack.enter_context(_open(file))
    except av.FFmpegError as e:
      raise _unopened(file, name, e) from e
    try:
      yield container
    except av.FFmpegError as e:
      raise MediaError(name, _reason(e), "replace or re-encode it") from e


def _open(file: BinaryIO) -> av.container.InputContainer:
  return av.open(file, options=_OPTIONS, metadata_errors="replace")


def _unopened(file: BinaryIO, name: str, error: Exception) -> MediaError:
  """Returns why FFmpeg cannot open a file."""
  format_name, text = _logged(file)
  if text.startswith("Format not on whitelist"):
    reason = f"cannot be opened: its format, {format_name}, is not read here"
    return MediaError(name, reason, "convert it, for example to MP4 or WAV")
  reason = f"cannot be opened: {text or _reason(error)}"
  return MediaError(name, reason, "replace it with a complete file")


def _logged(file: BinaryIO) -> tuple[str, str]:
  """Returns the format and the error that FFmpeg logs, or two times ""."""
  file.seek(0)
  av.logging.set_level(av.logging.ERROR)
  try:
    with av.logging.Capture() as log, _open(file):
      return "", ""
  except av.FFmpegError:
    return (log[0][1], log[0][2].strip()) if log else ("", "")
  finally:
    av.logging.set_level(None)


def _reason(error: Exception) -> str:
  return getattr(error, "strerror", None) or str(error) or "cannot be decoded"


@dataclasses.dataclass(frozen=True)
class Tracks:
  """The main streams of a file."""

  video: av.VideoStream | None
  audio: av.AudioStream | None


def find_tracks(
  container: av.container.InputContainer,
  name: str,
  *,
  limits: Limits,
  audio_track: int | None = None,
) -> Tracks:
  """Returns the main video and audio stream, ready to be decoded.

  Args:
    container: opened file.
    name: what errors call it.
    limits: resource limits.
    audio_track: number of the audio stream, from 0; None for the main one.

  Raises:
    MediaError: there is none with a decoder or of this number, or the headers
      are over a limit.
  """
  video = _best(container, "video")
  if audio_track is None:
    audio = _best(container, "audio")
  else:
    audio = _numbered(container, audio_track, name)
  if video is None and audio is None:
    raise MediaError(
      name, "has no video or audio that can be decoded", "replace it"
    )
  if video is not None:
    context = video.codec_context
    # FFmpeg checks again while decoding: frames may grow within a stream.
    check_pixels(context.width, context.height, name, limits)
    context.options = {"max_pixels": str(limits.pixels)}
    # Threads do not pay on small frames, and data loaders already decode many
    # clips in parallel.
    context.thread_count = 1 if context.width * context.height < 10**6 else 4
    context.thread_type = "AUTO"
  if audio is not None:
    audio.codec_context.thread_count = 1
  check_duration(Fraction(container.duration or 0, av.time_base), name, limits)
  return Tracks(video, audio)


def find_track(
  container,
  kind: str,
  name: str,
  *,
  limits: Limits,
  audio_track: int | None = None,
):
  """Returns the main stream of a kind, "video" or "audio"; see `find_tracks`.

  Raises:
    MediaError: there is none, or as `find_tracks`.
  """
  tracks = find_tracks(container, name, limits=limits, audio_track=audio_track)
  stream = getattr(tracks, kind)
  if stream is None:
    raise MediaError(name, f"has no {kind}", f"give a file with {kind}")
  return stream


def check_pixels(width: int, height: int, name: str, limits: Limits) -> None:
  """Raises MediaError if a frame is over `limits.pixels`."""
  if width * height > limits.pixels:
    raise MediaError(
      name,
      f"has frames of {width} x {height}, over the limit of "
      f"{limits.pixels:,} pixels",
      f"make it smaller, or {more('pixels')}",
    )


def check_duration(seconds: Fraction, name: str, limits: Limits) -> None:
  """Raises MediaError if a duration is over `limits.duration`."""
  if seconds > limits.duration:
    raise MediaError(
      name,
      f"claims to last {float(seconds):,.0f} s, over the limit of "
      f"{limits.duration:,.0f} s",
      f"cut it, or {more('duration')}",
    )


def _best(container: av.container.InputContainer, kind: str):
  """Returns FFmpeg's best stream of a kind, else the first usable, or None.

  A stream is usable if PyAV has a decoder for it and it is not cover art.
  """

  def usable(stream) -> bool:
    if stream is None or stream.type != kind or stream.codec_context is None:
      return False
    return not stream.disposition & Disposition.attached_pic

  best = container.streams.best(kind)
  if usable(best):
    return best
  return next(filter(usable, container.streams), None)


def _numbered(container, number: int, name: str) -> av.AudioStream:
  """Returns an audio stream by its number; raises MediaError if there is none.

  Streams without a decoder count, as they do in FFmpeg's `0:a:1`.
  """
  streams = container.streams.audio
  if number >= len(streams):
    raise MediaError(
      name,
      f"has {len(streams)} sound tracks, so there is no number {number}",
      "give --audio_track another number, counted from 0",
    )
  if streams[number].codec_context is None:
    raise MediaError(
      name, f"its sound track {number} cannot be decoded", "give another"
    )
  return streams[number]


def read_packets(
  container: av.container.InputContainer, stream
) -> Iterator[av.Packet]:
  """Yields the packets of `stream`, each with a pts and a dts.

  Ends without an error where a file is truncated. A packet without a time
  takes that of the packet before it; in AVI, pts is set to dts.
  """
  pts = dts = 0
  dts_only = has_dts_only(container)
  try:
    for packet in container.demux(stream):
      work.on_earned(work.PER_PACKET)
      if packet.size:  # PyAV ends with an empty packet that flushes decoders
        dts = packet.dts if packet.dts is not None else packet.pts or dts
        pts = packet.pts if packet.pts is not None else max(pts, dts)
        packet.pts, packet.dts = (dts if dts_only else pts), dts
        yield packet
  except av.FFmpegError:
    return


class SeekError(Exception):
  """A seek landed after the requested time, or would be inexact."""


def has_dts_only(container: av.container.InputContainer) -> bool:
  """Returns whether a format stores decoding but no presentation times."""
  return container.format.name == "avi"


class Decoder:
  """Decodes one stream and goes on after damage.

  `damaged` counts packets that could not be decoded and frames flagged as
  corrupt, so far. `needed`, if it is set, has the time stamps of the frames that
  are needed; others from which none is made need not come.
  """

  def __init__(self, container, stream, name: str, limits: Limits):
    self._meter = work.Meter(name, limits)
    self._container, self._stream, self._name = container, stream, name
    rate = getattr(stream, "average_rate", None)
    self._step = 1 / rate if rate else Fraction(0)
    self._length = (0, 1)
    self._is_audio = stream.type == "audio"
    self._dts_only = has_dts_only(container)
    self._unused_dts: list[int] = []  # a heap
    self.damaged = 0
    self.needed: Container[int] | None = None

  def frames(self) -> Iterator[tuple[Fraction, av.frame.Frame]]:
    """Yields (seconds on the container's clock, frame) in decoder order.

    Raises:
      MediaError: no frame can be decoded, or a time stamp is broken.
    """
    time, count, error = None, 0, None
    for packet in self._packets():
      work.on_earned(work.PER_PACKET)
      if self._dts_only and packet.dts is not None:
        heapq.heappush(self._unused_dts, packet.dts)
      if self.needed is not None:
        wanted = packet.pts in self.needed or not packet.size
        context = self._stream.codec_context
        context.skip_frame = "DEFAULT" if wanted else "NONREF"
      try:
        decoded = packet.decode()
      except av.FFmpegError as e:
        self.damaged, error = self.damaged + 1, e
        if packet.dts in self._unused_dts:
          self._unused_dts.remove(packet.dts)
          heapq.heapify(self._unused_dts)
        continue
      for frame in decoded:
        time = self._time(frame, previous=time)
        if abs(float(time)) > _MAX_TIME:
          raise self.error(
            f"has a frame at {float(time):.3g} s",
            "remux it to repair its time stamps",
          )
        count += 1
        if not self._is_audio:
          self._meter.count_frame(frame.width * frame.height)
        self.damaged += frame.is_corrupt
        yield time, frame
    if not count:
      cause = f": {_reason(error)}" if error else ""
      raise self.error(
        f"no {self._stream.type} frame can be decoded{cause}",
        "replace or re-encode it",
      )

  def error(self, reason: str, advice: str) -> MediaError:
    """Returns a MediaError that names the file."""
    return MediaError(self._name, reason, advice)

  def _packets(self) -> Iterator[av.Packet]:
    try:
      yield from self._container.demux(self._stream)
    except av.FFmpegError:  # the rest of the file is missing or garbage
      self.damaged += 1
      flush = av.Packet()
      flush.stream = self._stream
      flush.time_base = self._stream.time_base
      yield flush

  def _time(self, frame, *, previous: Fraction | None) -> Fraction:
    ticks = frame.pts if frame.pts is not None else frame.dts
    if self._dts_only:
      ticks = self._ticks_from_dts(previous)
    base = frame.time_base or self._stream.time_base
    length = self._length
    if self._is_audio:
      self._length = (frame.samples, frame.sample_rate)
    if ticks is None or not base:
      step = Fraction(*length) if self._is_audio else self._step
      return Fraction(0) if previous is None else previous + step
    return ticks * base

  def _ticks_from_dts(self, previous: Fraction | None) -> int | None:
    """Returns the pts of the next frame of a file that stores only dts (AVI).

    The n-th frame in presentation order takes the n-th lowest dts. Audio after
    its first block returns None, which means without a gap.
    """
    if not self._unused_dts or (previous is not None and self._is_audio):
      return None
    return heapq.heappop(self._unused_dts)
