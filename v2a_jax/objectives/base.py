"""What a model is trained to do."""

from typing import Any, Protocol

import jax

from v2a_jax.batch import Batch, Conditioning

CONDITIONS = ("video", "prompt", "transcript", "presence")


class Objective(Protocol):
  """A training objective; the trainer knows nothing else about it."""

  def loss(
    self, model, batch: Batch, *, key: jax.Array, train: bool
  ) -> tuple[Any, dict[str, Any]]:
    """Returns the loss of each example [b], and metrics of [b] each."""
    ...


def drop_conditions(
  cond: Conditioning, *, key: jax.Array, rate: float
) -> Conditioning:
  """Drops each condition of each example, independently, at `rate`."""
  b = cond.presence.shape[0]
  drops = jax.random.bernoulli(key, rate, (len(CONDITIONS), b))
  for name, where in zip(CONDITIONS, drops):
    cond = cond.without(name, where=where)
  return cond


def masked_mean(x, mask):
  """Mean of x [b t ...] over all but the batch, where mask [b t] is True."""
  weight = mask.reshape(*mask.shape, *(1,) * (x.ndim - 2)).astype(x.dtype)
  axes = tuple(range(1, x.ndim))
  total = (weight * x).sum(axis=axes)
  count = jax.numpy.broadcast_to(weight, x.shape).sum(axis=axes)
  return total / jax.numpy.maximum(count, 1.0)
