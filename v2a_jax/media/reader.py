"""Frames at their presentation timestamps and sound on the same clock.

Nothing assumes a frame rate. Time zero is the first shown frame of the video:
`read_video` gives every frame the time at which it is shown, `read_audio` pads
or trims so that sample i sounds i / sample_rate seconds after that instant,
whatever the offset between the two streams, encoder priming or edit lists.
Only the window that is asked for is decoded.

These functions decode in this process; `sandbox.read_clip` does the same in
one that may be killed.
"""

from collections.abc import Iterator
import dataclasses
from fractions import Fraction
import itertools
import math

import av
import numpy as np

from v2a_jax.media import picture, sound, timing
from v2a_jax.media.base import (
  Audio,
  Clip,
  Limits,
  MediaError,
  MediaInfo,
  Source,
  Video,
  source_name,
)
from v2a_jax.media.container import (
  Decoder,
  Overshot,
  check_pixels,
  find_tracks,
  open_input,
)

_SEEK_FROM = 5  # seconds; nearer starts are decoded through
_DEFAULT = Limits()


def probe(source: Source, *, limits: Limits = _DEFAULT) -> MediaInfo:
  """Says what is in a file, and that its first picture can be decoded.

  Args:
    source: a path, or the file's bytes.
    limits: claims beyond them are refused.

  Returns:
    The facts; `duration` is the container's claim where it makes one.

  Raises:
    MediaError: missing, not a media file, over a limit, or not decodable.
  """
  name = source_name(source)
  with open_input(source, limits=limits) as container:
    tracks = find_tracks(container, name, limits=limits)
    main = tracks.video or tracks.audio
    info = MediaInfo(
      container=container.format.name,
      has_video=tracks.video is not None,
      has_audio=tracks.audio is not None,
      duration=float((main.duration or 0) * (main.time_base or 0)),
    )
    if tracks.audio is not None:
      info = dataclasses.replace(info, **_audio_facts(tracks.audio))
    if tracks.video is not None:
      facts = _video_facts(container, tracks.video, name, limits)
      info = dataclasses.replace(info, **facts)
  if not info.duration or (info.has_video and not info.fps):
    kind = "video" if info.has_video else "audio"
    span = timing.measure(source, kind, limits=limits)
    seconds = float(span.duration)
    info = dataclasses.replace(info, duration=info.duration or seconds)
    if info.has_video and seconds:
      info = dataclasses.replace(info, fps=info.fps or span.packets / seconds)
  return info


def _audio_facts(stream: av.AudioStream) -> dict:
  context = stream.codec_context
  return {
    "audio_codec": context.codec.canonical_name,
    "sample_rate": context.sample_rate,
    "channels": context.channels,
  }


def _video_facts(container, stream: av.VideoStream, name, limits) -> dict:
  time, frame = next(Decoder(container, stream, name).frames())
  check_pixels(frame.width, frame.height, name, limits)
  turn = picture.orientation(frame)
  stored = picture.square_size(frame, stream.sample_aspect_ratio)
  height, width = turn.size(*stored)
  return {
    "video_start": float(time),
    "fps": float(stream.average_rate or 0),
    "height": height,
    "width": width,
    "rotation": turn.rotation,
    "video_codec": stream.codec_context.codec.canonical_name,
  }


def read_video(
  source: Source,
  *,
  start: float = 0.0,
  duration: float | None = None,
  max_fps: float | None = None,
  size: tuple[int, int] | None = None,
  limits: Limits = _DEFAULT,
) -> Video:
  """Reads the frames shown in [start, start + duration).

  Args:
    source: a path, or the file's bytes.
    start: seconds after the first frame.
    duration: seconds; None reads to the end.
    max_fps: for each instant k / max_fps after `start`, only the first frame
      at or after it is kept: none twice, each with its true time. None keeps
      all frames.
    size: (height, width) that the upright picture is squashed to, by area
      averaging; None keeps its size, with pixels made square.
    limits: what the read may cost.

  Returns:
    Frames and their times in seconds after `start`; none of either where no
    frame begins inside the window.

  Raises:
    MediaError: no video, not decodable, or over a limit.
  """
  return _read_video(
    source,
    window=_Window.of(start, duration),
    max_fps=max_fps,
    size=size,
    limits=limits,
  )[0]


@dataclasses.dataclass(frozen=True)
class _Window:
  """[start, start + duration) in exact seconds; duration None has no end."""

  start: Fraction
  duration: Fraction | None

  @classmethod
  def of(cls, start: float, duration: float | None) -> "_Window":
    check_window(start, duration)
    return cls(
      Fraction(start), None if duration is None else Fraction(duration)
    )


def check_window(start: float, duration: float | None) -> None:
  """Raises ValueError unless [start, start + duration) is a window."""
  if start < 0 or (duration is not None and duration <= 0):
    raise ValueError(
      f"A window of {duration} s from {start} s: start must be at least 0 "
      "and the duration above 0 (or None for all)."
    )


def _read_video(
  source, *, window: _Window, max_fps, size, limits
) -> tuple[Video, Fraction]:
  """Returns the video and the time of its first frame on the file's clock."""
  if window.start > _SEEK_FROM:
    try:
      return _decode_video(source, window, max_fps, size, limits, seek=True)
    except (Overshot, MediaError):
      pass  # no usable index: decode up to the window instead
  return _decode_video(source, window, max_fps, size, limits, seek=False)


def _decode_video(source, window, max_fps, size, limits, *, seek):
  name = source_name(source)
  with open_input(source, limits=limits) as container:
    stream = find_tracks(container, name, limits=limits).video
    if stream is None:
      raise MediaError(name, "has no video", "name a file with video")
    decoder = Decoder(container, stream, name)
    shown = decoder.frames()
    origin, first = next(shown)
    begin = origin + window.start
    if seek:
      shown = _sought(container, stream, decoder, begin)
    else:
      shown = itertools.chain([(origin, first)], shown)
    turn = picture.orientation(first)
    if size is None:
      stored = picture.square_size(first, stream.sample_aspect_ratio)
    else:
      stored = turn.size(*size)
    frames, times = _collect(
      _select(
        ((time - begin, frame) for time, frame in shown),
        duration=window.duration,
        max_fps=max_fps,
        tick=stream.time_base,
      ),
      stored,
      name,
      limits,
    )
  video = Video(frames=turn.apply(frames), times=times, damaged=decoder.damaged)
  return video, origin


def _sought(container, stream, decoder, begin: Fraction):
  """Frames from the key frame at or before `begin` seconds."""
  container.seek(math.floor(begin / stream.time_base), stream=stream)
  shown = decoder.frames()
  time, frame = next(shown)
  if time > begin:
    raise Overshot
  return itertools.chain([(time, frame)], shown)


def _select(
  frames: Iterator[tuple[Fraction, av.VideoFrame]],
  *,
  duration: Fraction | None,
  max_fps: float | None,
  tick: Fraction,
) -> Iterator[tuple[Fraction, av.VideoFrame]]:
  """Keeps the frames of the window, at most one for each 1 / max_fps.

  Containers round time stamps to a tick (1 ms in Matroska), so a frame may
  come that much early for its grid instant, or for the window, and still be
  the one that is meant.
  """
  slack = min(tick, Fraction(1, 1000))
  rate = None if max_fps is None else Fraction(max_fps)
  due, latest = Fraction(0), None
  for time, frame in frames:
    if duration is not None and time + slack >= duration:
      return
    if time + slack < due or (latest is not None and time <= latest):
      continue  # too early for the grid, or time stamps that run backwards
    latest = time
    if rate is not None:
      due = Fraction(math.floor((time + slack) * rate) + 1) / rate
    yield max(time, Fraction(0)), frame


def _collect(shown, stored: tuple[int, int], name: str, limits: Limits):
  """Scales the frames to `stored` (height, width); returns them and times."""
  height, width = stored
  scaler = picture.Scaler(height, width)
  budget = min(limits.frames, limits.memory_bytes // (6 * height * width))
  frames, times = [], []
  for time, frame in shown:
    if len(frames) >= budget:
      raise MediaError(
        name,
        f"has over {budget:,} frames of {width} x {height} in the window",
        "read a shorter window, fewer frames a second or a smaller size",
      )
    check_pixels(frame.width, frame.height, name, limits)
    frames.append(scaler(frame))
    times.append(float(time))
  if not frames:
    return np.zeros((0, height, width, 3), np.uint8), np.zeros(0)
  return np.stack(frames), np.array(times, np.float64)


def read_audio(
  source: Source,
  *,
  sample_rate: int,
  channels: int | None = None,
  start: float = 0.0,
  duration: float | None = None,
  limits: Limits = _DEFAULT,
) -> Audio:
  """Reads the sound heard in [start, start + duration) of the video's clock.

  Args:
    source: a path, or the file's bytes.
    sample_rate: Hz, to which the sound is resampled.
    channels: 1 (the mean of all), 2, or None for those of the file.
    start: seconds after the first video frame.
    duration: seconds; None reads to the end of the sound.
    limits: what the read may cost.

  Returns:
    Samples from `start` on: silence where the sound sets in later than the
    window, and fewer than duration x sample_rate where it ends earlier.

  Raises:
    MediaError: no sound, not decodable, not finite, or over a limit.
  """
  window = _Window.of(start, duration)
  origin = None
  with open_input(source, limits=limits) as container:
    name = source_name(source)
    stream = find_tracks(container, name, limits=limits).video
    if stream is not None:
      origin, _ = next(Decoder(container, stream, name).frames())
  return sound.decode(
    source,
    origin=origin,
    start=window.start,
    duration=window.duration,
    sample_rate=sample_rate,
    channels=channels,
    limits=limits,
  )


def decode_clip(
  source: Source,
  *,
  sample_rate: int,
  channels: int | None = None,
  max_fps: float | None = None,
  size: tuple[int, int] | None = None,
  start: float = 0.0,
  duration: float | None = None,
  limits: Limits = _DEFAULT,
) -> Clip:
  """`probe`, `read_video` and `read_audio` in one, for whatever is there.

  Arguments, times and errors are theirs. See `sandbox.read_clip`, which is
  the one to use on files that nobody vouches for.
  """
  info = probe(source, limits=limits)
  window = _Window.of(start, duration)
  video, audio, origin = None, None, None
  if info.has_video:
    video, origin = _read_video(
      source, window=window, max_fps=max_fps, size=size, limits=limits
    )
  if info.has_audio:
    audio = sound.decode(
      source,
      origin=origin,
      start=window.start,
      duration=window.duration,
      sample_rate=sample_rate,
      channels=channels,
      limits=limits,
    )
  return Clip(info=info, video=video, audio=audio)
