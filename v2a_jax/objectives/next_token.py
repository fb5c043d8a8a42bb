"""Next-token prediction over residual codes.

  loss = - mean_{i, k} log p(code[i, k] | codes written before it, conditions)

with the order of writing that `models/pattern.py` defines.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import optax

from v2a_jax.basics import settings
from v2a_jax.objectives import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class NextToken:
  """Trains a token model on `batch.target` = codes [b t q].

  Attributes:
    cond_drop_rate: probability in [0, 1] that a condition is dropped, drawn for
      each condition on its own.
    alignment_weight: weight of the aligner's error in seconds; 0 without one.
  """

  family: ClassVar[str] = "tokens"
  needs: ClassVar = (base.NEEDS_ALIGNER,)

  cond_drop_rate: float = 0.1
  alignment_weight: float = 0.0

  def __post_init__(self):
    settings.check(self, cond_drop_rate="[0, 1]", alignment_weight="[0, inf)")

  def loss(self, model, batch, *, key, train):
    """Returns loss [b] in nats a token, and metrics; see `base.Objective`."""
    cond = batch.cond
    if train:
      cond = base.drop_conditions(cond, key=key, rate=self.cond_drop_rate)
    codes = batch.target
    tokens = model.encode(cond)
    logits = model(codes, tokens, times=batch.target_times)
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, codes)
    loss = base.masked_mean(nats, batch.target_mask)
    hit = (jnp.argmax(logits, axis=-1) == codes).astype(jnp.float32)
    metrics = {"accuracy": base.masked_mean(hit, batch.target_mask)}
    for book in range(codes.shape[-1]):
      metrics[f"loss_codebook_{book}"] = base.masked_mean(
        nats[..., book], batch.target_mask
      )
    return base.with_alignment(
      loss,
      metrics,
      tokens,
      shown=cond,
      known=batch.cond,
      weight=self.alignment_weight,
    )

  def evaluate(self, model, batch, *, key):
    """Returns losses by condition and by codebook."""
    return base.evaluate_conditions(self, model, batch, key=key)
