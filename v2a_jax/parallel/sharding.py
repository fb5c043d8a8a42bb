"""One table from logical axes to mesh axes, and what follows from it.

Models name the axes of their parameters with `partitioned` and those of their
activations with `constrain`; no other code mentions a mesh axis. Within one
array each mesh axis is used once, by the first dimension that maps to it: a
kernel (`embed`, `mlp`) becomes (`fsdp`, `tensor`), but an activation (`batch`,
`length`, `embed`) becomes ((`data`, `fsdp`), None, None).
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import math
from typing import Any

from flax import nnx
import jax
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np

# partitioned(initializer, names) makes arrays that carry names of their axes.
partitioned = nnx.with_partitioning

RULES: Mapping[str, tuple[str, ...]] = {
  "batch": ("data", "fsdp"),
  "frames": ("data", "fsdp", "context"),
  "length": ("context",),
  "embed": ("fsdp",),
  "heads": ("tensor",),
  "parts": (),
  "mlp": ("tensor",),
  "vocab": ("tensor",),
  "layers": (),
}


def partition_spec(
  shape: Sequence[int],
  names: Sequence[str | None],
  mesh_shape: Mapping[str, int],
) -> PartitionSpec:
  """Returns the layout of an array whose axes have logical `names`.

  A dimension that its mesh axes do not divide is not split.

  Raises:
    ValueError: a name is not in `RULES`, or there are too many or too few.
  """
  if len(names) != len(shape):
    raise ValueError(f"{len(names)} axis names {names} for shape {shape}")
  used, spec = set(), []
  for size, name in zip(shape, names):
    if name is not None and name not in RULES:
      raise ValueError(f"no logical axis {name!r}; there are {sorted(RULES)}")
    axes = RULES[name] if name else ()
    axes = tuple(a for a in axes if mesh_shape.get(a, 1) > 1 and a not in used)
    if not axes or size % math.prod(mesh_shape[a] for a in axes):
      spec.append(None)
      continue
    used.update(axes)
    spec.append(axes if len(axes) > 1 else axes[0])
  return PartitionSpec(*spec)


def platform() -> str:
  """Returns `cpu`, `gpu` or `tpu`: what the program being traced is for.

  Programs are also lowered for devices that are not attached, so those of the
  mesh come first.
  """
  device = jax.sharding.get_abstract_mesh().abstract_device
  name = device.platform if device else jax.default_backend()
  return "gpu" if name in ("cuda", "rocm") else name


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
  """Constrains the layout of an activation by its logical axes.

  The identity when no mesh is active (see `jax.set_mesh`). Axes by which code
  sees only its own rows (`rows.py`) are not the compiler's to lay out.
  """
  if jax.sharding.get_abstract_mesh().empty:
    return x
  return jax.lax.with_sharding_constraint(x, free_spec(x.shape, names))


def free_spec(
  shape: Sequence[int], names: Sequence[str | None]
) -> PartitionSpec:
  """Returns `partition_spec` on the axes that the compiler lays out."""
  mesh = jax.sharding.get_abstract_mesh()
  free = {a: n for a, n in mesh.shape.items() if a not in mesh.manual_axes}
  return partition_spec(shape, names, free)


def split_by(tree: Any, *names: str | None) -> Any:
  """Constrains activations to be split along their first axes, and only there.

  Without this at a block's boundary the compiler may split features instead,
  so that every device works on the whole batch.

  Args:
    tree: pytree of arrays.
    names: logical axes of the first dimensions; the others stay whole.
  """

  def split(x):
    return constrain(x, *(*names, *(None,) * x.ndim)[: x.ndim])

  return jax.tree.map(split, tree)


def by_batch(tree: Any) -> Any:
  """Splits activations [b ...] along the batch, and only there."""
  return split_by(tree, "batch")


def by_token(tree: Any) -> Any:
  """Splits activations [b t ...] along batch and time, and only there."""
  return split_by(tree, "batch", "length")


def gathered(*tables: jax.Array) -> list[jax.Array]:
  """Gathers tables whole before rows are looked up in them.

  A lookup in a split table would move activations of the global batch instead.
  """
  return [constrain(table, *(None,) * table.ndim) for table in tables]


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
  """Returns the layout of an array that every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
  """Returns the layout of arrays whose first axis is the global batch."""
  return NamedSharding(mesh, PartitionSpec(RULES["batch"]))


def state_shardings(
  abstract_state: Any, mesh: jax.sharding.Mesh, *, zero1: bool = False
) -> Any:
  """Returns the layout of every leaf of a pytree that holds NNX variables.

  Optimizers and averages map over parameters, so their leaves are variables
  with the same axis names, and get the same layout. A leaf without names, or
  whose rank is not that of its names (Adafactor's factors), is replicated.

  Args:
    abstract_state: pytree of `jax.ShapeDtypeStruct` (see `jax.eval_shape`).
    mesh: mesh to lay out on.
    zero1: whether leaves are also split over `data`, along their first
      dimension that it divides and no other axis splits.

  Returns:
    A pytree of `NamedSharding` with the same structure.
  """

  def leaf_sharding(leaf, names):
    if not names or len(names) != len(leaf.shape):
      return replicated(mesh)
    spec = partition_spec(leaf.shape, names, mesh.shape)
    if zero1:
      spec = _split_over_data(spec, leaf.shape, mesh.shape["data"])
    return NamedSharding(mesh, spec)

  def shard(node):
    names = None
    if isinstance(node, nnx.Variable):
      names = node.get_metadata().get("out_sharding")
    return jax.tree.map(lambda leaf: leaf_sharding(leaf, names), node)

  return jax.tree.map(
    shard, abstract_state, is_leaf=lambda x: isinstance(x, nnx.Variable)
  )


def _split_over_data(
  spec: PartitionSpec, shape: Sequence[int], data: int
) -> PartitionSpec:
  free = [
    axis
    for axis, (size, taken) in enumerate(zip(shape, spec))
    if taken is None and size % data == 0
  ]
  if data == 1 or not free:
    return spec
  axis = free[0]
  return PartitionSpec(*spec[:axis], "data", *spec[axis + 1 :])


def init_sharded(
  init: Callable[[], Any], mesh: jax.sharding.Mesh, shardings: Any = None
) -> tuple[Any, Any]:
  """Runs `init` so that each leaf is made in its final layout.

  Without `out_shardings` the compiler would replicate the optimizer's moments.

  Args:
    init: makes the state.
    mesh: mesh of the layouts.
    shardings: layout of each leaf; None for that of `state_shardings`.

  Returns:
    (state, its shardings).
  """
  with jax.set_mesh(mesh):
    if shardings is None:
      shardings = state_shardings(jax.eval_shape(init), mesh)
    return jax.jit(init, out_shardings=shardings)(), shardings


@functools.lru_cache(maxsize=8)
def data_shard(mesh: jax.sharding.Mesh) -> tuple[int, int]:
  """Returns (index, count) of the part of each batch that this process loads.

  Processes that hold the same rows, because context and tensor axes span them,
  load the same part.

  Raises:
    ValueError: the parts of two processes overlap but differ.
  """
  processes = np.array([device.process_index for device in mesh.devices.flat])
  grid = processes.reshape(-1, mesh.shape["context"] * mesh.shape["tensor"])
  return part_of(jax.process_index(), grid)


def part_of(process: int, grid: np.ndarray) -> tuple[int, int]:
  """Returns (index, count) of the part of a batch that a process loads.

  Args:
    process: index of the process.
    grid: int [rows devices], process of each device that holds a row; a part
      is a set of rows.

  Raises:
    ValueError: the parts of two processes overlap but differ.
  """
  rows_of = lambda p: tuple(np.flatnonzero((grid == p).any(axis=1)))
  parts = sorted({rows_of(p) for p in np.unique(grid)})
  if sum(map(len, parts)) != len(grid):
    raise ValueError(
      f"mesh of {len(grid)} data and fsdp by {grid.shape[1]} context and tensor"
      " gives the processes overlapping parts of the batch; make context times"
      " tensor a divisor or a multiple of the number of devices of a process"
    )
  return parts.index(rows_of(process)), len(parts)


def shard_batch(
  host_arrays: Mapping[str, np.ndarray], mesh: jax.sharding.Mesh
) -> dict[str, jax.Array]:
  """Makes global arrays from the rows that this process loaded.

  Args:
    host_arrays: arrays [b / count, ...] of this process; count of `data_shard`.
    mesh: mesh whose data and fsdp axes split the batch.

  Raises:
    ValueError: the global batch does not divide over the mesh.
  """
  _, count = data_shard(mesh)
  parts = mesh.shape["data"] * mesh.shape["fsdp"]
  sharding = batch_sharding(mesh)

  def put(name, array):
    size = len(array) * count
    if size % parts:
      raise ValueError(
        f"batch_size {size} (of {name!r}) does not divide over the"
        f" {parts} devices of the mesh axes data and fsdp: use a multiple"
      )
    return jax.make_array_from_process_local_data(
      sharding, np.asarray(array), (size, *array.shape[1:])
    )

  return {name: put(name, array) for name, array in host_arrays.items()}
