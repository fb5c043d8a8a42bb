"""Reads networks from folders as `transformers` saves them.

A folder holds config.json and model.safetensors, or instead of the latter
model.safetensors.index.json and the files that it lists. A table says
where each parameter of an nnx module is in them (tables.py).

Names and shapes of all tensors are compared before any weight is read.
"""

from collections.abc import Callable, Iterable, Mapping
import contextlib
import dataclasses
import os
import pathlib
import types
from typing import Any, TypeVar

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from v2a_jax.basics import cache, files, settings
from v2a_jax.basics.paths import as_path
from v2a_jax.weights import names, reading
from v2a_jax.weights.registry import MissingWeightsError, WrongWeightsError
from v2a_jax.weights.tables import Placed, Shape, Table, Tensor

CONFIG = "config.json"
FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"

M = TypeVar("M", bound=nnx.Module)


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Reads a JSON object.

  Raises:
    MissingWeightsError: there is no such file.
    WrongWeightsError: it is not a JSON object.
  """
  try:
    return files.read_json(path)
  except FileNotFoundError:
    raise MissingWeightsError(
      f"{path} not found: give the folder that holds {CONFIG} and {FILE}"
    ) from None
  except ValueError as error:
    raise WrongWeightsError(error) from None


def read_config(
  folder: pathlib.Path,
  model_types: Mapping[str, str | None],
  *,
  shared: tuple[str, ...] = (),
) -> dict[str, Any]:
  """Reads the part of config.json that describes one network.

  Args:
    folder: folder that holds config.json.
    model_types: section that describes the network, by `model_type`; None for
      the whole file.
    shared: top-level keys that take precedence over those of the section.

  Raises:
    MissingWeightsError, WrongWeightsError: see `read_json`; or the file has
      another `model_type`.
  """
  path = folder / CONFIG
  config = read_json(path)
  model_type = config.get("model_type")
  if model_type not in model_types:
    raise WrongWeightsError(
      f"{path}: model_type is {model_type!r}, should be one of"
      f" {', '.join(model_types)}"
    )
  section = model_types[model_type]
  if section is None:
    return config
  outer = {key: config[key] for key in shared if config.get(key) is not None}
  return {**(config.get(section) or {}), **outer, "model_type": model_type}


def sizes(cls: type, values: Mapping[str, Any], source: pathlib.Path) -> Any:
  """Makes a settings object from `values`.

  A key that is null takes its default; keys that `cls` lacks are ignored.

  Raises:
    WrongWeightsError: a value is refused; names `source`.
  """
  own = {field.name for field in settings.keys(cls)}
  values = {k: v for k, v in values.items() if k in own and v is not None}
  try:
    return settings.build(cls, values)
  except (TypeError, ValueError) as error:
    raise WrongWeightsError(f"{source}: {error}") from None


def assemble(
  tensors: Mapping[str, Tensor],
  make: Callable[[nnx.Rngs], M],
  table: Table,
  *,
  source: str | os.PathLike[str],
  unread: Mapping[str, Shape] = types.MappingProxyType({}),
  param_dtype: Any = jnp.float32,
) -> M:
  """Makes a module with published tensors.

  Args:
    tensors: published tensors by name.
    make: `make(rngs)`, the module; only traced.
    table: where its parameters are; see `tables`.
    source: where the tensors are from, for errors.
    unread: shapes of tensors that must be there but are no part of the module.
    param_dtype: dtype of the parameters.

  Raises:
    WrongWeightsError: tensors are missing, extra or misshapen; all are named.
  """
  graphdef, state, wanted = _find(make, table)
  check(tensors, _shapes(wanted) | dict(unread), source)
  dtype = jnp.dtype(param_dtype)
  arrays = {
    path: jnp.asarray(one.read(tensors, dtype)) for path, one in wanted.items()
  }
  return nnx.merge(graphdef, names.fill(state, names.split(arrays)))


def shapes(make: Callable[[nnx.Rngs], nnx.Module], table: Table):
  """Returns the shapes of the published tensors that a module is made of.

  Args:
    make: see `assemble`.
    table: see `assemble`.

  Returns:
    Shape by published name.
  """
  return _shapes(_find(make, table)[2])


def _find(make, table: Table):
  """Returns the graph of a module, its state of shapes and where each array is."""
  # Not `nnx.eval_shape`: under a mesh it takes logical names for mesh axes.
  graphdef, state = jax.eval_shape(lambda: nnx.split(make(nnx.Rngs(0))))
  wanted = {
    path: Placed.find(path, leaf.shape, table)
    for path, leaf in names.joined(names.flatten(state)).items()
  }
  return graphdef, state, wanted


def _shapes(wanted: Mapping[str, Placed]) -> dict[str, Shape]:
  return {n: one.published for one in wanted.values() for n in one.names}


def check(
  tensors: Mapping[str, Any],
  shapes: Mapping[str, Any],
  source: str | os.PathLike[str],
) -> None:
  """Compares tensors, objects with a `shape` by name, with a model's shapes.

  Raises:
    WrongWeightsError: names `source` and all that is missing, extra or
      misshapen.
  """
  if faults := names.compare(tensors, shapes):
    raise WrongWeightsError(
      f"{os.fspath(source)} is not of this model: {faults}"
    )


def read_tensors(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads all tensors of a folder by name; raises as `Network.load` does."""
  with contextlib.ExitStack() as stack:
    tensors = open_files(_files(folder), stack)
    return {name: tensor.read() for name, tensor in tensors.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
  """A kind of published network and how it is read.

  Attributes:
    config: settings class of its sizes, named as in config.json.
    make: `make(config, rngs=, dtype=)`, the module.
    table: `table(config)`, where the parameters are; see `tables`.
    model_types: see `read_config`.
    shared: see `read_config`.
    rename: maps a name in a file to one in the table; None for a tensor of a
      part that is left out.
  """

  config: type
  make: Callable[..., nnx.Module]
  table: Callable[[Any], Table]
  model_types: Mapping[str, str | None]
  shared: tuple[str, ...] = ()
  rename: Callable[[str], str | None] = lambda name: name

  def read_config(self, folder: str | os.PathLike[str]) -> Any:
    """Reads the sizes in a folder's config.json.

    Raises:
      MissingWeightsError, WrongWeightsError: no such file, or another network.
    """
    folder = as_path(folder)
    values = read_config(folder, self.model_types, shared=self.shared)
    return sizes(self.config, values, folder)

  def load(
    self,
    folder: str | os.PathLike[str],
    *,
    dtype: Any = "float32",
    param_dtype: Any = "float32",
  ) -> Any:
    """Reads the network in a folder.

    Args:
      folder: folder that holds config.json and model.safetensors.
      dtype: dtype of the computation.
      param_dtype: dtype of the parameters.

    Raises:
      MissingWeightsError: there is no such file.
      WrongWeightsError: it is damaged, or tensors are missing, extra or
        misshapen; all are named.
    """
    folder = as_path(folder)
    config = self.read_config(folder)
    with contextlib.ExitStack() as stack:
      tensors = open_files(self.files(folder), stack)
      return self.assemble(
        tensors, config, source=folder, dtype=dtype, param_dtype=param_dtype
      )

  def files(self, folder: pathlib.Path) -> list[pathlib.Path]:
    """Lists the files of a folder's tensors.

    Raises:
      MissingWeightsError, WrongWeightsError: there are none, or not all.
    """
    return _files(folder)

  def assemble(
    self,
    tensors: Mapping[str, Tensor],
    config: Any,
    *,
    source: str | os.PathLike[str],
    dtype: Any = "float32",
    param_dtype: Any = "float32",
  ) -> Any:
    """Makes the network of tensors by published name; see `assemble`."""
    renamed = {self.rename(name): one for name, one in tensors.items()}
    renamed.pop(None, None)
    return assemble(
      renamed,
      lambda rngs: self.make(config, rngs=rngs, dtype=dtype),
      self.table(config),
      source=source,
      unread=self.unread(renamed),
      param_dtype=param_dtype,
    )

  def unread(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Shape]:
    """Returns the shapes of tensors that must be there though none is read.

    Args:
      tensors: what the files hold, after `rename`.
    """
    del tensors
    return {}


def open_files(
  paths: Iterable[pathlib.Path], stack: contextlib.ExitStack
) -> dict[str, Tensor]:
  """Opens the tensors of files by name; none is read.

  Args:
    paths: safetensors, or checkpoints of PyTorch, which are converted once and
      kept in the cache.
    stack: what closes the files.

  Raises:
    WrongWeightsError: a file cannot be read.
  """
  tensors = {}
  for path in paths:
    try:
      local = cache.fetch(path)
      if local.suffix != ".safetensors":
        local = _converted(local)
      file = safe_open(local, "numpy")
      stack.enter_context(file)
    except (OSError, SafetensorError, reading.UnreadableError) as error:
      raise WrongWeightsError(f"cannot read {path}: {error}") from None
    for name in file.keys():
      read = lambda file=file, name=name: file.get_tensor(name)
      shape = tuple(file.get_slice(name).get_shape())
      tensors[name] = Tensor(shape, read)
  return tensors


def _converted(path: pathlib.Path) -> pathlib.Path:
  """Returns a checkpoint of PyTorch as safetensors in the cache."""
  facts = path.stat()
  version = f"{path.absolute()}-{facts.st_size}-{facts.st_mtime_ns}"
  kept = cache.place(version, "converted").with_suffix(".safetensors")
  if not kept.is_file():
    kept.parent.mkdir(parents=True, exist_ok=True)
    with files.written(kept) as part:
      reading.to_safetensors(path, part)
  return kept


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
  """Lists model.safetensors, or else the files of the index beside it."""
  if (folder / FILE).is_file():
    return [folder / FILE]
  if not (folder / INDEX).is_file():
    raise MissingWeightsError(
      f"{folder} has neither {FILE} nor {INDEX}: give a folder that"
      " `save_pretrained` wrote"
    )
  listed = read_json(folder / INDEX).get("weight_map")
  if not isinstance(listed, dict) or not all(
    isinstance(part, str) and pathlib.PurePath(part).name == part
    for part in listed.values()
  ):
    raise WrongWeightsError(
      f"{folder / INDEX}: `weight_map` must name files in the same folder"
    )
  parts = [folder / part for part in sorted(set(listed.values()))]
  missing = [file.name for file in parts if not file.is_file()]
  if missing:
    raise MissingWeightsError(f"{folder} lacks {', '.join(missing)} of {INDEX}")
  return parts
