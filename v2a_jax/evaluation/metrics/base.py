"""What a metric states about itself, and how its value is computed.

A metric is one class in one file of this folder and one line of `choose` in
`__init__.py`; whatever scores, describes or reports metrics reads the class.
There are two kinds:

  ClipMetric   state = get_state(sample)        one state per clip
               compute([state, ...])            reduces the states of all clips
  SetMetric    compute(features, reference)     reduces embedding features

as in kauldron (https://github.com/google-research/kauldron), whose metrics are
get_state -> merge -> compute; merging here is listing states in clip order.

A new per-clip metric, complete:

  class PeakLevel(base.ClipMetric):
    id = "peak_level"
    label = "Peak level"
    unit = "dBFS"
    direction = "none"
    about = "Mean level of the largest sample."

    def get_state(self, sample):
      return 20 * np.log10(np.abs(sample.waveform).max() + 1e-6)
"""

import abc
from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np

from v2a_jax.basics.text import one_of
from v2a_jax.evaluation import intervals
from v2a_jax.evaluation.clips import Clip
from v2a_jax.evaluation.looks import Look
from v2a_jax.hearing import embeddings
from v2a_jax.hearing.embeddings import Embedding, Features

T = TypeVar("T")
# Directions, and the value of `higher_is_better` in results.json.
DIRECTIONS = {"higher": True, "lower": False, "none": None}
ROLES = ("quality", "sanity", "shown")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
  """One sound for one clip, with what metrics compare it to.

  Attributes:
    clip: the clip, with its video and its known event times.
    waveform: float32 [samples, channels], at most as long as the true sound.
    sample_rate: Hz.
    features: embedding features of this sound alone, by `Embedding.id`.
    truth: sample of the clip's true sound; None in that sample itself.
    delivered_seconds: length of the sound as it was delivered; None for that of
      `waveform`.
  """

  clip: Clip
  waveform: np.ndarray
  sample_rate: int
  features: Mapping[str, Features]
  truth: "Sample | None" = None
  delivered_seconds: float | None = None
  _cache: dict[Callable, Any] = dataclasses.field(
    default_factory=dict, init=False, repr=False
  )

  def cached(self, function: Callable[["Sample"], T]) -> T:
    """Returns `function(self)`, computed once for all metrics that ask."""
    if function not in self._cache:
      self._cache[function] = function(self)
    return self._cache[function]


class Metric(abc.ABC):
  """One column of the results.

  Attributes:
    id: key in results.json.
    label: column heading of the report.
    unit: unit of the value; "" for a bare number.
    direction: which values are better.
    about: what is measured and how to read it, in plain sentences.
    role: what a report may conclude from it. `quality` is compared between runs
      and with anchors, `sanity` between runs only, as an anchor can be right by
      construction (noise is made at the true level), and `shown` with nothing.
    variant: name of the formula with its constants; the id where empty. To be
      changed when values change, so that older results are not compared.
    judges_timing: whether it measures synchronisation with the video. The
      paired difference between `generated` and `shuffled_video` is then
      reported too.
    embedding: network whose features it needs; without its weights the metric
      is skipped. None for none.
    needs_reference: whether it needs that network's features of true sounds of
      other clips.
    needs_video: whether it looks at the picture; clips without one are left
      out.
    needs_sight: whether it is about when things sound; clips are left out in
      which all that sounds is off screen, as their video does not tell when.
    look: how it looks at the picture; None if it does not, or at its motion
      alone. `sample.clip.look(self.look)` is then decoded with all others.
    bounds: least and largest value that it can have; intervals end there.
    chosen_by: scores (`soundtrack.scoring`) that hear or see the same. Takes that
      were chosen by one of them are not measured: they were chosen to please.
    unmet: why it is not measured where it judges none of the clips.
  """

  id: str
  label: str
  unit: str = ""
  direction: Literal["higher", "lower", "none"]
  about: str
  role: Literal["quality", "sanity", "shown"] = "quality"
  variant: str = ""
  judges_timing: bool = False
  embedding: type[Embedding] | None = None
  needs_reference: bool = False
  needs_video: bool = False
  needs_sight: bool = False
  look: Look | None = None
  bounds: tuple[float, float] = (-np.inf, np.inf)
  chosen_by: tuple[str, ...] = ()
  unmet: str = (
    "no clip has a picture of what sounds: give --videos, or videos as the"
    " reference"
  )

  @property
  def formula(self) -> str:
    """Name of what is computed, and of which clips; values of others differ."""
    clips = " of what is in sight" if self.needs_sight else ""
    return f"{self.variant or self.id}{clips}"

  def judges(self, clip: Clip) -> bool:
    """Says whether a clip can be judged; others are left out."""
    has_video = bool(clip.video) or not self.needs_video
    return has_video and (clip.in_sight or not self.needs_sight)

  def facts(self, clips: Sequence[Clip]) -> dict[str, str]:
    """Returns what the value rests on in this set of clips, by name.

    Facts stand in the metric's `identity` in results.json and, as sentences,
    at the end of its `about`.
    """
    return {}

  def weakness(self, clips: int) -> str:
    """Says what makes the value weak with so many clips; "" for nothing."""
    return ""


@dataclasses.dataclass(frozen=True)
class OnEmbedding(Metric):
  """A metric of one embedding.

  Attributes:
    network: id of the embedding, of `embeddings.EMBEDDINGS`.
    stem: first part of the metric's id.
    name: first part of its label.
  """

  network: str = "mn04"

  stem: ClassVar[str]
  name: ClassVar[str]

  @property
  def embedding(self) -> type[Embedding]:
    return embeddings.get(self.network)

  @property
  def id(self) -> str:
    return f"{self.stem}_{self.network}"

  @property
  def label(self) -> str:
    return f"{self.name} ({self.embedding.label})"


class ClipMetric(Metric):
  """A metric with a state, and usually a value, for each clip."""

  @abc.abstractmethod
  def get_state(self, sample: Sample) -> Any:
    """Returns what the metric keeps of one sound; a number where possible."""

  def value(self, state: Any) -> float:
    """Returns the clip's own value; NaN where it is undefined."""
    return float(state)

  def values(self, states: Sequence[Any]) -> np.ndarray:
    """Returns the clips' own values, float64 [clips]."""
    return np.array([self.value(state) for state in states], np.float64)

  def compute(
    self, states: Sequence[Any], *, seed: int = 0
  ) -> intervals.Estimate:
    """Estimates the metric from all clips; the mean of their values."""
    return intervals.mean(self.values(states), seed=seed)

  def compute_difference(
    self, states: Sequence[Any], others: Sequence[Any], *, seed: int = 0
  ) -> intervals.Estimate:
    """Estimates the difference of two rows, `states` less `others`.

    Both are of the same clips in the same order.
    """
    apart = self.values(states) - self.values(others)
    return intervals.mean(apart, seed=seed)


class RatioMetric(ClipMetric):
  """A ratio of counts, each summed over clips first ("micro").

  The state of a clip is a dataclass with the counts, which results.json keeps.

  Attributes:
    numerator: factor of each count in the numerator, which is at most the
      denominator where `bounds` are not others.
    denominator: factor of each count in the denominator.
  """

  numerator: Mapping[str, float]
  denominator: Mapping[str, float]
  bounds = (0.0, 1.0)

  def counts(self, state: Any) -> dict[str, float]:
    """Returns the counts of one clip, by name."""
    return dataclasses.asdict(state)

  def value(self, state: Any) -> float:
    (above,), (below,) = self.columns([state])
    return above / below if below else np.nan

  def columns(self, states: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Returns each clip's part of numerator and denominator, [clips]."""
    counts = [self.counts(state) for state in states]
    return tuple(
      np.array([sum(f * c[name] for name, f in part.items()) for c in counts])
      for part in (self.numerator, self.denominator)
    )

  def compute(self, states, *, seed=0) -> intervals.Estimate:
    numerator, denominator = self.columns(states)
    return intervals.ratio(numerator, denominator, seed=seed)

  def compute_difference(self, states, others, *, seed=0):
    columns = (*self.columns(states), *self.columns(others))
    return intervals.ratio_difference(*columns, seed=seed)


class SetMetric(Metric):
  """A metric of a whole set of sounds, computed from embedding features.

  Attributes:
    has_own: whether there is `compute_own`.
  """

  has_own: bool = False

  @abc.abstractmethod
  def compute(
    self, features: Features, *, reference: Features | None, seed: int = 0
  ) -> intervals.Estimate:
    """Estimates the metric from the features of all clips of a row.

    With `parts` of the estimate, rows can be compared clip by clip.
    `reference` has features of true sounds of other clips, which cannot be None
    with `needs_reference`.
    """

  def compute_own(
    self, features: Features, *, truth: Features, seed: int = 0
  ) -> intervals.Estimate:
    """Estimates the distance to the judged clips' own true sounds.

    The sounds of clip i in `features` and in `truth` depend on each other; see
    own_truth.py. No distance is below 0, where the true sounds themselves are.
    """
    raise NotImplementedError(f"{self.id} compares with other clips only")


def check(metrics: Sequence[Metric]) -> None:
  """Checks that metrics state what they must and have different ids.

  Raises:
    ValueError: names the class and what is wrong with it.
  """
  for metric in metrics:
    name = type(metric).__name__
    for stated in ("id", "label", "direction", "about"):
      if not hasattr(metric, stated):
        raise ValueError(f"metric {name} states no {stated}")
    if metric.direction not in DIRECTIONS:
      raise ValueError(
        f"{name}.direction={metric.direction!r} {one_of(DIRECTIONS)}"
      )
    if metric.role not in ROLES:
      raise ValueError(f"{name}.role={metric.role!r} {one_of(ROLES)}")
    needs_features = isinstance(metric, SetMetric) or metric.needs_reference
    if needs_features and metric.embedding is None:
      raise ValueError(f"metric {name} needs features but has no embedding")
  ids = [metric.id for metric in metrics]
  repeated = sorted({id_ for id_ in ids if ids.count(id_) > 1})
  if repeated:
    raise ValueError(f"several metrics have the id {', '.join(repeated)}")
