"""Next-token prediction over residual codes.

  loss = - mean_{i, k} log p(code[i, k] | codes before it, conditions)

in the order of codes that `models/pattern.py` defines.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import optax

from v2a_jax.objectives import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class NextToken(base.GeneratorObjective):
  """Trains a token model on `batch.target` = codes [b t q]."""

  family: ClassVar[str] = "tokens"

  def loss(self, model, batch, *, key, train):
    """Returns loss [b] in nats per code and metrics; see `base.Objective`."""
    cond = self.drop(batch.cond, key=key, train=train)
    codes, mask = batch.target, batch.target_mask
    tokens = model.encode(cond)
    logits = model(codes, tokens, times=batch.target_times)
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, codes)
    hit = (jnp.argmax(logits, axis=-1) == codes).astype(jnp.float32)
    metrics = {"accuracy": base.masked_mean(hit, mask)}
    for book in range(codes.shape[-1]):
      metrics[f"loss_codebook_{book}"] = base.masked_mean(nats[..., book], mask)
    loss = base.masked_mean(nats, mask)
    return self.align(loss, metrics, tokens, shown=cond, batch=batch)
