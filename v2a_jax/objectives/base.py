"""What a model is trained to do."""

import dataclasses
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp

from v2a_jax.batch import Batch, Conditioning

CONDITIONS = ("video", "prompt", "transcript", "presence")


@dataclasses.dataclass(frozen=True)
class Need:
  """A setting that makes no sense without another one.

  Attributes:
    setting: field that needs it, if its value is true; "" for always.
    needed: dotted key of the other one in the config.
    reason: what would be wrong, and what to set.
  """

  setting: str
  needed: str
  reason: str


NEEDS_ALIGNER = Need(
  "alignment_weight",
  "model.conditioner.aligner_depth",
  "there is no aligner to train; set it to 1 or more",
)


class Objective(Protocol):
  """A training objective; the trainer knows nothing else about it.

  Attributes:
    family: models that it trains: those of the same family.
    needs: settings of the model that its own settings need.
  """

  family: ClassVar[str]
  needs: ClassVar[tuple[Need, ...]]

  def loss(
    self, model, batch: Batch, *, key: jax.Array, train: bool
  ) -> tuple[Any, dict[str, Any]]:
    """Returns the loss of each example [b], and metrics of [b] each."""
    ...

  def evaluate(self, model, batch: Batch, *, key: jax.Array) -> dict[str, Any]:
    """Returns validation metrics of [b] each, `loss` among them.

    NaN stands where a metric is not defined for an example.
    """
    ...


def evaluate_conditions(
  objective: Objective, model, batch: Batch, *, key: jax.Array
) -> dict[str, jax.Array]:
  """Evaluates a generator with all conditions, and without each of them.

  Every pass draws the same noise, so differences are those of the condition.

  Returns:
    `loss` and the objective's metrics with all conditions, and
    `loss_without_<condition>`; float32 [b] each.
  """

  def without(drop):
    cond = batch.cond
    for name, where in zip(CONDITIONS, drop):
      cond = cond.without(name, where=where)
    shown = batch.replace(cond=cond)
    loss, metrics = objective.loss(model, shown, key=key, train=False)
    return metrics | {"loss": loss}

  none, each = jnp.zeros((1, len(CONDITIONS)), bool), jnp.eye(len(CONDITIONS))
  metrics = jax.lax.map(without, jnp.concatenate([none, each.astype(bool)]))
  rows = {name: value[0] for name, value in metrics.items()}
  for index, name in enumerate(CONDITIONS):
    rows[f"loss_without_{name}"] = metrics["loss"][index + 1]
  return rows


def by_quarter(name: str, values, time) -> dict[str, jax.Array]:
  """Splits values [b] by the quarter of diffusion time [b] they belong to.

  Returns:
    `<name>_time_0` (most noise) to `<name>_time_3`, NaN outside the quarter.
  """
  quarter = jnp.clip((4 * time).astype(jnp.int32), 0, 3)
  return {
    f"{name}_time_{i}": jnp.where(quarter == i, values, jnp.nan)
    for i in range(4)
  }


def drop_conditions(
  cond: Conditioning, *, key: jax.Array, rate: float
) -> Conditioning:
  """Drops each condition of each example, independently, at `rate`.

  So are the known times of its words, so that a model with an aligner learns
  to go by what that finds.
  """
  b = cond.presence.shape[0]
  more = jax.random.fold_in(key, len(CONDITIONS))
  timed = jax.random.bernoulli(more, 1 - rate, (b,))
  cond = cond.replace(transcript_timed=cond.transcript_timed & timed)
  drops = jax.random.bernoulli(key, rate, (len(CONDITIONS), b))
  for name, where in zip(CONDITIONS, drops):
    cond = cond.without(name, where=where)
  return cond


def draw_known(key: jax.Array, shape, *, rate: float) -> jax.Array:
  """Which steps of each example are told: bool [b t].

  A share `rate` of the examples has a hole of 10 to 90 % of its length, at
  its end, its start or anywhere (each as likely), and everything else is
  known; in the other examples nothing is.

  Args:
    key: random.
    shape: (b, t).
    rate: share of the examples.
  """
  b, t = shape
  keys = jax.random.split(key, 4)
  length = jax.random.uniform(keys[0], (b,), minval=0.1, maxval=0.9)
  kind = jax.random.randint(keys[1], (b,), 0, 3)
  anywhere = jax.random.uniform(keys[2], (b,))
  start = jnp.select([kind == 0, kind == 1], [1.0, 0.0], anywhere)
  start = (start * (1 - length))[:, None]
  place = (jnp.arange(t) + 0.5) / t
  hole = (place >= start) & (place < start + length[:, None])
  return ~hole & jax.random.bernoulli(keys[3], rate, (b, 1))


def logit_normal(key: jax.Array, shape, *, mean: float, std: float):
  """sigmoid(mean + std · N(0, 1)), in (0, 1)."""
  return jax.nn.sigmoid(mean + std * jax.random.normal(key, shape))


def with_alignment(loss, metrics, tokens, *, shown, known, weight: float):
  """Adds what the aligner gets wrong, where the words' times are known.

  Args:
    loss: [b].
    metrics: of [b].
    tokens: what the model made of the conditions shown.
    shown: the conditions as the model saw them, some dropped.
    known: the conditions as they are.
    weight: of the mean distance in seconds over an example's tokens; 0 for a
      model without an aligner.

  Returns:
    (loss, metrics), the latter with `alignment_error` in seconds, scaled so
    that the batch's mean is that of the examples with known times.
  """
  if not weight:
    return loss, metrics
  there = shown.transcript_mask & known.transcript_timed[:, None]
  error = masked_mean(jnp.abs(tokens.onsets - known.transcript_times), there)
  share = jnp.maximum(there.any(axis=1).mean(), 1 / len(error))
  return loss + weight * error, metrics | {"alignment_error": error / share}


def representation_error(guess, batch: Batch):
  """1 - cosine between a guess [b t f] and what the teacher hears: [b]."""
  wanted = batch.representation
  norm = lambda x: jnp.sqrt(jnp.square(x).sum(axis=-1) + 1e-8)
  cosine = (guess * wanted).sum(axis=-1) / (norm(guess) * norm(wanted))
  return masked_mean(1 - cosine, batch.target_mask)


def masked_mean(x, mask):
  """Mean of x [b t ...] over all but the batch, where mask [b t] is True."""
  weight = mask.reshape(*mask.shape, *(1,) * (x.ndim - 2)).astype(x.dtype)
  axes = tuple(range(1, x.ndim))
  total = (weight * x).sum(axis=axes)
  count = jnp.broadcast_to(weight, x.shape).sum(axis=axes)
  return total / jnp.maximum(count, 1.0)
