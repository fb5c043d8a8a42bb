"""Decoding of frames at their presentation times and audio on the same clock.

No frame rate is assumed. Time zero is the first displayed frame: `read_video`
returns the presentation time of every frame, `read_audio` pads or trims so that
sample i is presented i / sample_rate seconds after the start of the window,
whatever the offset between the streams, encoder priming or edit lists. Only
the requested window is decoded.

These functions decode in this process; `sandbox.read_clip` decodes in a child
process that may be killed.
"""

from collections.abc import Iterator
import dataclasses
from fractions import Fraction
import itertools
import math

import av
import numpy as np

from v2a_jax.media import picture, sound, tags, timing
from v2a_jax.media.base import (
  DEFAULT_LIMITS,
  Audio,
  Clip,
  Limits,
  MediaError,
  MediaInfo,
  ReadOptions,
  Source,
  Video,
  more,
  source_name,
)
from v2a_jax.media.container import (
  Decoder,
  SeekError,
  check_pixels,
  find_track,
  find_tracks,
  open_input,
)

_MIN_SEEK = 5  # seconds; below, decoding from the first frame is cheaper


def probe(
  source: Source,
  *,
  limits: Limits = DEFAULT_LIMITS,
  audio_track: int | None = None,
) -> MediaInfo:
  """Reads the metadata of a file and checks that its first frame decodes.

  Args:
    source: path, or bytes of the file.
    limits: resource limits; those on the headers are checked here.
    audio_track: number of the audio stream, from 0; None for the main one.

  Returns:
    Metadata; `duration` is the one in the headers, else it is measured.

  Raises:
    MediaError: the file is missing, no media file, over a limit, or cannot be
      decoded.
  """
  name = source_name(source)
  with open_input(source, limits=limits) as container:
    tracks = find_tracks(
      container, name, limits=limits, audio_track=audio_track
    )
    main = tracks.video or tracks.audio
    info = MediaInfo(
      container=container.format.name,
      has_video=tracks.video is not None,
      has_audio=tracks.audio is not None,
      duration=float((main.duration or 0) * (main.time_base or 0)),
    )
    fields = {}
    if tracks.audio is not None:
      context = tracks.audio.codec_context
      fields["audio_codec"] = context.codec.canonical_name
      fields |= {
        "sample_rate": context.sample_rate,
        "channels": context.channels,
        "audio_tracks": len(container.streams.audio),
        "audio_track": container.streams.audio.index(tracks.audio),
        "language": tracks.audio.metadata.get("language", ""),
      }
    if tracks.video is not None:
      fields |= _video_info(container, tracks.video, name, limits)
    info = dataclasses.replace(info, **fields)
  if not info.duration or (info.has_video and not info.fps):
    kind = "video" if info.has_video else "audio"
    span = timing.measure(source, kind, limits=limits, audio_track=audio_track)
    seconds = float(span.duration)
    fps = span.packets / seconds if info.has_video and seconds else 0.0
    info = dataclasses.replace(
      info, duration=info.duration or seconds, fps=info.fps or fps
    )
  return info


def _video_info(container, stream: av.VideoStream, name, limits) -> dict:
  time, frame = next(Decoder(container, stream, name, limits).frames())
  check_pixels(frame.width, frame.height, name, limits)
  orientation = picture.orientation(frame)
  stored = picture.square_size(frame, stream.sample_aspect_ratio)
  height, width = orientation.size(*stored)
  return {
    "video_start": float(time),
    "fps": float(stream.average_rate or 0),
    "height": height,
    "width": width,
    "rotation": orientation.rotation,
    "video_codec": stream.codec_context.codec.canonical_name,
    "timecode": tags.timecode(container, stream) or "",
  }


def read_video(
  source: Source,
  *,
  start: float = 0.0,
  duration: float | None = None,
  max_fps: float | None = None,
  size: tuple[int, int] | None = None,
  limits: Limits = DEFAULT_LIMITS,
) -> Video:
  """Reads the frames presented in [start, start + duration).

  Args:
    source: path, or bytes of the file.
    start: start of the window in seconds after the first frame.
    duration: length of the window in seconds; None reads to the end.
    max_fps: highest frame rate in Hz: for each k, only the first frame at or
      after start + k / max_fps is kept, once and with its own time. None keeps
      all frames.
    size: (height, width) in pixels to which the upright picture is resized by
      area averaging, ignoring its aspect ratio; None keeps its size, with
      square pixels.
    limits: resource limits of the read.

  Returns:
    Frames and their times in seconds after `start`, maybe none.

  Raises:
    MediaError: the file has no video, cannot be decoded, or is over a limit.
    ValueError: an argument is out of range.
  """
  options = ReadOptions(
    start=start, duration=duration, max_fps=max_fps, size=size, limits=limits
  )
  return _read_video(source, options)[0]


def _read_video(source: Source, options: ReadOptions) -> tuple[Video, Fraction]:
  """Returns the video and the time of its first frame on the file's clock."""
  if options.start > _MIN_SEEK:
    try:
      return _decode_video(source, options, seek=True)
    except (SeekError, MediaError):
      pass  # no usable index: decode from the first frame instead
  return _decode_video(source, options, seek=False)


def _decode_video(source, options: ReadOptions, *, seek: bool):
  name, limits = source_name(source), options.limits
  with open_input(source, limits=limits) as container:
    stream = find_track(container, "video", name, limits=limits)
    decoder = Decoder(container, stream, name, limits)
    timed_frames = decoder.frames()
    origin, first = next(timed_frames)
    begin = origin + Fraction(options.start)
    if seek:
      timed_frames = _seek(container, stream, decoder, begin)
    else:
      timed_frames = itertools.chain([(origin, first)], timed_frames)
    orientation = picture.orientation(first)
    if options.size is None:
      stored = picture.square_size(first, stream.sample_aspect_ratio)
    else:
      stored = orientation.size(*options.size)
    selected = _select(
      ((time - begin, frame) for time, frame in timed_frames),
      options,
      tick=stream.time_base,
    )
    frames, times = _collect(selected, stored, name, limits)
  frames = orientation.apply(frames)
  return Video(frames=frames, times=times, damaged=decoder.damaged), origin


def _seek(container, stream, decoder, begin: Fraction):
  """Returns the frames from the last key frame at or before `begin` seconds."""
  container.seek(math.floor(begin / stream.time_base), stream=stream)
  timed_frames = decoder.frames()
  time, frame = next(timed_frames)
  if time > begin:
    raise SeekError
  return itertools.chain([(time, frame)], timed_frames)


def _select(
  frames: Iterator[tuple[Fraction, av.VideoFrame]],
  options: ReadOptions,
  *,
  tick: Fraction,
) -> Iterator[tuple[Fraction, av.VideoFrame]]:
  """Selects the frames in the window, at most one for each 1 / max_fps.

  Containers round time stamps to a tick (1 ms in Matroska). So a frame that is
  at most one tick, or 1 ms, early for an instant of the grid or for the window
  counts as in time. Times are seconds after the start of the window.
  """
  slack = min(tick, Fraction(1, 1000))
  rate = None if options.max_fps is None else Fraction(options.max_fps)
  due, latest = Fraction(0), None
  for time, frame in frames:
    if options.duration is not None and time + slack >= options.duration:
      return
    if time + slack < due or (latest is not None and time <= latest):
      continue  # before the next instant of the grid, or running backwards
    latest = time
    if rate is not None:
      due = Fraction(math.floor((time + slack) * rate) + 1) / rate
    yield max(time, Fraction(0)), frame


def _collect(timed_frames, stored: tuple[int, int], name: str, limits: Limits):
  """Returns RGB frames of the stored (height, width), and their times."""
  height, width = stored
  scaler = picture.Scaler(height, width)
  budget = min(limits.frames, limits.memory_bytes // (6 * height * width))
  # One array that grows, so that a long clip is never held twice.
  frames, times = np.zeros((0, height, width, 3), np.uint8), []
  for time, frame in timed_frames:
    count = len(times)
    if count >= budget:
      raise MediaError(
        name,
        f"has over {budget:,} frames of {width} x {height} in the window",
        "read a shorter window, a lower frame rate or a smaller size, or"
        f" {more('frames, .memory_bytes')}",
      )
    check_pixels(frame.width, frame.height, name, limits)
    if count == len(frames):
      room = min(count + count // 4 + 16, budget)
      frames.resize((room, height, width, 3), refcheck=False)
    frames[count] = scaler(frame)
    times.append(float(time))
  frames.resize((len(times), height, width, 3), refcheck=False)
  return frames, np.array(times, np.float64)


def read_audio(
  source: Source,
  *,
  sample_rate: int,
  channels: int | None = None,
  start: float = 0.0,
  duration: float | None = None,
  audio_track: int | None = None,
  limits: Limits = DEFAULT_LIMITS,
) -> Audio:
  """Reads the audio presented in [start, start + duration).

  Args:
    source: path, or bytes of the file.
    sample_rate: sample rate in Hz to which the audio is resampled.
    channels: 1 (mean of all), 2, or None for the channels of the file.
    start: start of the window in seconds after the first video frame.
    duration: length of the window in seconds; None reads to the end of the
      audio.
    audio_track: number of the audio stream, from 0; None for the main one.
    limits: resource limits of the read.

  Returns:
    Samples from `start` on: zeros where the audio begins later, and fewer than
    duration x sample_rate samples where it ends earlier.

  Raises:
    MediaError: the file has no audio, cannot be decoded, holds NaN or infinity,
      or is over a limit.
    ValueError: an argument is out of range.
  """
  options = ReadOptions(
    sample_rate=sample_rate,
    channels=channels,
    start=start,
    duration=duration,
    audio_track=audio_track,
    limits=limits,
  )
  origin = None
  with open_input(source, limits=limits) as container:
    name = source_name(source)
    stream = find_tracks(container, name, limits=limits).video
    if stream is not None:
      origin, _ = next(Decoder(container, stream, name, limits).frames())
  return sound.decode(source, options, origin=origin)


def decode_clip(source: Source, options: ReadOptions) -> Clip:
  """Does the work of `sandbox.read_clip`, in this process."""
  info = probe(source, limits=options.limits, audio_track=options.audio_track)
  video, audio, origin = None, None, None
  if info.has_video:
    video, origin = _read_video(source, options)
  if info.has_audio:
    audio = sound.decode(source, options, origin=origin)
  return Clip(info=info, video=video, audio=audio)
