"""A picture as the judge of synchronisation sees it, to choose takes by.

Only where it is asked to (`rank_by`): takes that a judge has chosen cannot be
measured by it any more. Their sidecar names it, and `v2a eval` leaves its metrics
out.
"""

import pathlib

import numpy as np

from v2a_jax import media
from v2a_jax.soundtrack.reel import PIECE, Reel
from v2a_jax.sync import bundled


class Watched:
  """What the bundled judge has seen of a video, a minute at a time."""

  def __init__(
    self,
    path: pathlib.Path,
    seconds: float,
    limits: media.Limits = media.DEFAULT_LIMITS,
  ):
    """Looks at a video.

    Args:
      path: path of the video.
      seconds: how much of it is used, from its start.
      limits: resource limits of each read.

    Raises:
      MediaError: the file cannot be read or has no picture.
    """
    self._judge = judge = bundled.load()
    reel = Reel(
      path,
      seconds,
      fps=judge.frame_rate,
      size=judge.frame_size,
      limits=limits,
    )
    self._parts = []
    for begin in np.arange(0, seconds, PIECE):
      end = min(float(begin) + PIECE, seconds)
      picture = reel.frames(float(begin), end)
      if len(picture.frames):
        seen = judge.look(picture.frames, picture.times - begin, end - begin)
        self._parts.append((float(begin), end, seen))

  def in_time(self, samples: np.ndarray, sample_rate: int) -> float:
    """Returns the probability that a sound is at most 80 ms early or late.

    Of more than a minute it is the mean of those of its minutes.

    Args:
      samples: float32 [t channels].
      sample_rate: Hz.
    """
    found, lengths = [], []
    for begin, end, seen in self._parts:
      part = samples[round(begin * sample_rate) : round(end * sample_rate)]
      verdict = self._judge.listen(seen, part, sample_rate)
      found.append(float(verdict.in_time))
      lengths.append(end - begin)
    return float(np.average(found, weights=lengths)) if found else 0.0
