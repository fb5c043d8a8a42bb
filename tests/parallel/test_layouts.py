"""Layouts, read off the compiled step: what moves between devices, and what not."""

import jax
import pytest

from configs import ar_latents_tiny, ar_tiny, diffusion_tiny
from v2a_jax.experiment import sections
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.parallel import collectives, sharding
from v2a_jax.parallel import mesh as mesh_lib
from v2a_jax.training.program import make_program

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
  mesh = mesh_lib.make_mesh(exp.mesh)
  placed = lambda tree, layout: jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout), tree
  )
  with jax.set_mesh(mesh):
    program = make_program(exp, mesh)
    state = jax.tree.map(
      lambda x, layout: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout),
      program.state,
      program.shardings,
    )
    frozen = placed(exp.abstract_frozen, sharding.replicated(mesh))
    batch = placed(exp.blank_batch(BATCH), sharding.batch_sharding(mesh))
    return program.step.lower(state, frozen, batch).compile()


@pytest.mark.parametrize("module", [diffusion_tiny, ar_tiny, ar_latents_tiny])
def test_under_fsdp_only_weights_and_gradients_are_moved(module):
  exp = experiment(module, data=2, fsdp=4)
  moved = collectives.read(compiled_step(exp).as_text())
  assert {c.kind for c in moved} >= {"all-gather", "all-reduce"}
  batches = [c for c in moved if any(n % 7 == 0 for n in c.shape)]
  assert batches == []
  # Two gathers of each weight and one reduction of each gradient, at most.
  weights = sum(x.size * 4 for x in jax.tree.leaves(exp.abstract[1]))
  assert sum(c.bytes for c in moved) <= 3.3 * weights


def test_data_parallelism_reduces_gradients_and_moves_nothing_else():
  exp = experiment(diffusion_tiny, data=8)
  moved = collectives.read(compiled_step(exp).as_text())
  assert {c.kind for c in moved} == {"all-reduce"}
  assert not [c for c in moved if any(n % 7 == 0 for n in c.shape)]
  # The text encoder runs twice, on prompt and transcript: so do its gradients.
  weights = sum(x.size * 4 for x in jax.tree.leaves(exp.abstract[1]))
  assert sum(c.bytes for c in moved) <= 1.25 * weights


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
