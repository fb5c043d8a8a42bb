"""One update of the parameters, as a pure function.

For a batch of b examples in m microbatches, with per-example losses l_i,

  L = (1 / b) sum_i l_i,    g = dL / d params,    key = fold_in(seed, step)

Microbatch j holds the rows j, j + m, j + 2 m, ... (so that each device keeps
its own rows) and draws from fold_in(key, j). Where L or g is not finite,
nothing but `step` and the skip counters changes. The average of the weights
follows with the decay min(ema_decay, (1 + step) / (10 + step)), so that short
runs do not remember their initial weights.
"""

from collections.abc import Callable
import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import optax

from v2a_jax.objectives.base import Objective
from v2a_jax.parallel import rows as rows_lib
from v2a_jax.parallel.sharding import constrain
from v2a_jax.training import posthoc
from v2a_jax.training.optimizer import (
  OptimizerConfig,
  make_optimizer,
  make_schedule,
)
from v2a_jax.training.state import TrainState

Target = Callable[[Any, Any], Any]
Metrics = dict[str, jax.Array]


def make_train_step(
  graphdef: nnx.GraphDef,
  objective: Objective,
  optimizer: OptimizerConfig,
  num_train_steps: int,
  *,
  target: Target | None = None,
  seed: int = 0,
  ema_decay: float = 0.999,
  accumulate: int = 1,
  compute_dtype: str | None = None,
  rows: rows_lib.Rows | None = None,
  opt_layouts: Any = None,
) -> Callable[..., tuple[TrainState, Metrics]]:
  """Returns `step(state, frozen, batch, spent=None)`, for `jax.jit`.

  Args:
    graphdef: structure of the model, split into (params, buffers).
    objective: computes losses [b] and metrics [b].
    optimizer: settings of the update; the norm logged is before clipping.
    num_train_steps: number of steps that the run has at most.
    target: fills in what is learned, `target(frozen, batch) -> batch`.
    seed: random seed of everything drawn in training.
    ema_decay: 0 when the state holds no average.
    accumulate: microbatches; their gradients are added in float32.
    compute_dtype: `bfloat16` gives the model parameters of that type; the
      state's stay float32.
    rows: how the step is divided by rows of the batch; None where it is not.
    opt_layouts: layouts on the devices of an optimizer state that rests in the
      host's memory; None where it does not.

  Returns:
    The step, which gives (state, metrics). `spent` is the share of the run's
    time limit that is over (see `make_schedule`). The metrics are float32
    scalars: the objective's means, `loss`, `grad_norm`, `learning_rate`,
    `skipped`, `skipped_in_row`.
  """

  def loss_fn(params, buffers, frozen, batch, key):
    if target is not None:
      batch = target(frozen, batch)
    params, buffers = rows_lib.whole((params, buffers))
    model = nnx.merge(graphdef, cast_floats(params, compute_dtype), buffers)
    losses, metrics = objective.loss(model, batch, key=key, train=True)
    metrics = {**metrics, "loss": losses}
    metrics = {k: v.astype(jnp.float32).mean() for k, v in metrics.items()}
    return metrics["loss"], metrics

  value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)

  def gradient(params, buffers, frozen, batch, key):
    def microstep(batch, index):
      (_, metrics), grads = value_and_grad(
          params, buffers, frozen, batch, jax.random.fold_in(key, index)
      )  # fmt: skip
      return grads, metrics

    return _accumulate(microstep, batch, accumulate)

  if rows is not None:
    gradient = rows.gradient(gradient)

  def step(state, frozen, batch, spent=None):
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    grads, metrics = gradient(state.params, state.buffers, frozen, batch, key)
    grad_norm = optax.global_norm(grads)
    if opt_layouts is not None:
      opt_state = jax.device_put(state.opt_state, opt_layouts)
      state = state.replace(opt_state=opt_state)
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(grad_norm)
    horizon = (optimizer, num_train_steps, spent)
    rate = make_schedule(*horizon)(state.step)
    state = _update(state, grads, make_optimizer(*horizon), ema_decay, finite)
    metrics |= {
      "grad_norm": grad_norm,
      "learning_rate": rate,
      "skipped": state.skipped,
      "skipped_in_row": state.skipped_in_row,
    }
    return state, {k: v.astype(jnp.float32) for k, v in metrics.items()}

  return step


def make_eval_step(
  graphdef: nnx.GraphDef,
  objective: Objective,
  *,
  target: Target | None = None,
  seed: int = 0,
  compute_dtype: str | None = None,
) -> Callable[[Any, Any, Any, Any, Any], Metrics]:
  """Returns `evaluate(params, buffers, frozen, batch, index) -> metrics`.

  `params` may be the moving average. `index` numbers the batches and picks the
  key, so two evaluations of one set draw the same noise. Each metric is [b].
  """

  def evaluate(params, buffers, frozen, batch, index):
    if target is not None:
      batch = target(frozen, batch)
    model = nnx.merge(graphdef, cast_floats(params, compute_dtype), buffers)
    key = jax.random.fold_in(jax.random.key(seed), index)
    metrics = objective.evaluate(model, batch, key=key)
    return {k: v.astype(jnp.float32) for k, v in metrics.items()}

  return evaluate


def cast_floats(tree: Any, dtype: str | None) -> Any:
  """Casts the floating leaves to `dtype`; None leaves them as they are."""
  if dtype is None:
    return tree
  cast = lambda x: x.astype(dtype) if jnp.issubdtype(x, jnp.floating) else x
  return jax.tree.map(cast, tree)


def _accumulate(microstep, batch, accumulate: int):
  """Returns the mean of `microstep(microbatch, index)` over microbatches."""
  if accumulate == 1:
    return microstep(batch, 0)
  batches = jax.tree.map(functools.partial(_split, parts=accumulate), batch)
  first = jax.tree.map(lambda x: x[0], batches)
  zeros = jax.tree.map(
    lambda x: jnp.zeros(x.shape, jnp.float32),
    jax.eval_shape(microstep, first, 0),
  )

  def add(total, scanned):
    return jax.tree.map(jnp.add, total, microstep(*scanned)), None

  total, _ = jax.lax.scan(add, zeros, (batches, jnp.arange(accumulate)))
  return jax.tree.map(lambda x: x / accumulate, total)


def _split(x: jax.Array, *, parts: int) -> jax.Array:
  """Reshapes [b, ...] to [parts, b / parts, ...], without communication."""
  if x.shape[0] % parts:
    raise ValueError(
      f"batch_size {x.shape[0]} is not a multiple of accumulate={parts}"
    )
  x = x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)
  return constrain(x, None, "batch", *(None,) * (x.ndim - 2))


def _update(state, grads, optimizer, ema_decay, finite) -> TrainState:
  """Applies the gradients, or, where not `finite`, only counts."""
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  ema = state.ema
  if ema is not None:
    step = state.step.astype(jnp.float32)
    decay = jnp.minimum(ema_decay, (1 + step) / (10 + step))
    ema = optax.incremental_update(params, ema, 1 - decay)
  averages = state.averages
  if averages:
    averages = posthoc.update(averages, params, state.step + 1)
  old = (state.params, state.opt_state, state.ema, state.averages)
  params, opt_state, ema, averages = jax.tree.map(
    lambda new, old: jnp.where(finite, new, old),
    (params, opt_state, ema, averages),
    old,
  )
  missed = (~finite).astype(jnp.int32)
  return state.replace(
    step=state.step + 1,
    params=params,
    opt_state=opt_state,
    ema=ema,
    averages=averages,
    skipped=state.skipped + missed,
    skipped_in_row=(state.skipped_in_row + 1) * missed,
  )
