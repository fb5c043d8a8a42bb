"""Scores rows of sounds for the same clips, by every metric."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from v2a_jax.evaluation import embeddings
from v2a_jax.evaluation.clips import Clip
from v2a_jax.evaluation.embeddings import Embedding, Features
from v2a_jax.evaluation.intervals import Estimate
from v2a_jax.evaluation.metrics.base import (
  ClipMetric,
  Metric,
  RatioMetric,
  Sample,
)
from v2a_jax.evaluation.reference import Reference


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
  """Scores of one row, by metric id.

  Attributes:
    estimates: value with its interval.
    by_clip: values float64 [clips] of per-clip metrics, NaN where undefined.
    states: states of the clips, of per-clip metrics.
    features: embedding features of the row, by `Embedding.id`.
  """

  estimates: dict[str, Estimate]
  by_clip: dict[str, np.ndarray]
  states: dict[str, list[Any]]
  features: dict[str, Features]


class Scorer:
  """Scores rows of sounds for the same clips.

  Attributes:
    metrics: the metrics whose network and reference are there.
    sample_rate: rate of all sounds, Hz.
    networks: embedding networks, by `Embedding.id`.
    references: true sounds of other clips, by `Embedding.id`.
    truth: samples of the clips' true sounds.
  """

  def __init__(
    self,
    clips: Sequence[Clip],
    metrics: Sequence[Metric],
    *,
    sample_rate: int,
    networks: Mapping[str, Embedding] | None = None,
    references: Mapping[str, Reference] | None = None,
    seed: int = 0,
  ):
    """Embeds the true sounds of two clips or more."""
    if len(clips) < 2:
      raise ValueError(f"{len(clips)} clips to score; two or more are needed")
    self._clips, self._seed = clips, seed
    self.sample_rate = sample_rate
    self.networks = networks or {}
    self.references = references or {}
    self.metrics = [m for m in metrics if self._can_compute(m)]
    true = [clip.audio for clip in clips]
    self.truth = self._samples(true, self._embed(true), [None] * len(clips))

  def _can_compute(self, metric: Metric) -> bool:
    if not metric.embedding:
      return True
    reference = self.references.get(metric.embedding.id)
    return metric.embedding.id in self.networks and (
      not metric.needs_reference
      or (reference is not None and reference.features is not None)
    )

  def score(self, sounds: Sequence[np.ndarray]) -> Scores:
    """Scores one row; of [samples, channels], the clip's length is used."""
    sounds = [s[: len(c.audio)] for s, c in zip(sounds, self._clips)]
    features = self._embed(sounds)
    samples = self._samples(sounds, features, self.truth)
    scores = Scores(estimates={}, by_clip={}, states={}, features=features)
    for metric in self.metrics:
      if isinstance(metric, ClipMetric):
        states = [metric.get_state(sample) for sample in samples]
        scores.states[metric.id] = states
        scores.by_clip[metric.id] = metric.values(states)
        estimate = metric.compute(states, seed=self._seed)
      else:
        id_ = metric.embedding.id
        reference = self.references.get(id_)
        estimate = metric.compute(
          features[id_],
          reference=reference and reference.features,
          seed=self._seed,
        )
      scores.estimates[metric.id] = estimate
    return scores

  def counts(self, scores: Scores, clip: int) -> dict[str, dict[str, float]]:
    """Returns a clip's counts, by metric, of metrics that are ratios of sums."""
    return {
      metric.id: metric.counts(scores.states[metric.id][clip])
      for metric in self.metrics
      if isinstance(metric, RatioMetric)
    }

  def timing_differences(
    self, scores: Scores, other: Scores
  ) -> dict[str, Estimate]:
    """Estimates `scores` less `other` of per-clip metrics that judge timing."""
    return {
      metric.id: metric.compute_difference(
        scores.states[metric.id], other.states[metric.id], seed=self._seed
      )
      for metric in self.metrics
      if metric.judges_timing and metric.id in scores.states
    }

  def _embed(self, sounds) -> dict[str, Features]:
    return {
      id_: embeddings.embed(network, sounds, sample_rate=self.sample_rate)
      for id_, network in self.networks.items()
    }

  def _samples(self, sounds, features, truth) -> list[Sample]:
    split = {id_: of.split() for id_, of in features.items()}
    return [
      Sample(
        clip=clip,
        waveform=sound,
        sample_rate=self.sample_rate,
        features={id_: parts[i] for id_, parts in split.items()},
        truth=true,
      )
      for i, (clip, sound, true) in enumerate(zip(self._clips, sounds, truth))
    ]
