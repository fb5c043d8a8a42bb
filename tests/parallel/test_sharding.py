"""Layouts by logical names: of parameters, activations and batches."""

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np
import optax
import pytest

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


MESH = {"data": 2, "fsdp": 2, "tensor": 2}


def spec(shape, names, mesh_shape=MESH):
  return sharding.partition_spec(shape, names, mesh_shape)


@pytest.mark.parametrize(
  "name, axes",
  [
    ("batch", ("data", "fsdp")),
    ("embed", "fsdp"),
    ("heads", "tensor"),
    ("parts", None),
    ("mlp", "tensor"),
    ("vocab", "tensor"),
    ("layers", None),
    (None, None),
  ],
)
def test_each_logical_axis_has_its_mesh_axes(name, axes):
  assert spec((8,), (name,)) == P(axes)
  assert set(sharding.RULES) >= {name} - {None}
  # Neither an odd size nor a mesh of one device is split.
  assert spec((7,), (name,)) == P(None)
  assert spec((8,), (name,), dict.fromkeys(MESH, 1)) == P(None)


def test_each_mesh_axis_is_used_once_by_the_first_that_maps_to_it():
  assert spec((8, 3, 8), ("batch", "length", "embed")) == P(
    ("data", "fsdp"), None, None
  )
  assert spec((8, 8), ("embed", "mlp")) == P("fsdp", "tensor")
  assert spec((8, 8), ("heads", "mlp")) == P("tensor", None)
  assert spec((8, 8), ("embed", "embed")) == P("fsdp", None)
  # What the first cannot be split by stays free for the second.
  assert spec((7, 8), ("heads", "mlp")) == P(None, "tensor")
  assert spec((2, 8, 5), ("layers", "embed", "mlp")) == P(None, "fsdp", None)


def test_mesh_axes_of_one_device_are_left_out():
  shape = {"data": 8, "fsdp": 1, "tensor": 1}
  assert spec((8, 8), ("batch", "embed"), shape) == P("data", None)
  assert spec((4, 8), ("batch", "embed"), shape) == P(None, None)


def test_unknown_and_missing_names_are_refused():
  with pytest.raises(ValueError, match="no logical axis 'width'.*'embed'"):
    spec((8,), ("width",))
  with pytest.raises(ValueError, match=r"1 axis names .* for shape \(8, 8\)"):
    spec((8, 8), ("embed",))


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


def test_factored_moments_without_axes_of_their_own_are_replicated(mesh):
  """Adafactor's rows and columns have another rank than their parameter."""

  def init():
    params = nnx.state(Net(nnx.Rngs(0)), nnx.Param)
    optimizer = optax.adafactor(1e-3, min_dim_size_to_factor=4)
    return {"params": params, "opt": optimizer.init(params)}

  state, layout = sharding.init_sharded(init, mesh)
  assert jax.tree.structure(state) == jax.tree.structure(layout)
  rows = [x for x in jax.tree.leaves(state["opt"]) if x.shape in ((8,), (16,))]
  assert rows and all(x.sharding.is_fully_replicated for x in rows)


def test_batches_are_split_over_data_and_fsdp(mesh):
  rows = np.arange(16).reshape(8, 2)
  arrays = {"x": rows, "mask": rows[:, 0] > 3}
  batch = sharding.shard_batch(arrays, mesh)
  for name, array in arrays.items():
    np.testing.assert_array_equal(batch[name], array)
    assert batch[name].sharding == sharding.batch_sharding(mesh)
  assert {s.data.shape for s in batch["x"].addressable_shards} == {(2, 2)}
  with pytest.raises(ValueError, match="batch_size 6 .*'x'.*4 devices"):
    sharding.shard_batch({"x": rows[:6]}, mesh)


def test_one_process_loads_the_whole_batch(mesh):
  assert sharding.data_shard(mesh) == (0, 1)


@pytest.mark.parametrize(
  "rows, tensor, devices, parts",
  [
    # Each process has whole rows.
    (4, 2, 4, [(0, 2), (1, 2)]),
    (8, 1, 2, [(0, 4), (1, 4), (2, 4), (3, 4)]),
    # A row spans two processes, which load the same part.
    (2, 4, 2, [(0, 2), (0, 2), (1, 2), (1, 2)]),
    (1, 4, 1, [(0, 1)] * 4),
  ],
)
def test_processes_load_the_rows_that_their_devices_hold(
  rows, tensor, devices, parts
):
  grid = np.arange(rows * tensor).reshape(rows, tensor) // devices
  assert [sharding.part_of(p, grid) for p in range(len(parts))] == parts


def test_processes_whose_rows_are_apart_load_one_part():
  grid = np.array([[0], [1], [0], [1]])
  assert [sharding.part_of(p, grid) for p in (0, 1)] == [(0, 2), (1, 2)]


def test_rows_that_overlap_are_refused():
  grid = np.arange(6).reshape(2, 3) // 2  # The second process has half of each.
  with pytest.raises(ValueError, match="2 data and fsdp by 3 context.*overlap"):
    sharding.part_of(0, grid)
