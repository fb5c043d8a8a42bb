"""Copying of what a file says about itself: tags, time code, chapters.

A QuickTime time code track has one entry: the code of the first frame. FFmpeg
gives it as the tag `timecode` of the video, and writes such a track for it.
Colour, aspect ratio and rotation are parameters of the stream, which are copied
with it.
"""

from fractions import Fraction

import av

from v2a_jax.media.container import Tracks

# Tags that describe the old file or its coding, not the work.
_OF_FILE = {
  "major_brand",
  "minor_version",
  "compatible_brands",
  "encoder",
  "vendor_id",
  "duration",
  "bps",
  "number_of_frames",
  "number_of_bytes",
}


def copy(
  source: av.container.InputContainer,
  tracks: Tracks,
  target: av.container.OutputContainer,
  *,
  seconds: Fraction,
) -> None:
  """Copies tags, time code and chapters to an output with video and audio.

  Args:
    source: file that they are from.
    tracks: its main streams; the new audio takes the language of the old.
    target: output whose header is not written yet.
    seconds: duration of the video; chapters end there.
  """
  target.metadata.update(_kept(source.metadata))
  video, audio = target.streams.video[0], target.streams.audio[0]
  video.metadata.update(_kept(tracks.video.metadata))
  code = timecode(source, tracks.video)
  if code:
    video.metadata["timecode"] = code
  language = tracks.audio and tracks.audio.metadata.get("language")
  if language:
    audio.metadata["language"] = language
  start = (tracks.video.start_time or 0) * tracks.video.time_base
  chapters = [_moved(c, start, seconds) for c in source.chapters()]
  target.set_chapters([c for c in chapters if c["start"] < c["end"]])


def _kept(metadata: dict[str, str]) -> dict[str, str]:
  return {
    key: value
    for key, value in metadata.items()
    if key.lower() not in _OF_FILE and not key.startswith("_STATISTICS")
  }


def timecode(source, video: av.VideoStream) -> str | None:
  """Returns the code of the first frame, from the first that has one."""
  for part in (video, source, *source.streams):
    for key, value in part.metadata.items():
      if key.lower() == "timecode" and value:  # Matroska: TIMECODE
        return value
  return None


def _moved(chapter: dict, start: Fraction, seconds: Fraction) -> dict:
  """Returns a chapter on the clock of the output, in milliseconds."""
  to_ms = lambda ticks: round(
    1000 * min(max(ticks * chapter["time_base"] - start, 0), seconds)
  )
  return chapter | {
    "start": to_ms(chapter["start"]),
    "end": to_ms(chapter["end"]),
    "time_base": Fraction(1, 1000),
  }
