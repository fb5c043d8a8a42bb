"""Layouts that are chosen by the memory of a device."""

import pytest

from configs import diffusion
from v2a_jax.experiment import parallelism
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.experiment.sections import ConfigError

GIB = 2**30


def settle(size, devices, *, gib, **mesh):
  config = diffusion.get_config(size)
  config.mesh, config.parallel = mesh, dict(mode="auto")
  capacity = None if gib is None else gib * GIB
  exp = Experiment.from_config(config)
  found, why = parallelism.settle(exp, devices, capacity=capacity)
  shape = (found.mesh.data, found.mesh.fsdp, found.parallel.zero1)
  return shape, why


@pytest.mark.parametrize(
  "size, devices, gib, shape",
  [
    ("small", 8, 95, (8, 1, False)),
    # 5 B parameters: 100 GB of state and gradients where nothing is split.
    ("xl", 64, 95, (64, 1, True)),
    # Twice as much as fits, but nothing needs less.
    ("large", 16, 16, (1, 16, False)),
  ],
)
def test_the_layout_that_sends_least_of_those_that_fit(
  size, devices, gib, shape
):
  found, why = settle(size, devices, gib=gib)
  assert found == shape
  assert why.startswith("parallel.mode=auto: data ")
  assert ("no other layout takes less" in why) == (gib == 16)


def test_without_a_known_memory_all_devices_hold_everything():
  found, why = settle("small", 8, gib=None)
  assert found == (8, 1, False)
  assert "not known" in why


def test_other_axes_stay_as_the_config_says():
  found, _ = settle("small", 14, gib=None, tensor=7)
  assert found == (2, 1, False)


def test_a_mesh_in_the_config_is_taken_as_it_is():
  config = diffusion.get_config("small")
  config.parallel = dict(mode="mesh")
  exp = Experiment.from_config(config)
  assert parallelism.settle(exp, 8, capacity=GIB) == (exp, "")


def test_a_tensor_axis_that_cuts_heads_is_refused():
  with pytest.raises(
    ConfigError, match=r"tensor=2 .*num_heads=7: use one of \[1, 7\]"
  ):
    settle("small", 8, gib=95, tensor=2)
