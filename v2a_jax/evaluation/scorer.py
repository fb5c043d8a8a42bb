"""Scores sounds clip by clip: embeddings, and what metrics keep of each."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from v2a_jax.evaluation import embedded
from v2a_jax.evaluation.clips import Clip
from v2a_jax.evaluation.embedded import Kept
from v2a_jax.evaluation.metrics.base import ClipMetric, Metric, Sample
from v2a_jax.evaluation.schema import GROUND_TRUTH
from v2a_jax.hearing.embeddings import Embedding, Features


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
  """What is kept of the sounds of one clip.

  Attributes:
    truth: sample of the true sound.
    states: what per-clip metrics keep, by row and metric id.
    features: embeddings by row and `Embedding.id`, the true sound's among them.
    sounds: digests of the sounds as they were judged, by row.
  """

  truth: Sample
  states: Mapping[str, Mapping[str, Any]]
  features: Mapping[str, Mapping[str, Features]]
  sounds: Mapping[str, str]


def judge(
  clips: Sequence[Clip],
  sounds: Mapping[str, Sequence[np.ndarray]],
  metrics: Sequence[Metric],
  *,
  sample_rate: int,
  networks: Mapping[str, Embedding],
  kept: Kept | None = None,
) -> list[Judged]:
  """Embeds sounds and computes what metrics keep of them.

  Args:
    clips: the clips.
    sounds: [samples, channels] of each clip, by row; the clip's length is used.
    metrics: metrics whose network, if any, is in `networks`.
    sample_rate: of all sounds, Hz.
    networks: embedding networks by `Embedding.id`.
    kept: embeddings that need not be computed again.
  """
  kept = kept or Kept()
  listen = lambda sounds: _samples(clips, sounds, sample_rate, networks, kept)
  truth = listen([c.audio for c in clips])
  name = lambda sample: embedded.digest(sample.waveform, sample_rate)
  digests = [{GROUND_TRUTH: name(sample)} for sample in truth]
  states = [{} for _ in clips]
  features = [{GROUND_TRUTH: sample.features} for sample in truth]
  of_clip = [m for m in metrics if isinstance(m, ClipMetric)]
  for row, of_row in sounds.items():
    samples = truth
    if row != GROUND_TRUTH:
      samples = listen(of_row)
    for i, sample in enumerate(samples):
      sample = dataclasses.replace(sample, truth=truth[i])
      features[i][row] = sample.features
      digests[i][row] = name(sample)
      states[i][row] = {
        m.id: m.get_state(sample) for m in of_clip if m.judges(sample.clip)
      }
  return [
    Judged(truth=t, states=s, features=f, sounds=d)
    for t, s, f, d in zip(truth, states, features, digests)
  ]


def _samples(clips, sounds, sample_rate, networks, kept) -> list[Sample]:
  seconds = [len(sound) / sample_rate for sound in sounds]
  sounds = [s[: len(c.audio)] for s, c in zip(sounds, clips)]
  parts = {
    id_: kept.embed(network, sounds, sample_rate=sample_rate)
    for id_, network in networks.items()
  }
  return [
    Sample(
      clip=clip,
      waveform=sound,
      sample_rate=sample_rate,
      features={id_: of[i] for id_, of in parts.items()},
      delivered_seconds=seconds[i],
    )
    for i, (clip, sound) in enumerate(zip(clips, sounds))
  ]


def kept(metric: Metric, states: Sequence[Mapping[str, Any]]) -> list[Any]:
  """Lists what a metric keeps of the clips that it judges."""
  return [of[metric.id] for of in states if metric.id in of]
