"""Inception score of a tagger's class posteriors.

  IS = exp( mean over clips of KL(q || mean q) )

with q the softmax over the 527 class logits, averaged over a clip's windows.
Salimans et al., https://arxiv.org/abs/1606.03498. One split: the interval comes
from the bootstrap. IS is the exponential of a mutual information, H(mean q) -
mean H(q), which few clips bias downwards, so the pivotal interval (see
intervals.py) is taken there, in nats.
"""

import numpy as np
from scipy import special

from v2a_jax.evaluation import embeddings, intervals
from v2a_jax.evaluation.metrics import base


class InceptionScore(base.SetMetric):
  """Inception score of mn04's AudioSet posteriors."""

  id = "is_mn04"
  label = "Inception score (mn04)"
  direction = "higher"
  about = (
    "How sure the tagger is of each clip and how varied the clips are; it says"
    " nothing about fitting the video. Corrected for small sets."
  )
  embedding = embeddings.Mn04

  def compute(self, features, *, reference, seed=0) -> intervals.Estimate:
    return inception_score(features.logits, seed=seed)


def inception_score(
  logits: np.ndarray, *, seed: int = 0, draws: int = 1000
) -> intervals.Estimate:
  """Estimates the inception score of logits [clips, c], bias-corrected."""
  q = special.softmax(np.asarray(logits, np.float64), axis=-1)
  clips = len(q)
  counts = intervals.clip_counts(clips, draws=draws, seed=seed) / clips
  entropies = special.entr(q).sum(axis=-1)

  def information(weights):
    return special.entr(weights @ q).sum(axis=-1) - weights @ entropies

  value = float(information(np.full(clips, 1 / clips)))
  nats = intervals.pivotal(value, information(counts), n=clips)
  exps = [float(np.exp(x)) for x in (nats.value, nats.low, nats.high, value)]
  return intervals.Estimate(*exps[:3], clips, {"plug_in": exps[3]})
