"""From parts to the content of results.json."""

import collections
from collections.abc import Mapping, Sequence
import dataclasses
import itertools
import pathlib
from typing import Any

import numpy as np

from v2a_jax.evaluation import formats, parts, results, scorer
from v2a_jax.evaluation.clips import Clip, Failure
from v2a_jax.evaluation.intervals import Estimate
from v2a_jax.evaluation.metrics import own_truth
from v2a_jax.evaluation.metrics.base import (
  ClipMetric,
  Metric,
  RatioMetric,
  SetMetric,
)
from v2a_jax.evaluation.reference import Reference
from v2a_jax.evaluation.schema import GENERATED, SHUFFLED
from v2a_jax.hearing import embeddings
from v2a_jax.hearing.embeddings import Embedding, Features

_ONE = "it compares sets of clips, and one clip is none"


@dataclasses.dataclass(frozen=True)
class Scores:
  """What is kept of all clips, ordered by position.

  Attributes:
    scored: the clips, without embeddings.
    failures: records that could not be scored.
    paths: files of the parts.
    seconds: what making the model's sound of a clip took, of each part that has
      one.
  """

  scored: Sequence[parts.Scored]
  failures: Sequence[Failure]
  paths: Sequence[pathlib.Path]
  seconds: Sequence[float]

  @classmethod
  def read(cls, folder: pathlib.Path, count: int) -> "Scores":
    """Reads all parts.

    Raises:
      ValueError: no clip could be scored.
    """
    paths = [parts.path_of(folder, number) for number in range(count)]
    read = [parts.read(path) for path in paths]
    scored = itertools.chain.from_iterable(part.scored for part in read)
    failures = [failure for part in read for failure in part.failures]
    scored = sorted(scored, key=lambda s: s.clip.position)
    if not scored:
      reasons = collections.Counter(failure.reason for failure in failures)
      (reason, _), *_ = reasons.most_common(1)
      hint = "is not finite" in reason
      raise ValueError(
        f"none of {len(failures)} clips can be scored ({reason})"
        + ": is the checkpoint of a diverged run?" * hint
      )
    seconds = [part.seconds for part in read if part.seconds is not None]
    return cls(scored, failures, paths, seconds)

  @property
  def clips(self) -> list[Clip]:
    """The clips, without media."""
    return [scored.clip for scored in self.scored]

  @property
  def digest(self) -> str:
    """Returns the sha256 of the scored clips."""
    return formats.digest(
      [(s.clip.id, s.sha256, s.clip.seconds) for s in self.scored]
    )

  def states(self, row: str) -> list[Mapping[str, Any]]:
    """Returns what metrics keep of a row, clip by clip."""
    return [scored.states[row] for scored in self.scored]

  def sounds(self, row: str) -> list[str]:
    """Returns the digests of the sounds of a row, clip by clip."""
    return [scored.sounds[row] for scored in self.scored]

  def features(self, row: str) -> list[Mapping[str, Features]]:
    """Reads the embeddings of a row, clip by clip."""
    found = [
      (scored.clip.position, scored.features.get(row, {}))
      for path in self.paths
      for scored in parts.read(path, rows=(row,)).scored
    ]
    return [features for _, features in sorted(found, key=lambda f: f[0])]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
  """Estimates all metrics of all rows.

  Attributes:
    scores: the clips.
    metrics: metrics whose network is there.
    networks: their networks, by `Embedding.id`.
    references: what set distances are measured to, by `Embedding.id`.
    same_set: whether the row of shuffled videos has the very same sounds as the
      system's, for other clips, so that as sets they do not differ.
    seed: random seed of the intervals.
  """

  scores: Scores
  metrics: Sequence[Metric]
  networks: Mapping[str, Embedding]
  references: Mapping[str, Reference]
  seed: int
  same_set: bool = False

  def skipped(self) -> dict[str, str]:
    """Returns why metrics are not measured, by id."""
    reasons = {m.id: self._reason(m) for m in self.metrics}
    return {id_: reason for id_, reason in reasons.items() if reason}

  def _reason(self, metric: Metric) -> str:
    if isinstance(metric, ClipMetric):
      rows = (
        of for scored in self.scores.scored for of in scored.states.values()
      )
      return "" if any(metric.id in of for of in rows) else metric.unmet
    if len(self.scores.scored) < 2:
      return _ONE
    reference = self._reference(metric)
    if reference and reference.features is None:
      return reference.about
    if reference and reference.own and not metric.has_own:
      return "it has no form for the judged clips' own true sounds"
    return ""

  def _reference(self, metric: Metric) -> Reference | None:
    if not metric.needs_reference:
      return None
    return self.references.get(metric.embedding.id)

  def measured(self) -> list[Metric]:
    """Returns the metrics that are measured."""
    skipped = self.skipped()
    return [metric for metric in self.metrics if metric.id not in skipped]

  def describe(self) -> dict[str, Any]:
    """Describes the measured metrics, by id."""
    return {
      metric.id: results.describe_metric(
        metric,
        network=metric.embedding and self.networks[metric.embedding.id],
        reference=self._reference(metric),
        facts=metric.facts(self.scores.clips),
      )
      for metric in self.measured()
    }

  def row(self, name: str, others: Sequence[str]) -> "Row":
    """Scores a row; `others` are the rows that there are."""
    states, by_clip = self.scores.states(name), self.scores.features(name)
    features = {
      id_: embeddings.joined([of[id_] for of in by_clip])
      for id_ in self.networks
    }
    estimates = {
      metric.id: self._estimate(metric, states, features).within(metric.bounds)
      for metric in self.measured()
      if self._tells(metric, name)
    }
    entries = {id_: of.to_json() for id_, of in estimates.items()}
    parts = {
      id_: of.parts for id_, of in estimates.items() if of.parts is not None
    }
    if name == GENERATED and SHUFFLED in others:
      for id_, difference in self._over(name, SHUFFLED).items():
        entries[id_]["over_shuffled"] = difference.to_json()
    kind = "model" if name == GENERATED else "anchor"
    entry = {"name": name, "kind": kind, "metrics": entries}
    return Row(entry, parts, features)

  def _tells(self, metric: Metric, row: str) -> bool:
    """Says whether a metric says anything of a row.

    The sounds of shuffled videos depend on other judged clips' true sounds, so
    that they have no distance of sets to these.
    """
    if row != SHUFFLED or not isinstance(metric, SetMetric):
      return True
    reference = self._reference(metric)
    return not (self.same_set or (reference and reference.own))

  def _estimate(self, metric: Metric, states, features) -> Estimate:
    if isinstance(metric, ClipMetric):
      return metric.compute(scorer.kept(metric, states), seed=self.seed)
    own, reference = features[metric.embedding.id], self._reference(metric)
    if reference and reference.own:
      truth = own_truth.paired(own, reference.features)
      return metric.compute_own(own, truth=truth, seed=self.seed)
    return metric.compute(
      own, reference=reference and reference.features, seed=self.seed
    )

  def _over(self, name: str, other: str) -> dict[str, Estimate]:
    """Estimates one row less another in metrics that judge timing."""
    states, others = self.scores.states(name), self.scores.states(other)
    return {
      metric.id: metric.compute_difference(
        scorer.kept(metric, states),
        scorer.kept(metric, others),
        seed=self.seed,
      )
      for metric in self.measured()
      if metric.judges_timing and isinstance(metric, ClipMetric)
    }

  def clips(self, rows: Sequence["Row"]) -> list[dict[str, Any]]:
    """Returns the clips of results.json, with their scores in all rows."""
    metrics = [m for m in self.measured() if isinstance(m, ClipMetric)]
    ratios = [m for m in metrics if isinstance(m, RatioMetric)]
    values = {
      row.name: {m.id: self._values(m, row.name) for m in metrics}
      for row in rows
    }
    entries = []
    for i, scored in enumerate(self.scores.scored):
      own = {
        "scores": {row: _of_clip(of, i) for row, of in values.items()},
        "counts": {
          row: {m.id: m.counts(of[m.id]) for m in ratios if m.id in of}
          for row, of in scored.states.items()
        },
        "parts": {row.name: _of_clip(row.parts, i) for row in rows},
      }
      entries.append({**scored.entry, **own})
    return entries

  def _values(self, metric: ClipMetric, row: str) -> np.ndarray:
    """Returns a metric's values, float64 [clips]; NaN where it judges none."""
    states = self.scores.states(row)
    values = np.full(len(states), np.nan)
    judged = [metric.id in of for of in states]
    values[judged] = metric.values(scorer.kept(metric, states))
    return values

  def notes(self) -> list[str]:
    """Says what makes the numbers weak."""
    lines = []
    count = len(self.scores.scored)
    if count == 1:
      lines.append("one clip was scored: there are no intervals")
    for metric in self.measured():
      if note := metric.weakness(count):
        lines.append(f"{metric.label}: {note}")
    return lines


@dataclasses.dataclass(frozen=True)
class Row:
  """A row with all that is known of it.

  Attributes:
    entry: what results.json says of it.
    parts: each clip's part in metrics of the set, [clips], by metric.
    features: embeddings by `Embedding.id`.
  """

  entry: Mapping[str, Any]
  parts: Mapping[str, np.ndarray]
  features: Mapping[str, Features] | None

  @property
  def name(self) -> str:
    """Name of the row."""
    return self.entry["name"]


def _of_clip(values: Mapping[str, np.ndarray], i: int) -> dict[str, float]:
  """Returns the finite values of a clip, by metric, rounded."""
  return {
    id_: round(float(of[i]), 5)
    for id_, of in values.items()
    if np.isfinite(of[i])
  }
