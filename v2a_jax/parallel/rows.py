"""Every device works on its own rows of the batch, in a training step.

The mesh axes that split the batch, `data` and `fsdp`, are manual here
(`jax.shard_map`), so a device cannot be given another's rows, and what is sent
is what stands below. The other axes are laid out by the compiler.

  weights that `fsdp` splits   gathered whole where they are used, those of a
                               stack block by block and again for the backward
                               pass, in the dtype that they are used in
  their gradients              summed over `fsdp` and split again, there
  sums over `data`, and of     once a step, after the last microbatch
  weights that are not split

The last two are in `reduce_dtype`. With ZeRO-1 (arXiv:1910.02054, section 5)
each device of `data` gets the part of the sum whose moments it holds
(`scatter.py`).
"""

from collections.abc import Callable
import dataclasses
import functools
import math
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from v2a_jax.parallel import mesh as mesh_lib
from v2a_jax.parallel.scatter import psum_scatter
from v2a_jax.parallel.sharding import RULES, constrain, free_spec, platform

ROWS = RULES["batch"]

_SPLIT = "row_split"  # Metadata of a variable: its split axis, reduce_dtype.
_COMPUTE_DTYPE = "compute_dtype"


def used_in(dtype: Any) -> dict[str, Any]:
  """Returns the metadata of a kernel that is cast to `dtype` where it is used."""
  return {_COMPUTE_DTYPE: dtype} if dtype is not None else {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
  """How a step is divided by rows.

  Attributes:
    mesh: mesh of the step.
    params: layout of each parameter.
    grads: layout of each gradient, that of the parameter or a finer one.
    buffers: layout of each other variable.
    reduce_dtype: dtype of the sums of gradients over devices.
  """

  mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh
  params: Any
  grads: Any
  buffers: Any
  reduce_dtype: str = "float32"

  def gradient(self, of_rows: Callable[..., Any]) -> Callable[..., Any]:
    """Makes the gradient of a batch out of that of a device's rows.

    Args:
      of_rows: `of_rows(params, buffers, frozen, batch, key) -> (gradients,
        metrics)`, both means over the rows.

    Returns:
      The same function of a global batch.
    """
    groups = [self.mesh.shape[axis] for axis in ROWS]
    if groups == [1, 1]:
      return of_rows

    def local(params, buffers, frozen, batch, key):
      marked = (
        self._mark(params, self.params),
        self._mark(buffers, self.buffers),
      )
      grads, metrics = of_rows(*marked, frozen, batch, key)
      grads = jax.tree.unflatten(
        jax.tree.structure(params), jax.tree.leaves(grads)
      )
      reduce = functools.partial(self._reduce, count=groups[0] * groups[1])
      grads = _map_variables(reduce, grads, self.params, self.grads)
      return grads, jax.lax.pmean(metrics, ROWS)

    specs = lambda tree: jax.tree.map(lambda x: _manual(x.spec), tree)
    return jax.shard_map(
      local,
      mesh=self.mesh,
      in_specs=(
        *(specs(self.params), specs(self.buffers)),
        *(PartitionSpec(), PartitionSpec(ROWS), PartitionSpec()),
      ),
      out_specs=(specs(self.grads), PartitionSpec()),
      axis_names=set(ROWS),
      check_vma=False,
    )

  def bytes_sent(self, params: Any, *, microbatches: int = 1) -> float:
    """Computes what a device sends in a step by arithmetic, in rings.

    Of weights and gradients only: `tensor` and `context` send activations.

    Args:
      params: variables of the parameters, of shapes.
      microbatches: number of microbatches of a step.
    """
    d, f = (self.mesh.shape[axis] for axis in ROWS)
    reduced = jnp.dtype(self.reduce_dtype).itemsize

    def sent(variable, layout, wanted):
      layout, wanted = layout.get_value(), wanted.get_value()
      leaf, names = variable.get_value(), _names(variable)
      used = jnp.dtype(_metadata(variable).get(_COMPUTE_DTYPE, leaf.dtype))
      # Elements of this device but for those that fsdp splits.
      rest = (
        layout.spec
        if _axis_of("fsdp", layout) is None
        else [None if entry == "fsdp" else entry for entry in layout.spec]
      )
      size = math.prod(
        jax.sharding.NamedSharding(self.mesh, PartitionSpec(*rest)).shard_shape(
          leaf.shape
        )
      )
      total, groups = 0.0, d * f
      if _axis_of("fsdp", layout) is not None:
        gathers = 2 if "layers" in names else 1
        once = (f - 1) / f * size * (gathers * used.itemsize + reduced)
        total, groups, size = microbatches * once, d, size / f
      ring = (groups - 1) / groups * size
      gather = (
        reduced if _axis_of("data", wanted) is None else leaf.dtype.itemsize
      )
      return total + ring * (reduced + gather)

    rows = _map_variables(sent, params, self.params, self.grads)
    return sum(jax.tree.leaves(rows))

  def _mark(self, tree, layouts):
    """Notes on each variable along which axis `fsdp` splits it, if any."""

    def mark(variable, layout):
      if not _names(variable):
        return variable
      axis = _axis_of("fsdp", layout.get_value())
      split = {_SPLIT: None if axis is None else (axis, self.reduce_dtype)}
      return _with_value(variable, variable.get_value(), **split)

    return _map_variables(mark, tree, layouts)

  def _reduce(self, variable, param, wanted, *, count: int):
    """Sums one gradient over the devices that hold other rows' share of it."""
    grad, names = variable.get_value(), _names(variable)
    param, wanted = param.get_value(), wanted.get_value()
    total = _rounded(grad / count, self.reduce_dtype)
    axis = _axis_of("data", wanted)
    if axis is not None:
      slices = mesh_lib.num_slices(self.mesh)
      total = _scatter(total, "data", axis, names, slices=slices)
    summed = {"fsdp": _axis_of("fsdp", param), "data": axis}
    left = [
      a for a, at in summed.items() if at is None and self.mesh.shape[a] > 1
    ]
    total = jax.lax.psum(total, left) if left else total
    return _with_value(variable, total.astype(grad.dtype))


def whole(tree: Any) -> Any:
  """Gathers weights that `Rows` has split, but not those of a `Stack`."""
  return _gather(tree, lambda variable: "layers" not in _names(variable), 0)


def whole_block(tree: Any) -> Any:
  """Gathers the weights of one block of a `Stack`, where they are split."""
  return _gather(tree, lambda variable: "layers" in _names(variable), 1)


def is_split(tree: Any) -> bool:
  """Says whether weights are to be gathered."""
  leaves = jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, nnx.Variable))
  return any(_metadata(leaf).get(_SPLIT) for leaf in leaves)


def gather_again(primitive, *_, **params) -> bool:
  """Is the rematerialisation policy that keeps all but gathered weights.

  Whole weights of all blocks would not fit beside the activations.
  """
  inner = getattr(params.get("jaxpr"), "eqns", ())  # of `_of_shards`
  names = {primitive.name, *(eqn.primitive.name for eqn in inner)}
  return "all_gather" not in names


def draw(
  sample: Callable[[jax.Array, tuple[int, ...]], jax.Array],
  key: jax.Array,
  shape: tuple[int, ...],
) -> jax.Array:
  """Draws random numbers for each row of a batch from a key of its own.

  So they do not depend on how the batch is split over devices.

  Args:
    sample: such as `jax.random.normal`.
    key: random key of the whole batch.
    shape: (b, ...), shape of the result; b rows are here.
  """
  rows = jnp.arange(shape[0])
  if axes := _manual_axes():
    rows += shape[0] * jax.lax.axis_index(axes)
  keys = jax.vmap(functools.partial(jax.random.fold_in, key))(rows)
  return jax.vmap(lambda key: sample(key, shape[1:]))(keys)


def total(x: Any) -> Any:
  """Adds up what each device has found in its own rows."""
  axes = _manual_axes()
  return jax.lax.psum(x, axes) if axes else x


def best(score: jax.Array, value: jax.Array) -> jax.Array:
  """Picks, of what each device has found, the one with the highest score.

  Args:
    score: [k], the score of each of k searches.
    value: [k ...], what was found; has no gradient.

  Returns:
    [k ...].
  """
  axes = _manual_axes()
  if not axes:
    return value
  score, value = jax.lax.all_gather(jax.lax.stop_gradient((score, value)), axes)
  device = jnp.argmax(score, axis=0)
  return value[device, jnp.arange(len(device))]


def _manual_axes() -> tuple[str, ...]:
  """Returns the axes by which this code sees only its own rows."""
  manual = jax.sharding.get_abstract_mesh().manual_axes
  return tuple(axis for axis in ROWS if axis in manual)


def _gather(tree, chosen: Callable[[nnx.Variable], bool], sliced: int):
  def gather(variable):
    metadata = _metadata(variable)
    if _SPLIT not in metadata or not chosen(variable):
      return variable
    split = metadata[_SPLIT]
    value, names = variable.get_value(), _names(variable)[sliced:]
    if split is None:
      value = constrain(value, *names)
    else:
      axis, reduce_dtype = split
      dtype = metadata.get(_COMPUTE_DTYPE, value.dtype)
      value = _all_gather(value, axis - sliced, dtype, reduce_dtype, names)
    return _with_value(variable, value, **{_SPLIT: None})

  return _map_variables(gather, tree)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _all_gather(x, axis, dtype, reduce_dtype, names):
  """Gathers shards along an axis; gradients are summed in `reduce_dtype`."""
  gather = functools.partial(
    jax.lax.all_gather, axis_name="fsdp", axis=axis, tiled=True
  )
  return _of_shards(gather, x.astype(dtype), names)


def _forward(x, axis, dtype, reduce_dtype, names):
  y = _all_gather(x, axis, dtype, reduce_dtype, names)
  return y, jnp.zeros((), x.dtype)


def _backward(axis, dtype, reduce_dtype, names, like, grad):
  del dtype
  grad = _scatter(_rounded(grad, reduce_dtype), "fsdp", axis, names)
  return (grad.astype(like.dtype),)


_all_gather.defvjp(_forward, _backward)


def _rounded(x, dtype):
  """Casts what is to be summed over devices.

  XLA for CPU aborts on such sums of bfloat16: there only the values are rounded.
  """
  x = x.astype(dtype)
  return x.astype(jnp.float32) if platform() == "cpu" else x


def _scatter(x, over: str, axis: int, names, *, slices: int = 1):
  """Sums over a mesh axis and splits the sum along a dimension."""
  scatter = functools.partial(psum_scatter, over=over, axis=axis, slices=slices)
  return _of_shards(scatter, x, names)


def _of_shards(collective, x, names):
  """Runs a collective on shards, where other axes split the array as well.

  The compiler would gather it over those first.

  Args:
    collective: maps an array to one that has as many dimensions.
    x: array.
    names: logical axes of its dimensions.
  """
  spec = free_spec(x.shape, names)
  axes = {axis for axis in spec if axis}
  if not axes:
    return collective(x)
  return jax.shard_map(
    collective,
    in_specs=spec,
    out_specs=spec,
    axis_names=axes,
    check_vma=False,
  )(x)


def _map_variables(fn, tree, *others):
  is_variable = lambda x: isinstance(x, nnx.Variable)
  return jax.tree.map(fn, tree, *others, is_leaf=is_variable)


def _with_value(variable, value, **metadata):
  return type(variable)(value, **(variable.get_metadata() | metadata))


def _metadata(node) -> dict[str, Any]:
  return node.get_metadata() if isinstance(node, nnx.Variable) else {}


def _names(variable: nnx.Variable) -> tuple[str | None, ...]:
  return _metadata(variable).get("out_sharding") or ()


def _manual(spec: PartitionSpec) -> PartitionSpec:
  """Keeps the axes of a layout that split the batch."""
  return PartitionSpec(*(_of_rows(entry) or None for entry in spec))


def _of_rows(entry) -> tuple[str, ...]:
  axes = entry if isinstance(entry, tuple) else (entry,)
  return tuple(axis for axis in axes if axis in ROWS)


def _axis_of(name: str, layout) -> int | None:
  """Returns the dimension that a mesh axis splits."""
  for dimension, entry in enumerate(layout.spec):
    if name in _of_rows(entry):
      return dimension
  return None
