"""Next-token prediction over residual codes.

  loss = - mean_{i, k} log p(code[i, k] | codes before it, conditions)

in the order of codes that `models/pattern.py` defines. The codes that the model
reads may be corrupted in training, those that it predicts never, so that it
learns to go on from mistakes, such as it makes when it reads its own codes
(Bengio et al., "Scheduled sampling", https://arxiv.org/abs/1506.03099, draw them
from the model).
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

from v2a_jax.basics import settings
from v2a_jax.objectives import base
from v2a_jax.parallel import rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class NextToken(base.GeneratorObjective):
  """Trains a token model on `batch.target` = codes [b t q].

  Attributes:
    corrupt_rate: share, in [0, 1], of the codes read in training that are drawn
      at random instead.
  """

  family: ClassVar[str] = "tokens"

  corrupt_rate: float = 0.0

  def __post_init__(self):
    super().__post_init__()
    settings.check(self, corrupt_rate="[0, 1]")

  def loss(self, model, batch, *, key, train):
    """Returns loss [b] in nats per code and metrics; see `base.Objective`."""
    cond = self.drop(batch.cond, key=key, train=train)
    codes, mask = batch.target, batch.target_mask
    tokens = model.encode(cond)
    size = model.backbone.config.codebook_size
    read = self.read(codes, codebook_size=size, key=key, train=train)
    logits = model(read, tokens, times=batch.target_times)
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, codes)
    hit = (jnp.argmax(logits, axis=-1) == codes).astype(jnp.float32)
    metrics = {"accuracy": base.masked_mean(hit, mask)}
    for book in range(codes.shape[-1]):
      metrics[f"loss_codebook_{book}"] = base.masked_mean(nats[..., book], mask)
    loss = base.masked_mean(nats, mask)
    return self.align(loss, metrics, tokens, shown=cond, batch=batch)

  def read(self, codes, *, codebook_size: int, key, train: bool):
    """Returns the codes [b t q] that the model reads of true ones."""
    if not (train and self.corrupt_rate):
      return codes
    where, what = jax.random.split(jax.random.fold_in(key, 2))
    corrupt = lambda key, shape: jax.random.bernoulli(
      key, self.corrupt_rate, shape
    )
    draw = lambda key, shape: jax.random.randint(key, shape, 0, codebook_size)
    return jnp.where(
      rows.draw(corrupt, where, codes.shape),
      rows.draw(draw, what, codes.shape),
      codes,
    )
