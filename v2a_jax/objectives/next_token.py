"""Next-token prediction over residual codes.

  loss = - mean_{i, k} log p(code[i, k] | codes written before it, conditions)

with the order of writing that `models/pattern.py` defines.
"""

import dataclasses

import jax.numpy as jnp
import optax

from v2a_jax.objectives import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class NextToken:
  """Trains a token model on `batch.target` = codes [b t q].

  Attributes:
    cond_drop_rate: chance that a condition is dropped, for each on its own.
    alignment_weight: of the aligner's error in seconds; 0 without an aligner.
  """

  cond_drop_rate: float = 0.1
  alignment_weight: float = 0.0

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
    metrics = {
      "loss": loss,
      "accuracy": base.masked_mean(hit, batch.target_mask),
      "loss_first_codebook": base.masked_mean(nats[..., 0], batch.target_mask),
    }
    return base.with_alignment(
      loss,
      metrics,
      tokens,
      shown=cond,
      known=batch.cond,
      weight=self.alignment_weight,
    )
