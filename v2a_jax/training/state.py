"""Everything that a training step changes, as one pytree."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import optax

from v2a_jax.training import posthoc
from v2a_jax.weights import names


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
  """The train state; its trees hold NNX variables with their axis names.

  Attributes:
    step: int32, updates done or skipped, which is also the data position.
    params: `nnx.Param` variables, float32.
    buffers: all other variables of the model; carried unchanged.
    opt_state: state of the optimizer.
    ema: exponential moving average of `params`, or None.
    averages: averages of `params` by name in `posthoc.LENGTHS`; () for none.
    skipped: int32, updates skipped since the start (see `training/step.py`).
    skipped_in_row: int32, how many of the last updates were skipped.
  """

  step: Any
  params: Any
  buffers: Any
  opt_state: Any
  ema: Any
  averages: Any = ()
  skipped: Any
  skipped_in_row: Any

  def replace(self, **changes) -> "TrainState":
    return dataclasses.replace(self, **changes)


def abstract_model(
  make_model: Callable[[nnx.Rngs], nnx.Module],
) -> tuple[Any, Any, Any]:
  """Returns (graphdef, params, buffers) of shapes; computes nothing."""
  # Not `nnx.eval_shape`: under a mesh it takes logical names for mesh axes.
  split = lambda: nnx.split(make_model(nnx.Rngs(0)), nnx.Param, ...)
  return jax.eval_shape(split)


def make_init(
  make_model: Callable[[nnx.Rngs], nnx.Module],
  optimizer: optax.GradientTransformation,
  *,
  seed: int,
  ema: bool,
  averages: bool = False,
) -> Callable[[], TrainState]:
  """Returns a function that makes the first state; see `init_sharded`."""

  def init() -> TrainState:
    model = make_model(nnx.Rngs(seed))
    _, params, buffers = nnx.split(model, nnx.Param, ...)
    return first_state(params, buffers, optimizer, ema=ema, averages=averages)

  return init


def first_state(
  params: Any,
  buffers: Any,
  optimizer: optax.GradientTransformation,
  *,
  ema: bool,
  averages: bool = False,
) -> TrainState:
  """Returns the state before the first step, of a model's initial variables."""
  zero = jnp.zeros((), jnp.int32)
  return TrainState(
    step=zero,
    params=params,
    buffers=buffers,
    opt_state=optimizer.init(params),
    ema=jax.tree.map(jnp.copy, params) if ema else None,
    averages=_copies(params) if averages else (),
    skipped=zero,
    skipped_in_row=zero,
  )


def start_from(state: TrainState, arrays: Mapping) -> TrainState:
  """Replaces the weights of a fresh state, those of its average included.

  Args:
    state: the state before the first step.
    arrays: host arrays of parameters and buffers by name; weights that are not
      among them stay as they were initialised.
  """

  put = lambda array, leaf: jax.device_put(array, leaf.sharding)
  params = names.fill(state.params, arrays, put)
  return state.replace(
    params=params,
    buffers=names.fill(state.buffers, arrays, put),
    ema=None if state.ema is None else jax.tree.map(jnp.copy, params),
    averages=_copies(params) if state.averages else (),
  )


def _copies(params: Any) -> dict[str, Any]:
  return {name: jax.tree.map(jnp.copy, params) for name in posthoc.LENGTHS}
