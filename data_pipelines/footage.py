"""Footage at instants of an even grid, as published image networks see it.

At each instant k / fps of a window stands the first frame at or after it, so
that footage of fewer frames repeats some. At instants after the last frame of a
clip, what stood before them stays. The networks resize frames themselves; only
those that are more than twice as large as is needed are first made smaller, by
averaging.
"""

from collections.abc import Callable

import numpy as np

from v2a_jax import media
from v2a_jax.media.base import Source, source_name

# Seconds by which a frame may be early: containers round time stamps.
_SLACK = 1e-3


def read_at(
  source: Source,
  *,
  fps: float,
  seconds: float,
  pixels: int,
  start: float = 0.0,
  read: Callable[..., media.Video] = media.read_video,
  probe: Callable[..., media.MediaInfo] = media.probe,
) -> np.ndarray:
  """Reads the frames at the instants of a window.

  Args:
    source: path, or bytes of the file.
    fps: instants a second, in Hz.
    seconds: length of the window in seconds.
    pixels: shorter side that is needed, in pixels.
    start: start of the window in seconds after the first frame.
    read: reads frames, as `media.read_video`.
    probe: reads metadata, as `media.probe`.

  Returns:
    uint8 [round(fps seconds) h w 3].

  Raises:
    MediaError: the file cannot be read, or the window has no frame.
  """
  size = smaller(*_size(probe(source)), pixels=pixels)
  video = read(source, start=start, duration=seconds, max_fps=fps, size=size)
  if not len(video.times):
    raise media.MediaError(
      source_name(source),
      f"has no frame from {start:g} s on",
      "use a clip with a picture",
    )
  return at_instants(video, fps=fps, seconds=seconds)


def at_instants(
  video: media.Video, *, fps: float, seconds: float
) -> np.ndarray:
  """Returns the frames at regular instants from the start of a video.

  At each it is the first frame that is not earlier, or the last there is.

  Args:
    video: one frame or more.
    fps: instants a second, in Hz.
    seconds: length of the window in seconds.

  Returns:
    uint8 [round(fps seconds) h w 3].
  """
  instants = np.arange(round(fps * seconds)) / fps
  after = np.searchsorted(video.times, instants - _SLACK)
  return video.frames[np.minimum(after, len(video.times) - 1)]


def _size(info: media.MediaInfo) -> tuple[int, int]:
  return info.height, info.width


def smaller(height: int, width: int, *, pixels: int) -> tuple[int, int] | None:
  """Returns the (height, width) at which frames are read; None for their own.

  The shorter side is at most twice `pixels`.
  """
  scale = 2 * pixels / max(min(height, width), 1)
  return None if scale >= 1 else (round(height * scale), round(width * scale))
