"""The compiled programs of a run, built in one place.

`train` runs them; whoever wants to know what will be run (a plan, a test)
builds the same ones here, over devices that need not exist.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from v2a_jax.parallel import rows, sharding
from v2a_jax.parallel.mesh import ParallelConfig
from v2a_jax.training.optimizer import make_optimizer
from v2a_jax.training.run import Trainable
from v2a_jax.training.state import (
  TrainState,
  abstract_model,
  first_state,
  make_init,
)
from v2a_jax.training.step import make_eval_step, make_train_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
  """The jitted functions of a run, and how their arguments are laid out.

  Attributes:
    init: `init() -> state`, not compiled; see `sharding.init_sharded`.
    state: shapes of the train state.
    shardings: layout of each leaf of the state.
    rows: how a step is divided by rows of the batch.
    step: `step(state, frozen, batch, spent=None) -> (state, metrics)`; donates
      the state; see `make_train_step`.
    evaluate: `evaluate(params, buffers, frozen, batch, index) -> metrics`, a
      float32 array [b] by name.
  """

  init: Callable[[], TrainState]
  state: TrainState
  shardings: Any
  rows: rows.Rows
  step: Callable[..., tuple[TrainState, Any]]
  evaluate: Callable[..., dict[str, jax.Array]]


def make_program(
  experiment: Trainable, mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh
) -> Program:
  """Builds the programs of an experiment on a mesh; compiles nothing."""
  run = experiment.run
  optimizer = make_optimizer(experiment.optimizer, run.num_train_steps)
  kept = {"ema": run.ema_decay > 0, "averages": run.posthoc_averages}
  init = make_init(experiment.make_model, optimizer, seed=run.seed, **kept)
  graphdef, *variables = abstract_model(experiment.make_model)
  first = functools.partial(first_state, optimizer=optimizer, **kept)
  state = jax.eval_shape(first, *variables)
  shardings, opt_layouts = _layouts(state, mesh, experiment.parallel)
  divided = rows.Rows(
    mesh=mesh,
    params=shardings.params,
    grads=sharding.state_shardings(
      state.params, mesh, zero1=experiment.parallel.zero1
    ),
    buffers=shardings.buffers,
    reduce_dtype=experiment.parallel.reduce_dtype,
  )
  common = dict(
    target=experiment.target,
    seed=run.seed,
    compute_dtype=run.compute_dtype or None,
  )
  step = make_train_step(
    graphdef,
    experiment.objective,
    experiment.optimizer,
    run.num_train_steps,
    ema_decay=run.ema_decay,
    accumulate=run.accumulate,
    rows=divided,
    opt_layouts=opt_layouts,
    **common,
  )
  evaluate = make_eval_step(graphdef, experiment.objective, **common)
  replicated = NamedSharding(mesh, PartitionSpec())
  return Program(
    init=init,
    state=state,
    shardings=shardings,
    rows=divided,
    step=jax.jit(step, donate_argnums=0, out_shardings=(shardings, replicated)),
    evaluate=jax.jit(evaluate, out_shardings=replicated),
  )


def _layouts(
  state: TrainState, mesh: jax.sharding.Mesh, parallel: ParallelConfig
) -> tuple[TrainState, Any]:
  """Returns the layout of each leaf of a train state.

  Returns:
    (layouts, those of the optimizer state while it is used if it rests
    elsewhere, else None).
  """
  layouts = sharding.state_shardings(state, mesh)
  if parallel.zero1:
    split = lambda tree: sharding.state_shardings(tree, mesh, zero1=True)
    layouts = layouts.replace(
      opt_state=split(state.opt_state),
      ema=split(state.ema),
      averages=split(state.averages),
    )
  if not parallel.offload_optimizer:
    return layouts, None
  on_host = lambda layout: layout.with_memory_kind("pinned_host")
  in_use = layouts.opt_state
  return layouts.replace(opt_state=jax.tree.map(on_host, in_use)), in_use
