"""The picture of a video, read in pieces where it is long."""

from collections.abc import Iterator
import functools
import pathlib

import numpy as np

from v2a_jax import media
from v2a_jax.soundtrack import ranking, shots

PIECE = 60.0  # seconds that are read at a time


class Reel:
  """A video whose frames are read when they are wanted.

  One that is no longer than a piece is read once, and kept.
  """

  def __init__(
    self,
    path: pathlib.Path,
    seconds: float,
    *,
    fps: float,
    size: tuple[int, int],
    limits: media.Limits = media.DEFAULT_LIMITS,
  ):
    """Reads the first piece.

    Args:
      path: path of the video.
      seconds: how much of it is used, from its start.
      fps: highest frame rate in Hz.
      size: height and width of frames in pixels.
      limits: resource limits of each read.

    Raises:
      MediaError: the file cannot be read or has no picture.
    """
    self._path, self.seconds = path, seconds
    self._read = functools.partial(
      media.limited(media.read_video), max_fps=fps, size=size, limits=limits
    )
    self._begin, self._end = 0.0, min(seconds, PIECE)
    self._piece = self._read(path, duration=self._end)

  def frames(self, begin: float, end: float) -> media.Video:
    """Returns the frames in [begin, end), with their times in the video.

    Raises:
      MediaError: they cannot be read.
    """
    end = min(end, self.seconds)
    if not (self._begin <= begin and end <= self._end):
      found = self._read(
        self._path, start=begin, duration=end - begin, grid=0.0
      )
      self._piece = media.Video(frames=found.frames, times=found.times + begin)
      self._begin, self._end = begin, end
    times = self._piece.times
    here = (begin - media.EDGE <= times) & (times < end - media.EDGE)
    if here.all():
      return self._piece
    return media.Video(frames=self._piece.frames[here], times=times[here])

  def _pairs(self) -> Iterator[media.Video]:
    """Yields pieces that begin with the last frame of the one before."""
    last = None
    for begin in np.arange(0, self.seconds, PIECE):
      piece = self.frames(float(begin), float(begin + PIECE))
      frames, times = piece.frames, piece.times
      if last is not None:
        frames = np.concatenate([last.frames, frames])
        times = np.concatenate([last.times, times])
      if len(frames):
        yield media.Video(frames=frames, times=times)
        last = media.Video(frames=frames[-1:], times=times[-1:])

  @functools.cached_property
  def motion(self) -> ranking.Motion:
    """How much the picture changes from frame to frame."""
    return ranking.Motion.joined(
      ranking.Motion.of(piece.frames, piece.times) for piece in self._pairs()
    )

  @functools.cached_property
  def cuts(self) -> list[float]:
    """Times in seconds at which shots begin, but for the first."""
    contents = [shots.content(piece.frames) for piece in self._pairs()]
    times = self.motion.times
    return shots.cuts(np.concatenate([[], *contents]), times, self.seconds)
