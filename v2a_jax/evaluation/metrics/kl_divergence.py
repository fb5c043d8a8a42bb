"""KL divergence of a tagger's class posteriors.

  KL = mean over clips of  sum_c p_c ln(p_c / q_c)

p is the posterior of the true sound, q that of the row's sound: softmax over
the class logits, logits averaged over the clip's windows, natural
logarithm, no constant added inside it. This direction, KL(true || row), is that
of av-benchmark (https://github.com/hkchengrex/av-benchmark) and most
video-to-audio papers. Some toolkits, such as stable-audio-metrics, take the
other, which is shown beside it: KL(row || true).
"""

import dataclasses

import numpy as np
from scipy import special

from v2a_jax.evaluation.metrics import base


@dataclasses.dataclass(frozen=True)
class KLDivergence(base.OnEmbedding, base.ClipMetric):
  """KL divergence from the true sound's posterior."""

  stem, name = "kl", "KL"
  variant = "kl_true_row_mean_logits"
  unit = "nats"
  bounds = (0.0, np.inf)
  direction = "lower"

  @property
  def about(self) -> str:
    return (
      "Divergence of the row's class posterior from that of the same clip's true"
      f" sound, KL(true || row), softmax over {self.embedding.classes} classes"
      f" by {self.embedding.about}."
    )

  def get_state(self, sample: base.Sample) -> float:
    true = sample.truth.features[self.embedding.id]
    return kl_divergence(
      true.logits, sample.features[self.embedding.id].logits
    )[0]


@dataclasses.dataclass(frozen=True)
class ReverseKLDivergence(base.OnEmbedding, base.ClipMetric):
  """KL divergence of the true sound's posterior from the row's."""

  stem, name = "kl_reverse", "KL reversed"
  variant = "kl_row_true_mean_logits"
  unit = "nats"
  bounds = (0.0, np.inf)
  direction = "lower"
  role = "shown"
  about = "As KL, in the other direction: KL(row || true)."

  def get_state(self, sample: base.Sample) -> float:
    true = sample.truth.features[self.embedding.id]
    own = sample.features[self.embedding.id]
    return kl_divergence(own.logits, true.logits)[0]


def kl_divergence(true_logits: np.ndarray, logits: np.ndarray) -> np.ndarray:
  """Returns KL(true || row) in nats, [clips], from logits [clips, c]."""
  log_p = special.log_softmax(np.asarray(true_logits, np.float64), axis=-1)
  log_q = special.log_softmax(np.asarray(logits, np.float64), axis=-1)
  return (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)
