"""Reads the sound and the picture of a request."""

import numpy as np

from v2a_jax import media
from v2a_jax.labellers.contract import Request


class NothingToSayError(ValueError):
  """The clip has no sound or no picture, which the labeller needs."""


def sound(request: Request, sample_rate: int) -> np.ndarray:
  """Returns the clip's sound, float32 [samples], mean of the channels.

  Raises:
    NothingToSayError: it has none.
    MediaError: it cannot be decoded.
  """
  if not request["audio"]:
    raise NothingToSayError("no sound")
  read = media.limited(media.read_audio)
  audio = read(request["audio"], sample_rate=sample_rate, channels=1)
  if not len(audio.samples):
    raise NothingToSayError("no sound")
  return audio.samples[:, 0]


def picture(request: Request, *, fps: float, size: tuple[int, int]):
  """Returns the clip's `media.Video`: at most `fps` frames a second of `size`.

  Raises:
    NothingToSayError: it has none.
    MediaError: it cannot be decoded.
  """
  if not request["video"]:
    raise NothingToSayError("no picture")
  read = media.limited(media.read_video)
  return read(request["video"], max_fps=fps, size=size)
