"""Reads the tensors of a PyTorch checkpoint without PyTorch or unpickling.

`torch.save` writes an uncompressed zip archive:

  NAME/data.pkl      a pickle program that builds a dict of tensors
  NAME/data/KEY      the bytes of one storage, which tensors are views of
  NAME/byteorder     "little" or "big" (absent in old files)

and before PyTorch 1.6 one file of five pickle programs (a magic number, a
version, the machine, the dict, the keys of the storages) and then the storages,
each as its number of elements, int64, and its bytes.

Unpickling a file runs arbitrary code. Here `pickletools` parses the program,
and the few operations that a plain state dict needs are interpreted below. No
name is imported and nothing is called: a tensor in the program becomes a
checked NumPy view of its storage, and any other operation or name is refused.
A program may refer to the same object again and again, so a small file could
describe endlessly many tensors: what it builds is bounded by the file's size.

Format: https://docs.pytorch.org/docs/stable/notes/serialization.html
"""

from collections.abc import Callable, Mapping
import dataclasses
import io
import math
import os
import pickletools
import struct
from typing import Any, BinaryIO
import zipfile

import ml_dtypes
import numpy as np

_DTYPES = {
  "BFloat16Storage": ml_dtypes.bfloat16,
  "BoolStorage": np.bool_,
  "ByteStorage": np.uint8,
  "CharStorage": np.int8,
  "DoubleStorage": np.float64,
  "FloatStorage": np.float32,
  "HalfStorage": np.float16,
  "IntStorage": np.int32,
  "LongStorage": np.int64,
  "ShortStorage": np.int16,
}
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_ORDERED = "collections OrderedDict"
# What checkpoints hold beside tensors; such values are left out.
_OTHERS = {
  "_codecs encode",
  "numpy dtype",
  "numpy ndarray",
  *(
    f"numpy.{core}.multiarray {name}"
    for core in ("core", "_core")
    for name in ("scalar", "_reconstruct")
  ),
}
_NAMES = {_TENSOR, _PARAMETER, _ORDERED, *_OTHERS} | {
  f"torch {name}" for name in _DTYPES
}

_PUSHED = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()
_MAX_TENSORS = 1_000_000
_MAX_DEPTH = 64  # of nested dicts
# Tensors may share a storage, but not so that they are this much larger than
# the file.
_MAX_EXPANSION = 16
_MIN_BYTES = 1 << 20
# Old files begin with a program that puts the number 0x1950a86a20f9469cfc6c.
_OLD_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")


class TorchFileError(ValueError):
  """A file is damaged, or holds more than a state dict of tensors."""


class _Name(str):
  """A global name in the program; it is compared, never imported."""


class _Other:
  """Stands for a value that is left out."""


@dataclasses.dataclass(frozen=True)
class _Storage:
  """Where the bytes of tensors are."""

  key: str
  dtype: np.dtype
  count: int


@dataclasses.dataclass(frozen=True, eq=False)
class _Tensor:
  """A view of a storage, not checked yet."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


class _Program:
  """A stack machine that interprets the pickle program of a state dict.

  Attributes:
    storages: those that the program names, by key.
  """

  def __init__(self):
    self._stack: list[Any] = []
    self._memo: dict[int, Any] = {}
    self.storages: dict[str, _Storage] = {}

  def run(self, program: bytes | BinaryIO) -> Any:
    """Runs a program and returns the object that it builds.

    Of a file it takes no more than the program.
    """
    for opcode, argument, position in pickletools.genops(program):
      name = opcode.name
      if name == "STOP":
        return self._stack.pop()
      if name in _PUSHED:
        self._stack.append(argument)
      elif name in _CONSTANTS:
        self._stack.append(_CONSTANTS[name])
      elif name in _TUPLES:
        self._stack.append(tuple(self._pop(_TUPLES[name])))
      elif handler := getattr(self, f"_op_{name.lower()}", None):
        handler(argument)
      else:
        raise TorchFileError(f"pickle operation {name} at byte {position}")
    raise TorchFileError("the pickle program has no end")

  def _pop(self, count: int) -> list[Any]:
    if count > len(self._stack):
      raise TorchFileError("the pickle program takes more than it put")
    cut = len(self._stack) - count
    taken, self._stack[cut:] = self._stack[cut:], []
    return taken

  def _pop_to_mark(self) -> list[Any]:
    for count, item in enumerate(reversed(self._stack)):
      if item is _MARK:
        return self._pop(count + 1)[1:]
    raise TorchFileError("the pickle program has no mark to return to")

  def _op_proto(self, _):
    pass

  _op_frame = _op_proto

  def _op_mark(self, _):
    self._stack.append(_MARK)

  def _op_empty_dict(self, _):
    self._stack.append({})

  def _op_empty_list(self, _):
    self._stack.append([])

  def _op_tuple(self, _):
    self._stack.append(tuple(self._pop_to_mark()))

  def _op_binput(self, index):
    self._memo[index] = self._stack[-1]

  _op_long_binput = _op_binput

  def _op_memoize(self, _):
    self._memo[len(self._memo)] = self._stack[-1]

  def _op_binget(self, index):
    self._stack.append(self._memo[index])

  _op_long_binget = _op_binget

  def _op_append(self, _):
    (item,) = self._pop(1)
    self._stack[-1].append(item)

  def _op_appends(self, _):
    items = self._pop_to_mark()
    self._stack[-1].extend(items)

  def _op_setitem(self, _):
    key, value = self._pop(2)
    self._stack[-1][_checked_key(key)] = value

  def _op_setitems(self, _):
    items = self._pop_to_mark()
    keys = map(_checked_key, items[::2])
    self._stack[-1].update(zip(keys, items[1::2], strict=True))

  def _op_build(self, _):
    """Drops attributes of an object: the `_metadata` of a state dict."""
    self._pop(1)
    if not isinstance(self._stack[-1], dict | _Other):
      raise TorchFileError("attributes set on something other than a dict")

  def _op_global(self, name):
    if name not in _NAMES:
      raise TorchFileError(f"the name '{name.replace(' ', '.')}'")
    self._stack.append(_Name(name))

  def _op_binpersid(self, _):
    """Reads a storage: ("storage", type, key, device, number of elements)."""
    (identity,) = self._pop(1)
    if not isinstance(identity, tuple) or len(identity) not in (5, 6):
      raise TorchFileError("a storage that is not described as one")
    kind, name, key, _, count, *view = identity
    if not isinstance(name, _Name) or not all(
      isinstance(text, str) for text in (kind, key)
    ):
      raise TorchFileError("a storage that is not described as one")
    dtype = _DTYPES.get(name.removeprefix("torch "))
    known = kind == "storage" and dtype is not None and type(count) is int
    if not known or count < 0 or any(view):
      raise TorchFileError(f"the storage {(kind, str(name), key)}")
    storage = _Storage(key, np.dtype(dtype), count)
    if self.storages.setdefault(key, storage) != storage:
      raise TorchFileError(f"the storage {key} in two ways")
    self._stack.append(storage)

  def _op_reduce(self, _):
    name, arguments = self._pop(2)
    if not isinstance(name, _Name):
      raise TorchFileError(f"a call of a {type(name).__name__}")
    if name == _TENSOR:
      self._stack.append(_tensor(*arguments[:4]))
    elif name == _PARAMETER:
      self._stack.append(arguments[0])
    elif name == _ORDERED:
      pairs = arguments[0] if arguments else ()
      self._stack.append({_checked_key(k): v for k, v in pairs})
    elif name in _OTHERS:
      self._stack.append(_Other())
    else:
      raise TorchFileError(f"a call of '{name.replace(' ', '.')}'")


def _tensor(storage, offset, shape, strides) -> _Tensor:
  if not isinstance(storage, _Storage):
    raise TorchFileError("a tensor without a storage")
  if not all(type(n) is int for n in (offset, *shape, *strides)):
    raise TorchFileError("a tensor whose shape is not of numbers")
  return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _Reader:
  """Copies tensors out of their storages."""

  def __init__(self, read: Callable[[_Storage], bytes], size: int):
    """Reads storages by `read`, of a file of `size` bytes."""
    self._read, self._arrays = read, {}
    self._bytes_left = max(size, _MIN_BYTES) * _MAX_EXPANSION

  def _array(self, storage: _Storage) -> np.ndarray:
    key, dtype, count = dataclasses.astuple(storage)
    if key not in self._arrays:
      data = self._read(storage)
      if len(data) < count * dtype.itemsize:
        raise TorchFileError(
          f"storage {key} has {len(data)} bytes, {count} x {dtype} expected"
        )
      self._arrays[key] = np.frombuffer(data, dtype, count)
    return self._arrays[key]

  def copy(self, tensor: _Tensor) -> np.ndarray:
    """Copies a tensor out of its storage."""
    storage = self._array(tensor.storage)
    offset, shape, strides = tensor.offset, tensor.shape, tensor.strides
    extent = sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    fits = min((offset, *shape, *strides), default=0) >= 0
    if math.prod(shape) and not (fits and offset + extent < storage.size):
      raise TorchFileError(
        f"a tensor {shape} beyond its storage of {storage.size}"
      )
    if math.prod(shape) > storage.size:
      raise TorchFileError(f"an expanded tensor {shape}")
    self._bytes_left -= math.prod(shape) * storage.itemsize
    if self._bytes_left < 0:
      raise TorchFileError(
        f"tensors of over {_MAX_EXPANSION} times the size of the file"
      )
    bytewise = [s * storage.itemsize for s in strides]
    start = storage[min(offset, storage.size) :]
    return np.lib.stride_tricks.as_strided(start, shape, bytewise).copy()


def _checked_key(key: Any) -> str | int:
  """Returns a key of a dict; others may take for ever to compare."""
  if not isinstance(key, str | int):
    raise TorchFileError(f"a dict with a {type(key).__name__} as key")
  return key


def _flatten(tree: Any) -> dict[str, _Tensor]:
  """Flattens `{"a": [tensor, {"b": tensor}]}` to `{"a.0": tensor, "a.1.b":
  tensor}`; drops the rest.

  Raises:
    TorchFileError: there are too many values or too deep dicts, as where dicts
      hold themselves or each other many times.
  """
  leaves, visited = {}, 0
  stack = [("", tree, 0)]
  while stack:
    name, value, depth = stack.pop()
    visited += 1
    if visited > _MAX_TENSORS or depth > _MAX_DEPTH:
      raise TorchFileError("dicts that hold each other again and again")
    if isinstance(value, _Tensor):
      leaves[name] = value
      continue
    if isinstance(value, list | tuple):
      value = dict(enumerate(value))
    if isinstance(value, Mapping):
      stack += [
        (f"{name}.{key}" if name else str(key), part, depth + 1)
        for key, part in reversed(value.items())
      ]
  return leaves


def read(
  source: str | os.PathLike[str] | BinaryIO, *, name: str | os.PathLike = ""
) -> dict[str, np.ndarray]:
  """Reads the tensors of a PyTorch checkpoint by name.

  Names of nested dicts, and positions in lists, are joined by dots; what is not
  a tensor (an epoch, a number of NumPy's) is left out.

  Args:
    source: path of the file, or a file that can seek.
    name: what errors call it; "" for its path.

  Raises:
    FileNotFoundError: there is no such file.
    TorchFileError: the file is damaged, or its program builds anything but
      dicts of tensors; names the file and the cause.
  """
  name = os.fspath(name or source)
  try:
    if hasattr(source, "read"):
      return _read_file(source)
    with open(source, "rb") as file:
      return _read_file(file)
  except TorchFileError as error:
    raise TorchFileError(
      f"{name}: not a plain PyTorch state dict: it holds"
      f" {error}; only dicts of tensors are read"
    ) from None
  except FileNotFoundError:
    raise
  except Exception as error:  # Damage may surface anywhere.
    raise TorchFileError(
      f"{name}: not a readable PyTorch checkpoint"
      f" ({type(error).__name__}: {error})"
    ) from None


def _read_file(file: BinaryIO) -> dict[str, np.ndarray]:
  start = file.read(len(_OLD_MAGIC))
  file.seek(0)
  if start == _OLD_MAGIC:
    return _read_old(file)
  with zipfile.ZipFile(file) as archive:
    return _read_archive(archive)


def _read_archive(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
  # A stored (not deflated) entry cannot be larger than the file itself.
  if any(entry.compress_type for entry in archive.infolist()):
    raise TorchFileError("compressed entries")
  names = archive.namelist()
  programs = [n for n in names if n.split("/")[1:] == ["data.pkl"]]
  if len(programs) != 1:
    raise TorchFileError(f"{len(programs)} entries named data.pkl")
  folder = programs[0].removesuffix("data.pkl")
  if f"{folder}byteorder" in names:
    order = archive.read(f"{folder}byteorder").decode()
    if order != "little":
      raise TorchFileError(f"{order}-endian storages")
  tensors = _flatten(_Program().run(archive.read(programs[0])))
  size = sum(entry.file_size for entry in archive.infolist())
  reader = _Reader(lambda of: archive.read(f"{folder}data/{of.key}"), size)
  return {name: reader.copy(tensor) for name, tensor in tensors.items()}


def _read_old(file: BinaryIO) -> dict[str, np.ndarray]:
  """Reads the format of before PyTorch 1.6."""
  data = file.read()
  file = io.BytesIO(data)
  _, _, machine = (_Program().run(file) for _ in range(3))
  if machine.get("little_endian") is not True:
    raise TorchFileError("big-endian storages")
  program = _Program()
  tensors = _flatten(program.run(file))
  places = {}
  for key in _Program().run(file):
    if key not in program.storages:
      raise TorchFileError(f"a storage {key} of no tensor")
    (count,) = struct.unpack("<q", file.read(8))
    size = max(0, count) * program.storages[key].dtype.itemsize
    places[key] = slice(file.tell(), file.tell() + size)
    file.seek(size, io.SEEK_CUR)
  reader = _Reader(lambda of: data[places[of.key]], len(data))
  return {name: reader.copy(tensor) for name, tensor in tensors.items()}
