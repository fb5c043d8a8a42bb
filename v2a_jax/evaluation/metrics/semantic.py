"""What is heard, as a tagger's class posteriors: KL divergence and IS.

  KL = mean over clips of  sum_c p_c ln(p_c / q_c)

p is the posterior of the true sound, q that of the row's: softmax over the 527
class logits, logits averaged over the clip's windows, natural logarithm, nothing
added inside it. This direction, KL(true || row), is that of av-benchmark and most
video-to-audio papers; some toolkits take the other.

  IS = exp( mean over clips of KL(q || mean q) )

Salimans et al., https://arxiv.org/abs/1606.03498. One split: the interval comes
from the bootstrap. IS is the exponential of a mutual information, H(mean q) -
mean H(q), which few clips bias downwards, so its pivot is taken there.
"""

import dataclasses

import numpy as np
from scipy import special

from v2a_jax.evaluation import intervals


def kl_divergence(true_logits: np.ndarray, logits: np.ndarray) -> np.ndarray:
  """KL(true || row) of each clip in nats, [clips], from logits [clips, c]."""
  log_p = special.log_softmax(np.asarray(true_logits, np.float64), axis=-1)
  log_q = special.log_softmax(np.asarray(logits, np.float64), axis=-1)
  return (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)


def inception_score(
  logits: np.ndarray, *, seed: int = 0, draws: int = 1000
) -> intervals.Estimate:
  """Inception score of logits [clips, c], bias-corrected, with its interval."""
  q = special.softmax(np.asarray(logits, np.float64), axis=-1)
  clips = len(q)
  counts = intervals.clip_counts(clips, draws=draws, seed=seed) / clips
  entropies = special.entr(q).sum(axis=-1)

  def information(weights):
    return special.entr(weights @ q).sum(axis=-1) - weights @ entropies

  value = float(information(np.full(clips, 1 / clips)))
  nats = intervals.pivotal(value, information(counts), n=clips)
  return dataclasses.replace(
    nats,
    value=float(np.exp(nats.value)),
    low=float(np.exp(nats.low)),
    high=float(np.exp(nats.high)),
    extras={"plug_in": float(np.exp(value))},
  )
