"""Footage as published towers see it, and the features that they give.

A tower sees frames at a rate of its own: for each instant k / fps of a window
the first frame at or after it, so that footage of fewer frames repeats some.
After the last frame of the clip, that one stays. Towers resize frames
themselves; only those that are more than twice as large as is needed are first
made smaller, by averaging.
"""

import functools
from typing import Any

from flax import nnx
import jax
import numpy as np

from v2a_jax import media


class Footage:
  """Features of a clip's frames, by the towers of a model's conditioner."""

  def __init__(self, conditioner: nnx.Module, *, seconds: float):
    """Takes the towers.

    Args:
      conditioner: condition encoders; the `views` of its config say what each
        tower sees, and `embed` runs it.
      seconds: length of a window in seconds.
    """
    self._views, self._seconds = conditioner.config.views, seconds
    self._graphdef, self._state = nnx.split(conditioner)

  def features(
    self, path, starts, *, limits: media.Limits
  ) -> dict[str, np.ndarray]:
    """Encodes the windows of a clip.

    Args:
      path: path of the video.
      starts: first instants of the windows in seconds.
      limits: resource limits of reading it.

    Returns:
      float32 [windows n f] by name of the view.

    Raises:
      MediaError: the file cannot be read or has no picture.
    """
    found: dict[str, list[Any]] = {view.name: [] for view in self._views}
    for view in self._views:
      size = _read_size(path, view.pixels, limits=limits)
      read = functools.partial(
        media.limited(media.read_video),
        path,
        max_fps=view.fps,
        size=size,
        limits=limits,
      )
      for start in starts:
        video = read(start=start, duration=self._seconds)
        frames = on_ticks(video, view.fps, self._seconds, name=str(path))
        found[view.name].append(np.asarray(self._embed(view.name, frames)))
    return {name: np.stack(windows) for name, windows in found.items()}

  def _embed(self, name: str, frames: np.ndarray):
    """Runs a tower on the frames [n h w 3] of a window."""
    return _embed(self._graphdef, self._state, name, frames)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _embed(graphdef, state, name, frames):
  return nnx.merge(graphdef, state).embed(name, frames)


def on_ticks(
  video: media.Video, fps: float, seconds: float, *, name: str
) -> np.ndarray:
  """Returns the frame at each instant k / fps of a window, uint8 [n h w 3].

  Args:
    video: frames of the window, with their times from its start.
    fps: instants a second, in Hz.
    seconds: length of the window in seconds.
    name: name of the file in errors.

  Raises:
    MediaError: the window has no frame.
  """
  if not len(video.times):
    raise media.MediaError(
      name, "has no frame in a window", "use a clip with a picture"
    )
  ticks = np.arange(round(fps * seconds)) / fps
  # A reader counts frames as in time that are a millisecond early.
  after = np.searchsorted(video.times, ticks - 1e-3)
  return video.frames[np.minimum(after, len(video.times) - 1)]


def _read_size(path, pixels: int, *, limits) -> tuple[int, int] | None:
  """Returns the (height, width) at which frames are read; None for their own."""
  info = media.probe_limited(path, limits=limits)
  short = min(info.height, info.width)
  if short <= 2 * pixels:
    return None
  scale = 2 * pixels / short
  return round(info.height * scale), round(info.width * scale)
