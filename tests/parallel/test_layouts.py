"""Layouts, read off the compiled step: what moves between devices, and what not."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest

from configs import ar_latents_tiny, ar_tiny, diffusion_tiny
from v2a_jax.experiment import plan, sections
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.parallel import collectives
from v2a_jax.parallel import mesh as mesh_lib

# No size of these models is a multiple of 7, so a dimension that is one belongs
# to the batch.
BATCH = 56
SMALL = {
  "data": dict(batch_size=BATCH, seconds=1.0, fps=4.0, frame_size=16),
  "model": dict(width=32, num_heads=2, mlp_dim=48, unroll=1, depth=2),
}


def experiment(module, **mesh):
  config = sections.complete(module.get_config())
  config["data"].update(SMALL["data"])
  config["mesh"] = mesh
  config["model"].update(SMALL["model"])
  config["model"]["conditioner"].update(spatial_width=16)
  return Experiment.from_config(config)


def compiled_step(exp):
  """The step that `train` runs, compiled for the mesh: nothing is allocated."""
  return plan.lower_step(exp, mesh_lib.make_mesh(exp.mesh))[1].compile()


def sent(moved, kind):
  return sum(c.bytes * c.times for c in moved if c.kind == kind)


@pytest.mark.parametrize("module", [diffusion_tiny, ar_tiny, ar_latents_tiny])
def test_under_fsdp_only_weights_and_gradients_are_moved(module):
  exp = experiment(module, data=2, fsdp=4)
  moved = collectives.read(compiled_step(exp).as_text())
  assert {c.kind for c in moved} >= {"all-gather", "all-reduce"}
  batches = [c for c in moved if any(n % 7 == 0 for n in c.shape)]
  assert batches == []
  # Two gathers of each weight and one reduction of each gradient; the text
  # encoder runs twice, on prompt and transcript: so do its gradients.
  weights = sum(x.size * 4 for x in jax.tree.leaves(exp.abstract[1]))
  assert sent(moved, "all-gather") <= 2 * weights
  assert sent(moved, "all-reduce") <= 1.45 * weights


def test_data_parallelism_reduces_gradients_and_moves_nothing_else():
  exp = experiment(diffusion_tiny, data=8)
  moved = collectives.read(compiled_step(exp).as_text())
  assert {c.kind for c in moved} == {"all-reduce"}
  assert not [c for c in moved if any(n % 7 == 0 for n in c.shape)]
  # The text encoder runs twice, on prompt and transcript: so do its gradients.
  weights = sum(x.size * 4 for x in jax.tree.leaves(exp.abstract[1]))
  assert weights <= sent(moved, "all-reduce") <= 1.25 * weights


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
