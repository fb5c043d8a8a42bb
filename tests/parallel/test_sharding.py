"""Layouts follow from logical names, for state, activations and batches."""

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np
import optax
import pytest

from v2a_jax.parallel import mesh as mesh_lib
from v2a_jax.parallel import sharding


def _kernel(names):
  return nnx.with_partitioning(nnx.initializers.lecun_normal(), names)


class Net(nnx.Module):
  def __init__(self, rngs):
    self.up = nnx.Linear(
      8, 16, kernel_init=_kernel(("embed", "mlp")), rngs=rngs
    )
    self.down = nnx.Linear(
      16, 7, kernel_init=_kernel(("mlp", "embed")), rngs=rngs
    )


def _state():
  params = nnx.state(Net(nnx.Rngs(0)), nnx.Param)
  return {"params": params, "opt": optax.adam(1e-3).init(params)}


def test_mesh_fills_the_free_axis():
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(fsdp=2, tensor=2))
  assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}
  assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


@pytest.mark.parametrize(
  "config, words",
  [
    (dict(fsdp=3), r"8 devices.*\[1, 2, 4, 8\]"),
    (dict(data=2, fsdp=2), "8 devices"),
    (dict(data=-1, fsdp=-1), "at most one"),
    (dict(tensor=0), r"tensor=0 is not in \[1, inf\)"),
  ],
)
def test_mesh_refuses_what_does_not_fit(config, words):
  with pytest.raises(ValueError, match=words):
    mesh_lib.make_mesh(mesh_lib.MeshConfig(**config))


def test_each_mesh_axis_is_used_once():
  shape = {"data": 2, "fsdp": 2, "tensor": 2}
  spec = lambda *a: sharding.partition_spec(*a, shape)
  assert spec((8, 3, 8), ("batch", "length", "embed")) == P(
    ("data", "fsdp"), None, None
  )
  assert spec((8, 8), ("embed", "mlp")) == P("fsdp", "tensor")
  assert spec((2, 8, 5), ("layers", "embed", "mlp")) == P(None, "fsdp", None)
  with pytest.raises(ValueError, match="no logical axis 'width'"):
    spec((8,), ("width",))


def test_optimizer_leaves_carry_their_parameters_layout(mesh):
  state, _ = sharding.init_sharded(_state, mesh)
  moments = state["opt"][0]
  for tree in (state["params"], moments.mu, moments.nu):
    assert tree["up"]["kernel"].sharding.spec == P("fsdp", "tensor")
    # 7 columns do not divide over fsdp: that axis stays whole.
    assert tree["down"]["kernel"].sharding.spec == P("tensor", None)
    assert tree["up"]["bias"].sharding.is_fully_replicated
  assert moments.count.sharding.is_fully_replicated


def test_sharded_init_equals_plain_init(mesh):
  sharded, _ = sharding.init_sharded(_state, mesh)
  jax.tree.map(np.testing.assert_array_equal, sharded, jax.jit(_state)())


def test_constrain_is_the_identity_without_a_mesh():
  x = jnp.ones((4, 3, 2))
  assert sharding.constrain(x, "batch", "length", "embed") is x


def test_constrain_lays_out_activations(mesh):
  f = jax.jit(lambda x: sharding.constrain(x * 2, "batch", None, "mlp"))
  with jax.set_mesh(mesh):
    y = f(jnp.ones((8, 3, 4)))
  assert y.sharding.spec == P(("data", "fsdp"), None, "tensor")
  with jax.set_mesh(mesh), pytest.raises(ValueError, match="2 axis names"):
    jax.jit(lambda x: sharding.constrain(x, "batch", "mlp"))(y)


def test_batches_are_split_over_data_and_fsdp(mesh):
  rows = np.arange(16).reshape(8, 2)
  batch = sharding.shard_batch({"x": rows}, mesh)["x"]
  np.testing.assert_array_equal(batch, rows)
  assert {s.data.shape for s in batch.addressable_shards} == {(2, 2)}
  assert sharding.data_shard(mesh) == (0, 1)
  with pytest.raises(ValueError, match="batch_size 6 .*4 devices"):
    sharding.shard_batch({"x": rows[:6]}, mesh)
