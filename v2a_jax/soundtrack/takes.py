"""Takes: the soundtracks that answer one request, ranked."""

import dataclasses
from fractions import Fraction
import pathlib
from typing import Any

import numpy as np

from v2a_jax import media
from v2a_jax.basics.paths import local_path
from v2a_jax.soundtrack.delivery import Delivery, DeliveryOptions, deliver
from v2a_jax.soundtrack.request import Request


@dataclasses.dataclass(frozen=True, kw_only=True)
class Soundtrack:
  """One candidate.

  Attributes:
    samples: float32 [t channels] in [-1, 1], as long as the video.
    sample_rate: sample rate in Hz.
    seed: seed that gives this candidate again.
    score: score of `sampling.ranking`; more is better.
  """

  samples: np.ndarray
  sample_rate: int
  seed: int
  score: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Soundtracks:
  """All candidates for one video, the best first.

  Attributes:
    video: path of the picture.
    request: the request they answer.
    candidates: soundtracks, ranked by `score_name`.
    score_name: name of the score that ranked them.
    model: description of the model, see `Soundtracker.describe`.
    seconds: length of what was scored, in seconds.
    limits: resource limits of reading the picture.
  """

  video: pathlib.Path
  request: Request
  candidates: tuple[Soundtrack, ...]
  score_name: str
  model: dict[str, Any]
  seconds: Fraction
  limits: media.Limits = media.DEFAULT_LIMITS

  @property
  def best(self) -> Soundtrack:
    """The candidate with the highest score."""
    return self.candidates[0]

  def save(
    self, directory, *, key: str | None = None, on_file=None, **options
  ) -> Delivery:
    """Levels, marks, muxes and writes everything.

    Args:
      directory: folder of all soundtracks; see `delivery.deliver`.
      key: key of the watermark.
      on_file: called with each path as it is finished.
      **options: fields of `DeliveryOptions`.

    Raises:
      MediaError, ValueError: as `delivery.deliver`.
    """
    directory = local_path(directory, "the output folder")
    settings = DeliveryOptions(**options)
    return deliver(
      self, directory, settings, key=key, on_file=on_file or (lambda path: None)
    )
