"""What looks at the picture of a clip, all in one decode.

Motion, metrics and the model under evaluation see frames of other rates and
sizes. A `Look` says which frames it needs and what it makes of them, so that a
file is decoded once for all, and only what is made of its frames is kept.
"""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

from v2a_jax import media
from v2a_jax.media.base import ReadOptions


@dataclasses.dataclass(frozen=True)
class Look:
  """A way to look at a picture.

  Attributes:
    name: what it is called; looks of one name see the same.
    fps: highest frame rate that it needs, Hz.
    size: from (height, width) of the file to those of the frames; None for
      those of the file.
    see: from the frames, and the length of the clip in seconds, to what is
      kept.
    seconds: length of what it looks at; None for the clip's.
    grid: see `media.read_video`.
  """

  name: str
  fps: float
  size: Callable[[int, int], tuple[int, int] | None]
  see: Callable[[media.Video, float], Any]
  seconds: float | None = None
  grid: float | None = None


def read(
  video: bytes, looks: Sequence[Look], *, seconds: float
) -> dict[str, Any]:
  """Decodes a video once; returns what each look makes of it, by its name.

  Raises:
    MediaError: the video cannot be decoded.
  """
  looks = [*{look.name: look for look in looks}.values()]
  info = media.probe_limited(video)
  if not info.has_video:
    name = media.base.source_name(video)
    raise media.MediaError(name, "has no picture", "leave the video out")
  requests = [
    ReadOptions(
      duration=look.seconds or seconds,
      max_fps=look.fps,
      grid=look.grid,
      size=look.size(info.height, info.width),
    )
    for look in looks
  ]
  found = media.limited(media.read_videos)(video, requests=requests)
  return {
    look.name: look.see(frames, seconds)
    for look, frames in zip(looks, found, strict=True)
  }
