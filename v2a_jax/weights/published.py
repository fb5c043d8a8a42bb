"""Published weights put into an nnx module, each tensor checked by name.

A folder as `transformers` saves it holds config.json and model.safetensors, or
model.safetensors.index.json and the files that it lists. A network says with a
table from its own paths to the published names where its parameters lie:

  {"stack/blocks/attention/q": "encoder.layers.{}.self_attn.q_proj", ...}

A row for a module covers its `kernel`, `scale` or `embedding` (published as
`weight`) and its `bias`; a row for a parameter gives the whole name. `{}` is
the index in a stack, whose parameters have a leading axis of layers. PyTorch's
kernels [out, in, ...] become [..., in, out].

Names and shapes are compared before any weight is read.
"""

from collections.abc import Callable, Mapping
import contextlib
import dataclasses
import json
import os
import pathlib
from typing import Any, TypeVar

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from v2a_jax.basics import settings
from v2a_jax.weights import names
from v2a_jax.weights import tensors as tensors_lib
from v2a_jax.weights.registry import MissingWeightsError, WrongWeightsError

CONFIG = "config.json"
FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}

M = TypeVar("M", bound=nnx.Module)
Shape = tuple[int, ...]


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """A JSON object.

  Raises:
    MissingWeightsError: there is no such file.
    WrongWeightsError: it is not a JSON object.
  """
  try:
    value = json.loads(path.read_text())
  except FileNotFoundError:
    raise MissingWeightsError(
      f"{path} not found: give the folder that holds {CONFIG} and {FILE}"
    ) from None
  except ValueError as error:
    raise WrongWeightsError(f"{path} is not JSON: {error}") from None
  if not isinstance(value, dict):
    raise WrongWeightsError(f"{path} is not a JSON object")
  return value


def read_config(
  folder: pathlib.Path,
  model_types: Mapping[str, str | None],
  *,
  shared: tuple[str, ...] = (),
) -> dict[str, Any]:
  """The part of config.json that describes one network.

  Args:
    folder: holds config.json.
    model_types: the `model_type`s that hold the network, each with the section
      that describes it, or None for the whole file.
    shared: keys beside a section that count for it, too, and before its own.

  Raises:
    MissingWeightsError, WrongWeightsError: see `read_json`; or another
      `model_type`.
  """
  path = folder / CONFIG
  config = read_json(path)
  found = config.get("model_type")
  if found not in model_types:
    raise WrongWeightsError(
      f"{path}: model_type is {found!r}, should be one of"
      f" {', '.join(model_types)}"
    )
  section = model_types[found]
  if section is None:
    return config
  outer = {key: config[key] for key in shared if config.get(key) is not None}
  return {**(config.get(section) or {}), **outer, "model_type": found}


def sizes(cls: type, values: Mapping[str, Any], folder: pathlib.Path) -> Any:
  """Makes a settings class from those of `values` that it has.

  A key that is null takes its default; keys that it has not are passed over.

  Raises:
    WrongWeightsError: a value is of another type, or is refused.
  """
  own = {field.name for field in settings.keys(cls)}
  values = {k: v for k, v in values.items() if k in own and v is not None}
  try:
    return settings.build(cls, values)
  except (TypeError, ValueError) as error:
    raise WrongWeightsError(f"{folder}: {error}") from None


def load(
  folder: pathlib.Path,
  make: Callable[[nnx.Rngs], M],
  table: Mapping[str, str],
  *,
  rename: Callable[[str], str | None] = lambda name: name,
  param_dtype: Any = jnp.float32,
) -> M:
  """A module with the weights of a folder.

  Args:
    folder: holds model.safetensors, or its index and its parts.
    make: makes the module; it is traced only, nothing is drawn.
    table: see above.
    rename: from a name in the file to one in the table; None where the tensor
      belongs to a part that is not wanted here.
    param_dtype: in which parameters are kept.

  Raises:
    MissingWeightsError: there is no such file.
    WrongWeightsError: it is not safetensors, or tensors are missing, extra or
      misshapen; all are named.
  """
  # Not `nnx.eval_shape`: under a mesh it takes logical names for mesh axes.
  graphdef, state = jax.eval_shape(lambda: nnx.split(make(nnx.Rngs(0))))
  wanted = {
    path: _Wanted.find(path, leaf.shape, table)
    for path, leaf in names.joined(names.flatten(state)).items()
  }
  with contextlib.ExitStack() as stack:
    tensors = _open(folder, rename, stack)
    shapes = {name: one.shape for one in wanted.values() for name in one.names}
    tensors_lib.check(tensors, shapes, folder)
    dtype = jnp.dtype(param_dtype)
    arrays = {
      path: jnp.asarray(one.read(tensors, dtype))
      for path, one in wanted.items()
    }
  return nnx.merge(graphdef, names.fill(state, names.split(arrays)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
  """How one kind of published network is read.

  Attributes:
    config: dataclass of its sizes, named as in config.json.
    make: `make(config, rngs=, dtype=)`, the module.
    table: from sizes to the table of `load`.
    model_types: see `read_config`.
    shared: see `read_config`.
    rename: see `load`.
  """

  config: type
  make: Callable[..., nnx.Module]
  table: Callable[[Any], Mapping[str, str]]
  model_types: Mapping[str, str | None]
  shared: tuple[str, ...] = ()
  rename: Callable[[str], str | None] = lambda name: name

  def read_config(self, folder: str | os.PathLike[str]) -> Any:
    """The sizes in a folder's config.json.

    Raises:
      MissingWeightsError, WrongWeightsError: no such file, or another network.
    """
    folder = pathlib.Path(folder)
    values = read_config(folder, self.model_types, shared=self.shared)
    return sizes(self.config, values, folder)

  def load(
    self,
    folder: str | os.PathLike[str],
    *,
    dtype: Any = "float32",
    param_dtype: Any = "float32",
  ) -> Any:
    """The network that a folder holds.

    Args:
      folder: holds config.json and model.safetensors.
      dtype: of the computation.
      param_dtype: in which parameters are kept.

    Raises:
      MissingWeightsError: a file is absent.
      WrongWeightsError: another network, or tensors are missing, extra or
        misshapen.
    """
    folder = pathlib.Path(folder)
    config = self.read_config(folder)
    return load(
      folder,
      lambda rngs: self.make(config, rngs=rngs, dtype=dtype),
      self.table(config),
      rename=self.rename,
      param_dtype=param_dtype,
    )


@dataclasses.dataclass(frozen=True)
class _Wanted:
  """One parameter of ours: what it is called there, and how it lies there.

  Attributes:
    names: one, or one for each layer of a stack.
    stacked: whether the parameter has a leading axis of layers.
    axes: of a published tensor, in our order.
    shape: of a published tensor.
  """

  names: tuple[str, ...]
  stacked: bool
  axes: tuple[int, ...]
  shape: Shape

  @classmethod
  def find(cls, path: str, shape: Shape, table: Mapping[str, str]):
    """The row of a parameter; KeyError if the table has none."""
    module, _, leaf = path.rpartition("/")
    if path in table:
      name = table[path]
    else:
      name = f"{table[module]}.{_LEAVES.get(leaf, leaf)}"
    stacked = "{}" in name
    names = (name,)
    if stacked:
      names = tuple(name.format(index) for index in range(shape[0]))
      shape = shape[1:]
    axes = tuple(range(len(shape)))
    if leaf == "kernel":
      axes = (*axes[2:], 1, 0)
    theirs = [0] * len(shape)
    for ours, axis in enumerate(axes):
      theirs[axis] = shape[ours]
    return cls(names, stacked, axes, tuple(theirs))

  def read(self, tensors: Mapping[str, "_Tensor"], dtype) -> np.ndarray:
    arrays = [
      tensors[name].read().transpose(self.axes).astype(dtype)
      for name in self.names
    ]
    return np.stack(arrays) if self.stacked else arrays[0]


@dataclasses.dataclass(frozen=True)
class _Tensor:
  """A tensor in an open file, not read yet."""

  shape: Shape
  read: Callable[[], np.ndarray]


def _open(
  folder: pathlib.Path,
  rename: Callable[[str], str | None],
  stack: contextlib.ExitStack,
) -> dict[str, _Tensor]:
  """The tensors that are wanted, by their names in the table."""
  tensors = {}
  for path in _files(folder):
    try:
      file = stack.enter_context(safe_open(path, "numpy"))
    except (OSError, SafetensorError) as error:
      raise WrongWeightsError(f"cannot read {path}: {error}") from None
    for name in file.keys():
      if (known := rename(name)) is not None:
        shape = tuple(file.get_slice(name).get_shape())
        read = lambda file=file, name=name: file.get_tensor(name)
        tensors[known] = _Tensor(shape, read)
  return tensors


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
  """The one file, or those of the index, which must lie beside it."""
  if (folder / FILE).is_file():
    return [folder / FILE]
  if not (folder / INDEX).is_file():
    raise MissingWeightsError(
      f"{folder} has neither {FILE} nor {INDEX}: give the folder of a network"
      " saved by `save_pretrained`"
    )
  parts = read_json(folder / INDEX).get("weight_map")
  if not isinstance(parts, dict) or not all(
    isinstance(part, str) and pathlib.PurePath(part).name == part
    for part in parts.values()
  ):
    raise WrongWeightsError(
      f"{folder / INDEX}: `weight_map` should name files of its folder"
    )
  files = [folder / part for part in sorted(set(parts.values()))]
  absent = [file.name for file in files if not file.is_file()]
  if absent:
    raise MissingWeightsError(f"{folder} lacks {', '.join(absent)} of {INDEX}")
  return files
