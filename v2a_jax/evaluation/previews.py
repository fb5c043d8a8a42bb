"""Small copies of videos, which any browser plays."""

import pathlib

from v2a_jax import media
from v2a_jax.media.base import Source, source_name


def write_video(
  source: Source,
  path: pathlib.Path,
  *,
  side: int,
  seconds: float | None = None,
  max_fps: float | None = None,
) -> None:
  """Encodes the picture of a video, smaller where it is larger.

  Args:
    source: the video.
    path: file to write, .mp4.
    side: most pixels of the shorter side.
    seconds: length from the start; None for all.
    max_fps: highest frame rate in Hz; None for that of the video.

  Raises:
    MediaError: it has no picture, or cannot be read.
  """
  info = media.probe_limited(source)
  if not info.has_video:
    name = source_name(source)
    raise media.MediaError(name, "has no picture", "name a video")
  scale = min(1.0, side / min(info.height, info.width))
  height, width = (
    max(2, 2 * round(edge * scale / 2)) for edge in (info.height, info.width)
  )
  video = media.limited(media.read_video)(
    source, duration=seconds, size=(height, width), max_fps=max_fps
  )
  media.encode_video(video.frames, video.times - video.times[0], path=path)
