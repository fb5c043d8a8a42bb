"""What objectives have in common, and what generators' objectives share."""

import dataclasses
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp

from v2a_jax.basics import settings
from v2a_jax.batch import CONDITIONS, Batch, Conditioning
from v2a_jax.objectives.corruption import TIMES, Corruption
from v2a_jax.parallel import rows


@dataclasses.dataclass(frozen=True)
class Need:
  """A setting that requires another one.

  Attributes:
    setting: field that requires it, if its value is true; "" for always.
    needed: dotted key of the required setting in the config.
    reason: what would be wrong without it, and what to set.
  """

  setting: str
  needed: str
  reason: str


class Objective(Protocol):
  """A training objective; the trainer knows nothing else about it.

  Attributes:
    family: family of the models that it trains.
    needs: settings of the model that its own settings require.
  """

  family: ClassVar[str]
  needs: ClassVar[tuple[Need, ...]]

  def loss(
    self, model, batch: Batch, *, key: jax.Array, train: bool
  ) -> tuple[Any, dict[str, Any]]:
    """Returns the loss of each example [b], and metrics of [b] each.

    The batch may be some rows of the global one. Random numbers for each row
    are drawn with `rows.draw`, and sums over the batch are completed with
    `rows.total`, so that the loss is the same on any mesh.
    """
    ...

  def evaluate(self, model, batch: Batch, *, key: jax.Array) -> dict[str, Any]:
    """Returns validation metrics of [b] each, `loss` among them.

    A metric is NaN in examples for which it is not defined.
    """
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorObjective:
  """Settings and methods of the objectives of all generators.

  Attributes:
    cond_drop_rate: probability in [0, 1] that a condition is dropped, drawn for
      each condition independently.
    cond_drop_all_rate: probability in [0, 1] that all conditions of an example
      are dropped together, as in the branch of joint guidance.
    untimed_rate: probability in [0, 1] that the known times of an example's
      words are hidden, so that a model with an aligner learns to use those that
      it predicts.
    alignment_weight: weight of the aligner's error in seconds; 0 without one.
  """

  needs: ClassVar[tuple[Need, ...]] = (
    Need(
      "alignment_weight",
      "model.conditioner.aligner_depth",
      "there is no aligner to train; set it to 1 or more",
    ),
  )

  cond_drop_rate: float = 0.1
  cond_drop_all_rate: float = 0.0
  untimed_rate: float = 0.5
  alignment_weight: float = 0.0

  def __post_init__(self):
    settings.check(
      self,
      cond_drop_rate="[0, 1]",
      cond_drop_all_rate="[0, 1]",
      untimed_rate="[0, 1]",
      alignment_weight="[0, inf)",
    )

  def target(self, representation: Any, *, sample_rate: int) -> Any:
    """Returns what fills in a batch's target.

    Args:
      representation: latents or codes, from `codec.target`.
      sample_rate: sample rate of the batch's audio in Hz.
    """
    del sample_rate
    return representation

  def drop(self, cond: Conditioning, *, key, train: bool) -> Conditioning:
    """Drops conditions at `cond_drop_rate` and together, in training."""
    if not train:
      return cond
    cond = drop_conditions(
      cond, key=key, rate=self.cond_drop_rate, untimed_rate=self.untimed_rate
    )
    if not self.cond_drop_all_rate:
      return cond
    drawn = lambda key, shape: jax.random.bernoulli(
      key, self.cond_drop_all_rate, shape
    )
    together = rows.draw(
      drawn, jax.random.fold_in(key, 1), cond.presence.shape[:1]
    )
    return cond.without(*CONDITIONS, where=together)

  def align(self, loss, metrics, tokens, *, shown: Conditioning, batch: Batch):
    """Adds the aligner's error; see `with_alignment`."""
    extra = dict(known=batch.cond, weight=self.alignment_weight)
    return with_alignment(loss, metrics, tokens, shown=shown, **extra)

  def evaluate(self, model, batch: Batch, *, key: jax.Array) -> dict[str, Any]:
    """Evaluates with all conditions, and without each of them.

    All passes use the same noise, so differences are due to the condition.

    Returns:
      `loss` and the objective's metrics with all conditions, and
      `loss_without_<condition>`; float32 [b] each.
    """

    def without(drop):
      cond = batch.cond
      for name, where in zip(CONDITIONS, drop):
        cond = cond.without(name, where=where)
      partial = batch.replace(cond=cond)
      loss, metrics = self.loss(model, partial, key=key, train=False)
      return metrics | {"loss": loss}

    none, each = jnp.zeros((1, len(CONDITIONS)), bool), jnp.eye(len(CONDITIONS))
    metrics = jax.lax.map(without, jnp.concatenate([none, each.astype(bool)]))
    complete = {name: value[0] for name, value in metrics.items()}
    losses = zip(CONDITIONS, metrics["loss"][1:])
    return complete | {f"loss_without_{name}": loss for name, loss in losses}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowObjective(GeneratorObjective):
  """Settings and methods of objectives along a path from noise to data.

  Attributes:
    time_distribution: distribution of the diffusion time, one of
      `corruption.TIMES`.
    time_mean: mean of the normal in the logit-normal distribution.
    time_std: standard deviation of that normal.
  """

  time_distribution: str = "logit_normal"
  time_mean: float = 0.0
  time_std: float = 1.0

  def __post_init__(self):
    super().__post_init__()
    settings.choose(self, time_distribution=TIMES)
    settings.check(self, time_mean="(-inf, inf)", time_std="(0, inf)")

  @property
  def corruption(self) -> Corruption:
    """Path and prediction type."""
    return Corruption()

  def sample_time(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws diffusion times [b ...] in [0, 1]."""
    drawn = TIMES[self.time_distribution]
    sample = lambda key, shape: drawn(key, shape, self.time_mean, self.time_std)
    return rows.draw(sample, key, shape)

  def latents(self, batch: Batch, *, key: jax.Array, train: bool) -> jax.Array:
    """Draws the latents [b t c] of a batch; outside training, their mean."""
    if not train or batch.target_std is None:
      return batch.target
    noise = rows.draw(jax.random.normal, key, batch.target.shape)
    return batch.target + batch.target_std * noise


def by_quarter(loss, time) -> dict[str, jax.Array]:
  """Splits a loss [b] by the quarter of diffusion time [b] it belongs to.

  Returns:
    `loss_time_0` (most noise) to `loss_time_3`, NaN outside the quarter.
  """
  quarter = jnp.clip((4 * time).astype(jnp.int32), 0, 3)
  return {
    f"loss_time_{i}": jnp.where(quarter == i, loss, jnp.nan) for i in range(4)
  }


def drop_conditions(
  cond: Conditioning, *, key: jax.Array, rate: float, untimed_rate: float = 0.0
) -> Conditioning:
  """Drops each condition of each example independently with probability `rate`.

  The known times of words are hidden with probability `untimed_rate`.
  """
  b = cond.presence.shape[0]
  rates = jnp.array([rate] * len(CONDITIONS) + [untimed_rate])
  drawn = lambda key, shape: jax.random.bernoulli(key, rates, shape)
  drops = rows.draw(drawn, key, (b, len(CONDITIONS) + 1)).T
  cond = cond.replace(transcript_timed=cond.transcript_timed & ~drops[-1])
  for name, where in zip(CONDITIONS, drops):
    cond = cond.without(name, where=where)
  return cond


def draw_known(
  key: jax.Array, shape: tuple[int, int], *, rate: float
) -> jax.Array:
  """Draws which steps of each example are given for infilling.

  Args:
    key: random key.
    shape: (b, t).
    rate: share of the examples, in [0, 1], of which all is given but a hole of
      10 to 90 % of the length, at the end, the start or anywhere (equally
      likely). Nothing is given of the others.

  Returns:
    bool [b t].
  """
  b, t = shape
  keys = jax.random.split(key, 4)
  uniform = jax.random.uniform
  length = 0.1 + 0.8 * rows.draw(uniform, keys[0], (b,))
  kind = (3 * rows.draw(uniform, keys[1], (b,))).astype(jnp.int32)
  anywhere = rows.draw(uniform, keys[2], (b,))
  start = jnp.select([kind == 0, kind == 1], [1.0, 0.0], anywhere)
  start = (start * (1 - length))[:, None]
  place = (jnp.arange(t) + 0.5) / t
  hole = (place >= start) & (place < start + length[:, None])
  return ~hole & (rows.draw(uniform, keys[3], (b, 1)) < rate)


def with_alignment(loss, metrics, tokens, *, shown, known, weight: float):
  """Adds the aligner's error for words whose times are known.

  Args:
    loss: [b].
    metrics: metrics of [b] each.
    tokens: encoded conditions, with the predicted `spans`.
    shown: conditions that the model was given, some dropped.
    known: all conditions.
    weight: weight of an example's mean error in seconds; 0 for a model without
      an aligner.

  Returns:
    (loss, metrics), the latter with `alignment_error` of the times in seconds,
    scaled so that the batch's mean is that of the examples with known times.
  """
  if not weight:
    return loss, metrics
  mask = shown.transcript_mask & known.transcript_timed[:, None]
  times, durations = tokens.spans
  error = masked_mean(jnp.abs(times - known.transcript_times), mask)
  wrong = masked_mean(jnp.abs(durations - known.transcript_durations), mask)
  known, b = rows.total(mask.any(axis=1).sum()), rows.total(len(error))
  share = jnp.maximum(known, 1) / b
  loss = loss + weight * (error + wrong)
  return loss, metrics | {"alignment_error": error / share}


def masked_mean(x, mask):
  """Averages x [b t ...] over all but the first axis where mask [b t] holds."""
  weight = mask.reshape(*mask.shape, *(1,) * (x.ndim - 2)).astype(x.dtype)
  axes = tuple(range(1, x.ndim))
  total = (weight * x).sum(axis=axes)
  count = jnp.broadcast_to(weight, x.shape).sum(axis=axes)
  return total / jnp.maximum(count, 1.0)
