"""Sums of which each device keeps a part, made in stages."""

import jax
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest

from tests import for_tpus
from tests.launch.commands import python
from v2a_jax.parallel import scatter


@pytest.mark.parametrize("devices, slices", [(8, 1), (8, 2), (4, 1), (2, 2)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_each_device_keeps_its_part_of_the_sum(devices, slices, axis):
  mesh = jax.make_mesh(
    (devices, 8 // devices),
    ("data", "fsdp"),
    axis_types=(jax.sharding.AxisType.Auto,) * 2,
  )
  x = np.random.default_rng(axis).normal(size=(devices, 16, 24, 8))
  x = x.astype(np.float32)
  kept = [None, None, None]
  kept[axis] = "data"
  run = jax.shard_map(
    lambda own: scatter.in_stages(own[0], "data", axis, slices=slices),
    mesh=mesh,
    in_specs=P("data"),
    out_specs=P(*kept),
    check_vma=False,
  )
  np.testing.assert_allclose(
    jax.jit(run)(x), x.astype(np.float64).sum(0), rtol=1e-5, atol=1e-5
  )


@for_tpus.needed
def test_chips_send_what_arithmetic_says():
  """Compiled for a slice of TPUs; one sum over all of it sends twice as much."""
  run = python("""
from benchmarks import tpu_sums
from v2a_jax.parallel import topology
import jax, numpy as np
devices = topology.describe_devices(topology.parse("v5e:4x4"))
mesh = jax.sharding.Mesh(np.array(devices), ("data",))
print(tpu_sums.over_arithmetic(mesh, (14, 896, 3, 896), stages=True))
""", for_tpus.ENV)  # fmt: skip
  assert float(run.stdout.split()[-1]) <= 1.05, run.stderr
