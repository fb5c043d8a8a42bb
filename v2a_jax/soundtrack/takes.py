"""Takes: the soundtracks that answer one request, ranked."""

from collections.abc import Mapping
import dataclasses
from fractions import Fraction
import pathlib
from typing import Any

import numpy as np

from v2a_jax import media
from v2a_jax.basics.paths import local_path
from v2a_jax.soundtrack import display
from v2a_jax.soundtrack.delivery import Delivery, deliver
from v2a_jax.soundtrack.options import DeliveryOptions
from v2a_jax.soundtrack.request import Request


@dataclasses.dataclass(frozen=True, kw_only=True)
class Soundtrack:
  """One candidate.

  Attributes:
    samples: float32 [t channels] in [-1, 1], as long as the video.
    sample_rate: sample rate in Hz.
    seed: seed that gives this candidate again.
    score: score that ranks it; more is better.
    scores: all named scores (`scoring.SCORES`).
    heard: what is heard of what should be absent: seconds of speech,
      probability of music.
    rejected: whether that is over the limits of `hearing.unwanted`.
    layers: parts that sum up to `samples`, by their kind; empty if it was made
      at once.
  """

  samples: np.ndarray
  sample_rate: int
  seed: int
  score: float
  scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
  heard: Mapping[str, float] = dataclasses.field(default_factory=dict)
  rejected: bool = False
  layers: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

  def _repr_html_(self) -> str:
    """Returns a player with seed and scores, for notebooks."""
    return display.of_take(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Soundtracks:
  """All candidates for one video, the best first.

  Attributes:
    video: path of the picture.
    request: the request they answer.
    candidates: soundtracks, ranked by `request.score_name`; rejected ones last.
    rejected: seeds of the candidates that were made and not taken, and what
      was heard in them.
    model: description of the model, see `Soundtracker.describe`.
    seconds: length of what was scored, in seconds.
    limits: resource limits of reading the picture.
    cuts: seconds at which shots begin, but for the first, if they were found.
  """

  video: pathlib.Path
  request: Request
  candidates: tuple[Soundtrack, ...]
  model: dict[str, Any]
  seconds: Fraction
  rejected: tuple[Mapping[str, Any], ...] = ()
  limits: media.Limits = media.DEFAULT_LIMITS
  cuts: tuple[float, ...] = ()

  @property
  def best(self) -> Soundtrack:
    """The candidate with the highest score."""
    return self.candidates[0]

  def _repr_html_(self) -> str:
    """Returns players of all candidates, the best first, for notebooks."""
    return display.of_takes(self)

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
