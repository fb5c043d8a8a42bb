"""Interprets the pickle program of a PyTorch checkpoint, without unpickling.

Unpickling runs arbitrary code. Here `pickletools` parses the program, and the
few operations that a plain state dict needs are interpreted. No name is
imported and nothing is called: a tensor in the program becomes a `Tensor`, a
view of a storage that the reader of the file checks, values that are no tensors
become nothing, and any other operation or name is refused.
"""

import dataclasses
import pickletools
from typing import Any, BinaryIO

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


class TorchFileError(ValueError):
  """A file is damaged, or holds more than a state dict of tensors."""


class _Name(str):
  """A global name in the program; it is compared, never imported."""


class _Other:
  """Stands for a value that is left out."""


@dataclasses.dataclass(frozen=True)
class Storage:
  """Where the bytes of tensors are."""

  key: str
  dtype: np.dtype
  count: int


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
  """A view of a storage, not checked yet."""

  storage: Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


class Program:
  """A stack machine that interprets the pickle program of a state dict.

  Attributes:
    storages: those that the program names, by key.
  """

  def __init__(self):
    self._stack: list[Any] = []
    self._memo: dict[int, Any] = {}
    self.storages: dict[str, Storage] = {}

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
    storage = Storage(key, np.dtype(dtype), count)
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


def _tensor(storage, offset, shape, strides) -> Tensor:
  if not isinstance(storage, Storage):
    raise TorchFileError("a tensor without a storage")
  if not all(type(n) is int for n in (offset, *shape, *strides)):
    raise TorchFileError("a tensor whose shape is not of numbers")
  return Tensor(storage, offset, tuple(shape), tuple(strides))


def _checked_key(key: Any) -> str | int:
  """Returns a key of a dict; others may take for ever to compare."""
  if not isinstance(key, str | int):
    raise TorchFileError(f"a dict with a {type(key).__name__} as key")
  return key
