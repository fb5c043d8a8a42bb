"""Layouts of the diffusion arm, read off the compiled step, and its losses."""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest

from tests.parallel import modes
from v2a_jax.models import dit
from v2a_jax.parallel import collectives, sharding
from v2a_jax.parallel import mesh as mesh_lib


@functools.cache
def step(**settings):
  return modes.Step.of("diffusion", **settings)


@pytest.fixture(scope="module")
def alone():
  return step(data=1).losses()


def kinds(moved):
  return {c.kind for c in moved}


def test_data_parallelism_sums_each_gradient_once(alone):
  found = step(data=8)
  assert kinds(found.moved) == {"all-reduce"} and not found.of_batch()
  np.testing.assert_allclose(found.sent(), found.closed_form(), rtol=0.01)
  np.testing.assert_allclose(found.losses(), alone, rtol=1e-5)


def test_zero1_sends_as_much_and_holds_a_part_of_the_moments(alone):
  found = step(data=8, zero1=True)
  assert not found.of_batch()
  assert found.sent() <= 1.05 * found.closed_form()
  layouts, state = found.program.shardings, found.program.state
  held = lambda part: sum(
    np.prod(layout.shard_shape(leaf.shape))
    for leaf, layout in zip(
      jax.tree.leaves(getattr(state, part)),
      jax.tree.leaves(getattr(layouts, part)),
    )
  )
  weights = held("params")
  assert held("opt_state") < 2 * weights / 6 and held("ema") < weights / 6
  np.testing.assert_allclose(found.losses(), alone, rtol=1e-5)


def test_fsdp_gathers_weights_twice_and_sums_gradients_once(alone, capfd):
  found = step(data=2, fsdp=4)
  assert not found.of_batch()
  assert kinds(found.moved) == {"all-gather", "reduce-scatter", "all-reduce"}
  planned = found.program.rows.bytes_sent(found.program.state.params)
  np.testing.assert_allclose(planned, found.closed_form())
  # Loops of one block are undone, and their second gather with them.
  assert 0.7 <= found.sent() / found.closed_form() <= 1.05
  assert "full rematerialization" not in capfd.readouterr().err
  np.testing.assert_allclose(found.losses(), alone, rtol=1e-5)


def test_a_tensor_axis_moves_sums_of_activations_and_the_vocabulary(alone):
  found = step(data=2, tensor=2)
  (table,) = [c for c in found.moved if c.kind != "all-reduce"]
  assert (table.kind, table.shape) == ("all-gather", (1024, 32))
  np.testing.assert_allclose(found.losses(), alone, rtol=1e-5)


def test_a_context_axis_splits_tokens_along_time(alone, capfd):
  found = step(data=2, context=2)
  np.testing.assert_allclose(found.losses(), alone, rtol=1e-5)
  assert "full rematerialization" not in capfd.readouterr().err


def test_a_block_sums_twice_in_each_direction_over_tensor():
  """After attention and after the feed-forward layer, and backward before."""
  config = dit.DiTConfig(
    **dict(width=32, num_heads=2, mlp_dim=48, joint_depth=0, depth=1),
    channels=4,
  )
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(data=4, tensor=2))
  block = lambda: dit.AudioBlock(config, rngs=nnx.Rngs(0), dtype=None)
  graphdef, params = nnx.split(nnx.eval_shape(block))
  layouts = sharding.state_shardings(params, mesh)
  placed = lambda x, layout: jax.ShapeDtypeStruct(
    x.shape, x.dtype, sharding=layout
  )
  tokens, times, mask = (
    placed(jax.ShapeDtypeStruct(*x), sharding.batch_sharding(mesh))
    for x in (((56, 8, 32), "f4"), ((56, 8), "f4"), ((56, 8), "bool"))
  )

  def loss(params, x, condition):
    x = nnx.merge(graphdef, params)(x, times_, mask_, condition)
    return jnp.square(sharding.by_token(x)).mean()

  times_, mask_ = jnp.ones(times.shape), jnp.ones(mask.shape, bool)
  with jax.set_mesh(mesh):
    gradient = jax.jit(jax.grad(loss, argnums=1))
    text = gradient.lower(
      jax.tree.map(placed, params, layouts), tokens, tokens
    ).compile()
  moved = collectives.read(text.as_text())
  assert kinds(moved) == {"all-reduce"}
  assert sum(c.times for c in moved) == 4
  assert {c.group for c in moved} == {2}


def test_collectives_are_read_with_their_shapes():
  text = """
  %a = f32[8,128]{1,0} all-gather(%x), channel_id=1, dimensions={0}
  %b = (bf16[4]{0}, /*index=5*/s32[2,3]{1,0}) all-reduce(%y, %z), to_apply=%add
  %c = f32[7]{0} add(%p, %q), metadata={op_name="all-reduce(fake)"}
  """
  found = collectives.read(text)
  assert [(c.kind, c.dtype, c.shape, c.bytes) for c in found] == [
    ("all-gather", "f32", (8, 128), 4096),
    ("all-reduce", "bf16", (4,), 8),
    ("all-reduce", "s32", (2, 3), 24),
  ]


def test_a_collective_in_a_loop_counts_as_often_as_the_loop_runs():
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(data=2, fsdp=4))
  weights = jax.ShapeDtypeStruct(
    (5, 64, 64),
    jnp.float32,
    sharding=NamedSharding(mesh, P(None, "fsdp", None)),
  )
  x = jax.ShapeDtypeStruct(
    (8, 64), jnp.float32, sharding=NamedSharding(mesh, P("data"))
  )

  def apply(x, weights):
    whole = lambda w: jax.lax.with_sharding_constraint(w, P(None, None))
    return jax.lax.scan(lambda x, w: (x @ whole(w), None), x, weights)[0]

  with jax.set_mesh(mesh):
    (gather,) = collectives.read(
      jax.jit(apply).lower(x, weights).compile().as_text()
    )
  assert (gather.kind, gather.group, gather.times) == ("all-gather", 4, 5)
  # Each of 4 devices sends its quarter to the 3 others, in each of 5 layers.
  np.testing.assert_allclose(gather.moved, 5 * 3 * 64 * 64 * 4 / 4)


def test_the_collectives_of_a_tpu_program_are_read():
  """Loops without a known trip count, and one collective on three lines."""
  text = """
%limit.1 (p: (s32[], f32[8])) -> pred[] {
  %constant.1 = s32[]{:T(128)} constant(7)
  ROOT %lt = pred[] compare(%i, %constant.1), direction=LT
}

%begin (p: f32[2]) -> f32[8] {
  %g.1 = f32[8] all-gather(%p), channel_id=3, replica_groups=mesh['a'=2,'b'=4] {'b'}, frontend_attributes={chain_id="5"}
}

%end (p: f32[2]) -> f32[8] {
  %g.2 = f32[8] all-gather(%p), channel_id=3, replica_groups=mesh['a'=2,'b'=4] {'b'}, frontend_attributes={chain_id="5"}
}

%all-reduce-scatter.1 (p: f32[16]) -> f32[4] {
  %r = f32[16] all-reduce(%p), channel_id=1, replica_groups=[2,4]<=[8], to_apply=%add
}

%body.1 (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %a = f32[8] fusion(%p), kind=kCustom, calls=%begin
  %b = f32[8] fusion(%p), kind=kCustom, calls=%end
  %c = f32[4] fusion(%p), kind=kCustom, calls=%all-reduce-scatter.1
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %w = (s32[], f32[8]) while(%t), condition=%limit.1, body=%body.1
}
"""
  gather, scatter = collectives.read(text)
  assert (gather.kind, gather.group, gather.times) == ("all-gather", 4, 7)
  assert gather.moved == 7 * 0.75 * 32
  assert (scatter.kind, scatter.group) == ("all-reduce-scatter", 4)
  assert scatter.moved == 7 * 0.75 * 64


BESIDE_A_KERNEL = """
ENTRY %main (p: f32[8]) -> f32[8] {
  %k = f32[8] custom-call(%p), frontend_attributes={kernel_metadata={
"xprof_metadata":"{}"
}}, metadata={op_name="attend"}
  ROOT %r = f32[8] all-reduce(%k), replica_groups=[1,4]<=[4], to_apply=%add
}
"""


def test_collectives_after_a_pallas_kernel_are_read():
  """Its metadata has lines of its own, and they do not end the computation."""
  assert [c.kind for c in collectives.read(BESIDE_A_KERNEL)] == ["all-reduce"]
