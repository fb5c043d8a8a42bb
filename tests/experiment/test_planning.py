"""A plan: the compiled step of a run, on devices that are not used."""

import contextlib
import dataclasses
import itertools

import jax
import numpy as np
import pytest

from tests.parallel import modes
from v2a_jax.experiment import cost, plan, roofline
from v2a_jax.experiment.sections import ConfigError
from v2a_jax.parallel import mesh as mesh_lib
from v2a_jax.parallel.topology import Chip
from v2a_jax.training import loop

PEAK = 1e12
CHIP = Chip(2**34, 1e11, 1e10, 1e8, "4x4")


@pytest.fixture(scope="module")
def exp():
  return modes.experiment("diffusion", data=2, fsdp=4)


@pytest.fixture(scope="module")
def found(exp):
  return plan.plan_step(exp, mesh_lib.make_mesh(exp.mesh), CHIP, peak=PEAK)


@pytest.fixture(scope="module")
def lowered(exp):
  """(the programs of the run, its step lowered)."""
  return plan.lower_step(exp, mesh_lib.make_mesh(exp.mesh))


def test_state_is_that_of_a_real_run(exp, found):
  """FSDP over 4 splits all but small leaves; both moments are kept."""
  memory = found["memory"]
  weights = sum(x.size * 4 for x in jax.tree.leaves(exp.abstract[1]))
  assert weights / 4 <= memory["parameters"] < weights / 3
  np.testing.assert_allclose(
    memory["optimizer"], 2 * memory["parameters"], atol=64
  )
  assert memory["average"] == memory["parameters"]
  rows = exp.batch_size // 8
  assert memory["batch"] == cost.tree_bytes(exp.blank_batch(rows))
  # The state, the batch and the codec, whose decoder is no argument.
  kinds = ("parameters", "average", "optimizer", "buffers", "frozen", "batch")
  rest = sum(memory[k] for k in ("temporaries", "results", "program"))
  state = sum(memory[kind] for kind in kinds)
  np.testing.assert_allclose(memory["together"] - rest, state, rtol=0.02)


class Fed:
  """An experiment that reads one batch of noise again and again."""

  def __init__(self, exp):
    self._exp = exp
    self.run = dataclasses.replace(exp.run, wandb_mode="disabled")

  def __getattr__(self, name):
    return getattr(self._exp, name)

  def open_loader(self, split, *, step, index, count):
    return itertools.repeat(modes.noise(self._exp, seed=0))


def test_the_planned_program_is_the_one_that_training_runs(
  exp, lowered, tmp_path
):
  """The same operations, shapes and layouts, down to the text."""
  with contextlib.ExitStack() as stack:
    run = loop.Run(Fed(exp), tmp_path, stack)
    given = run.state, run.frozen, run.next_batch()
    trained = run.program.step.lower(*given)
  _, planned = lowered
  assert "sharding" in planned.as_text()
  assert trained.as_text() == planned.as_text()


def test_the_slowest_resource_bounds_the_step(exp, found):
  assert found["fits"]
  bounds = found["bounds"]
  assert found["step_seconds"] == max(bounds.values())
  assert bounds["links"] == found["moved"] / CHIP.link_rate
  flops = exp.batch_size / 8 * cost.flops_of_clip(exp)[0]
  assert found["flops"] == flops
  np.testing.assert_allclose(
    found["mfu"], flops / (found["step_seconds"] * PEAK)
  )
  assert found["mfu"] <= 1
  assert found["clips_a_day"] * found["step_seconds"] == pytest.approx(
    86_400 * exp.batch_size
  )


def test_the_batch_from_which_computing_takes_longer(exp, found):
  """What is sent does not depend on the batch, what is computed does."""
  bounds = found["bounds"]
  compute = bounds["compute"] * found["least_batch"] / exp.batch_size
  assert compute == pytest.approx(bounds["links"], rel=1 / found["least_batch"])


def test_slices_exchange_each_gradient_once(exp, lowered):
  mesh = mesh_lib.make_mesh(exp.mesh)
  program, _ = lowered
  weights = sum(x.size * 4 for x in jax.tree.leaves(program.state.params))
  # Of two slices of four devices, each holds a quarter of the sums of its
  # slice, sends half of that, and later the half that it has finished.
  sent = roofline.sent_between_slices(program, mesh, 2)
  assert sent == pytest.approx(weights / 4)


def test_rows_of_collectives_add_up(found):
  rows = found["collectives"]
  assert sum(row["moved"] for row in rows) == pytest.approx(found["moved"])
  moved = [row["moved"] for row in rows]
  assert moved == sorted(moved, reverse=True)
  assert {row["group"] for row in rows} <= {2, 4, 8}


def test_a_step_larger_than_the_memory_names_what_needs_less(exp):
  small = dataclasses.replace(CHIP, hbm_bytes=1000)
  mesh = mesh_lib.make_mesh(exp.mesh)
  found = plan.plan_step(exp, mesh, small, peak=PEAK)
  assert not found["fits"]
  assert found["remedies"] == [
    "--config.parallel.mode=mesh --config.mesh.data=1 --config.mesh.fsdp=8",
    "--config.model.remat=full",
  ]  # Not accumulation: a device has 7 clips.


def test_a_batch_that_does_not_divide_is_refused():
  exp = modes.experiment("diffusion", data=8)
  mesh = mesh_lib.make_mesh(exp.mesh)
  data = dataclasses.replace(exp.data, batch_size=12)
  with pytest.raises(ConfigError, match="use a multiple of 8"):
    plan.lower_step(dataclasses.replace(exp, data=data), mesh)


def test_the_plan_takes_the_state_as_a_run_makes_it(exp, lowered):
  """Both come from `training.program`: here the layouts of real arrays."""
  mesh = mesh_lib.make_mesh(exp.mesh)
  program, step = lowered
  with jax.set_mesh(mesh):
    state = jax.jit(program.init, out_shardings=program.shardings)()
    layout = lambda x: x.sharding
    planned = jax.tree.leaves(program.shardings)
    assert [layout(x) for x in jax.tree.leaves(state)] == planned
    inputs = jax.tree.leaves(step.compile().input_shardings)
  assert inputs[: len(planned)] == planned


def test_sampling_reads_the_weights_in_every_pass():
  exp = modes.experiment("diffusion")
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(), jax.devices()[:1])
  found = plan.plan_sampler(exp, mesh, CHIP, clips=2, peak=PEAK)
  assert found["fits"] and not found["collectives"]
  assert found["passes"] == exp.sampler.num_steps
  weights = found["memory"]["parameters"] + found["memory"]["buffers"]
  least = found["passes"] * weights / CHIP.hbm_rate
  assert least < found["bounds"]["memory"] < 3 * least
  assert found["step_seconds"] == max(found["bounds"].values())
