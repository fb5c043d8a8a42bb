"""Features of footage, by published towers that a model's conditioner has."""

import functools
from typing import Any

from flax import nnx
import jax
import numpy as np

from data_pipelines import footage


class Footage:
  """The towers of a conditioner, ready to encode clips."""

  def __init__(self, conditioner: nnx.Module, *, seconds: float):
    """Takes the towers.

    Args:
      conditioner: condition encoders; the `views` of its config say what each
        tower sees, and `embed` runs it.
      seconds: length of a window in seconds.
    """
    self._views, self._seconds = conditioner.config.views, seconds
    self._pack = conditioner.pack
    self._graphdef, self._state = nnx.split(conditioner)

  def features(
    self, source, *, start: float = 0.0, **readers: Any
  ) -> dict[str, np.ndarray]:
    """Encodes a window of a clip.

    Args:
      source: path, or bytes of the video.
      start: start of the window in seconds.
      **readers: `read` and `probe`; see `footage.read_at`.

    Returns:
      float32 [n f] by name of the view.

    Raises:
      MediaError: the file cannot be read or has no picture.
    """
    found = {}
    for view in self._views:
      frames = footage.read_at(
        source,
        fps=view.fps,
        seconds=self._seconds,
        pixels=view.pixels,
        start=start,
        **readers,
      )
      features = _embed(self._graphdef, self._state, view.name, frames)
      found[view.name] = np.asarray(features)
    return found

  def packed(self, source, **readers: Any) -> np.ndarray:
    """Encodes the window at a clip's start, as data sets keep features.

    Args and errors are those of `features`.

    Returns:
      float32 [frames, features].
    """
    return self._pack(self.features(source, **readers))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _embed(graphdef, state, name, frames):
  return nnx.merge(graphdef, state).embed(name, frames)
