"""Inception score of a tagger's class posteriors.

  IS = exp( mean over clips of KL(q || mean q) )

with q the softmax over the 527 class logits, averaged over a clip's windows.
Salimans et al., https://arxiv.org/abs/1606.03498. One split, not ten. IS
is the exponential of a mutual information, H(mean q) - mean H(q), which few
clips bias downwards, so it is extrapolated to endless many (extrapolation.py)
there, in nats. The influence of a clip is KL(q || mean q) less the mean.
"""

import dataclasses

import numpy as np
from scipy import special

from v2a_jax.evaluation import intervals
from v2a_jax.evaluation.extrapolation import Extrapolated, extrapolate
from v2a_jax.evaluation.metrics import base


@dataclasses.dataclass(frozen=True)
class InceptionScore(base.OnEmbedding, base.SetMetric):
  """Inception score of a tagger's posteriors."""

  stem, name = "is", "Inception score"
  bounds = (1.0, np.inf)
  variant = "inception_extrapolated"
  direction = "higher"
  role = "shown"  # Sounds of other videos have more of it than the true ones.
  about = (
    "How sure the tagger is of each clip and how varied the clips are; it says"
    " nothing about fitting the video. Corrected for small sets."
  )

  def compute(self, features, *, reference, seed=0) -> intervals.Estimate:
    return inception_score(features.logits, seed=seed)


@dataclasses.dataclass(frozen=True)
class SplitInceptionScore(base.OnEmbedding, base.SetMetric):
  """Inception score as av-benchmark computes it, for published numbers."""

  stem, name = "is_splits", "Inception score, 10 splits"
  variant = "av_benchmark_10_splits"
  direction = "higher"
  role = "shown"
  about = (
    "Mean inception score of ten parts of the clips, as in av-benchmark: biased"
    " downwards by few clips."
  )

  def compute(self, features, *, reference, seed=0) -> intervals.Estimate:
    value = split_score(features.logits)
    return intervals.Estimate(value, np.nan, np.nan, len(features.logits))


def split_score(logits: np.ndarray, splits: int = 10) -> float:
  """Returns the mean score of splits of logits [clips, c]; NaN for fewer clips.

  Clips are shuffled by `RandomState(2020)`, as in
  https://github.com/hkchengrex/av-benchmark and torch-fidelity.
  """
  if len(logits) < splits:
    return np.nan
  order = np.random.RandomState(2020).permutation(len(logits))
  log_q = special.log_softmax(np.asarray(logits, np.float64)[order], axis=-1)
  scores = []
  for i in range(splits):
    first, last = (len(log_q) * k // splits for k in (i, i + 1))
    part = log_q[first:last]
    log_mean = special.logsumexp(part, axis=0) - np.log(len(part))
    surprise = (np.exp(part) * (part - log_mean)).sum(axis=-1)
    scores.append(np.exp(surprise.mean()))
  return float(np.mean(scores))


def inception_score(logits: np.ndarray, *, seed: int = 0) -> intervals.Estimate:
  """Estimates the inception score of logits [clips, c], bias-corrected."""
  nats = _extrapolated(logits, seed).estimate()
  ends = (nats.value, nats.low, nats.high, nats.extras["plug_in"])
  value, low, high, plug_in = (float(np.exp(x)) for x in ends)
  return intervals.Estimate(
    *(value, low, high, nats.n),
    {"plug_in": plug_in},
    parts=value * (1 + nats.parts - nats.value),
  )


def _extrapolated(logits: np.ndarray, seed: int) -> Extrapolated:
  log_q = special.log_softmax(np.asarray(logits, np.float64), axis=-1)
  q = np.exp(log_q)

  def statistic(clips):
    mean = q[clips].mean(axis=0)
    known = np.log(np.maximum(mean, np.finfo(float).tiny))
    surprise = (q[clips] * (log_q[clips] - known)).sum(axis=-1)
    return float(surprise.mean()), [surprise - surprise.mean()]

  return extrapolate(statistic, len(q), seed=seed)
