"""Metadata of a file, and its sound on the clock of its frames.

Time zero is the first displayed frame: `frames.read_video` returns the
presentation time of every frame, `read_audio` pads or trims so that sample i is
presented i / sample_rate seconds after the start of the window, whatever the
offset between the streams, encoder priming or edit lists. Only the requested
window is decoded.

These functions decode in this process; `sandbox.read_clip` decodes in a child
process that may be killed.
"""

import dataclasses

import av

from v2a_jax.media import picture, sound, tags, timing
from v2a_jax.media.base import (
  DEFAULT_LIMITS,
  Audio,
  Clip,
  Limits,
  MediaInfo,
  ReadOptions,
  Source,
  source_name,
)
from v2a_jax.media.container import (
  Decoder,
  check_pixels,
  find_tracks,
  open_input,
)
from v2a_jax.media.frames import read_with_origin


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
    video, origin = read_with_origin(source, options)
  if info.has_audio:
    audio = sound.decode(source, options, origin=origin)
  return Clip(info=info, video=video, audio=audio)
