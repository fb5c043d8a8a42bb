"""Tables of where the parameters of a module are in published files.

A table maps the paths of an nnx module to the names of PyTorch:

  {"stack/blocks/attention/q": "encoder.layers.{}.self_attn.q_proj", ...}

A row for a module covers its `kernel`, `scale` or `embedding` (published as
`weight`) and its `bias`; a row for a parameter gives the whole name. `{}` is
the index in a stack, whose parameters have a leading axis of layers. PyTorch's
kernels [out, in, ...] become [..., in, out]; a `Row` says what else is laid out
differently.
"""

from collections.abc import Callable, Mapping
import dataclasses

import numpy as np

# Names of parameters in PyTorch, where they differ.
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """A published tensor whose layout differs from that of its parameter.

  Attributes:
    name: published name, as in a row that is a string.
    maps: number of linear maps whose outputs the tensor's first axis holds.
    part: index of the one that the parameter is; None for all of them, which
      are then an axis of the parameter before its last.
    innermost: whether the outputs of the maps alternate; else those of one map
      follow those of another.
    taps: number of steps of a convolution that the parameter holds as a linear
      map of neighbours (`layers.neighbours`); 1 for no convolution.
    transposed: whether a kernel is published as [out, in]; else as [in, out].
    first: index of the stack's first layer among those of that name.
  """

  name: str
  maps: int = 1
  part: int | None = None
  innermost: bool = False
  taps: int = 1
  transposed: bool = True
  first: int = 0


Table = Mapping[str, str | Row]


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A tensor of a file; `read` returns it as an array.

  Attributes:
    shape: its shape.
    read: reads it.
  """

  shape: Shape
  read: Callable[[], np.ndarray]


def in_memory(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
  """Returns arrays as tensors."""
  return {k: Tensor(v.shape, lambda v=v: v) for k, v in arrays.items()}


@dataclasses.dataclass(frozen=True)
class Placed:
  """A parameter of a module and where it is published.

  Attributes:
    row: how they are laid out.
    names: published names: one, or one per layer of a stack.
    stacked: whether the parameter has a leading axis of layers.
    is_kernel: whether PyTorch has its axes in another order.
    shape: shape of the parameter, without the axis of layers.
  """

  row: Row
  names: tuple[str, ...]
  stacked: bool
  is_kernel: bool
  shape: Shape

  @classmethod
  def find(cls, path: str, shape: Shape, table: Table):
    """Looks a parameter up in the table; KeyError if it has no row."""
    module, _, leaf = path.rpartition("/")
    whole = path in table
    row = table[path if whole else module]
    row = Row(name=row) if isinstance(row, str) else row
    name = row.name if whole else f"{row.name}.{LEAVES.get(leaf, leaf)}"
    names, stacked = (name,), "{}" in name
    if stacked:
      names = tuple(name.format(row.first + i) for i in range(shape[0]))
      shape = shape[1:]
    is_kernel = leaf == "kernel" and row.transposed
    return cls(row, names, stacked, is_kernel, tuple(shape))

  @property
  def published(self) -> Shape:
    """Shape of a published tensor."""
    row, inputs = self.row, self.shape[:-1]
    if row.maps > 1 and row.part is None:
      inputs = inputs[:-1]
    if self.is_kernel and row.taps > 1:
      inputs = (inputs[0] // row.taps, row.taps)
    elif self.is_kernel:
      inputs = (inputs[-1], *inputs[:-1])
    elif row.maps == 1:
      return self.shape
    return (row.maps * self.shape[-1], *inputs)

  def read(self, tensors: Mapping[str, Tensor], dtype) -> np.ndarray:
    """Reads the parameter."""
    arrays = [
      self._laid_out(tensors[name].read()).astype(dtype) for name in self.names
    ]
    return np.stack(arrays) if self.stacked else arrays[0]

  def _laid_out(self, array: np.ndarray) -> np.ndarray:
    """Brings a published tensor into the parameter's layout."""
    row = self.row
    if row.maps > 1:
      split = (-1, row.maps) if row.innermost else (row.maps, -1)
      array = array.reshape(*split, *array.shape[1:])
      array = array if row.innermost else array.swapaxes(0, 1)
      array = array if row.part is None else array[:, row.part]
    if self.is_kernel:
      array = array.transpose(*range(2, array.ndim), 1, 0)
    elif row.maps > 1 and row.part is None:
      array = array.T
    return array.reshape(self.shape)
