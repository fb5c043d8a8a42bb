"""Programs of a run under settings that must change nothing but its memory."""

import jax
import numpy as np
import pytest
from toy_training import BATCH, experiment, rows_of

from v2a_jax.parallel import collectives, sharding
from v2a_jax.parallel import mesh as mesh_lib
from v2a_jax.parallel.mesh import MeshConfig, ParallelConfig
from v2a_jax.training.optimizer import OptimizerConfig
from v2a_jax.training.program import make_program


def trained(**settings):
  """The state after three steps on 8 devices, 2 by 4."""
  exp = experiment(mesh=MeshConfig(data=2, fsdp=4), **settings)
  mesh = mesh_lib.make_mesh(exp.mesh)
  with jax.set_mesh(mesh):
    program = make_program(exp, mesh)
    state, _ = sharding.init_sharded(program.init, mesh, program.shardings)
    for step in range(3):
      rows = rows_of(np.arange(BATCH) + step * BATCH)
      state, _ = program.step(state, (), sharding.shard_batch(rows, mesh))
  return state


@pytest.fixture(scope="module")
def plain():
  return trained()


def test_sums_over_data_wait_for_the_last_microbatch():
  """Two microbatches send what one batch does."""
  exp = experiment(mesh=MeshConfig(data=8), accumulate=2)
  mesh = mesh_lib.make_mesh(exp.mesh)
  with jax.set_mesh(mesh):
    program = make_program(exp, mesh)
    state, _ = sharding.init_sharded(program.init, mesh, program.shardings)
    rows = sharding.shard_batch(rows_of(np.arange(BATCH)), mesh)
    compiled = program.step.lower(state, (), rows).compile()
  moved = sum(c.moved for c in collectives.read(compiled.as_text()))
  weights = program.rows.bytes_sent(program.state.params)
  # Beside gradients, the two means of the metrics.
  np.testing.assert_allclose(moved, weights + 2 * 2 * 7 / 8 * 4, atol=1)


def assert_close(a, b, **tolerance):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def test_an_optimizer_state_on_the_host_changes_nothing(plain):
  state = trained(parallel=ParallelConfig(offload_optimizer=True))
  kinds = {x.sharding.memory_kind for x in jax.tree.leaves(state.opt_state)}
  assert kinds == {"pinned_host"}
  assert_close(state.params, plain.params, rtol=0)


def test_zero1_holds_a_part_of_the_moments(plain):
  state = trained(parallel=ParallelConfig(zero1=True))
  held = lambda tree: sum(
    x.addressable_shards[0].data.size for x in jax.tree.leaves(tree)
  )
  assert held(state.opt_state) < 0.8 * held(plain.opt_state)
  assert held(state.params) == held(plain.params)
  assert_close(state.params, plain.params, rtol=1e-5, atol=1e-6)


def test_sums_in_bfloat16_are_rounded(plain):
  state = trained(parallel=ParallelConfig(reduce_dtype="bfloat16"))
  assert_close(state.params, plain.params, atol=1e-2)
  with pytest.raises(AssertionError):
    assert_close(state.params, plain.params, rtol=1e-6)


def test_the_first_moment_may_be_bfloat16():
  exp = experiment(optimizer=OptimizerConfig(momentum_dtype="bfloat16"))
  mesh = mesh_lib.make_mesh(exp.mesh)
  state = make_program(exp, mesh).state
  dtypes = [str(x.dtype) for x in jax.tree.leaves(state.opt_state) if x.ndim]
  assert dtypes.count("bfloat16") == dtypes.count("float32") > 0
