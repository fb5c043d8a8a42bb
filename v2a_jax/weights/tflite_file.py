"""Reads the constants of a TensorFlow Lite model, without TensorFlow.

A .tflite file is a FlatBuffer: tables that begin with the offset of a list of
their fields' offsets, all numbers little-endian. Of the schema these fields are
read:

  Model         2: subgraphs  4: buffers
  SubGraph      0: tensors
  Tensor        0: shape  1: type  2: buffer  3: name  4: quantization
  Quantization  2: scale  3: zero point  6: axis that scales are along
  Buffer        0: data

Integers become x = scale (q - zero point), float32. The schema:
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/compiler/mlir/lite/schema/schema.fbs
"""

from collections.abc import Iterator
import dataclasses
import math
import os
import struct

import numpy as np

from v2a_jax.basics import files

_MAGIC = b"TFL3"
_TYPES = {
  0: np.float32,
  1: np.float16,
  2: np.int32,
  3: np.uint8,
  4: np.int64,
  7: np.int16,
  9: np.int8,
}


class TFLiteFileError(ValueError):
  """A file is damaged, or no TensorFlow Lite model."""


@dataclasses.dataclass(frozen=True)
class _Table:
  """A table of a FlatBuffer, at a position in its bytes."""

  data: bytes
  at: int

  def number(self, kind: str, at: int) -> int:
    (value,) = struct.unpack_from(f"<{kind}", self.data, at)
    return value

  def field(self, index: int) -> int | None:
    """Returns the position of a field; None where it has its default."""
    fields = self.at - self.number("i", self.at)
    if 4 + 2 * index >= self.number("H", fields):
      return None
    offset = self.number("H", fields + 4 + 2 * index)
    return self.at + offset if offset else None

  def scalar(self, index: int, kind: str) -> int:
    at = self.field(index)
    return 0 if at is None else self.number(kind, at)

  def table(self, index: int) -> "_Table | None":
    at = self.field(index)
    return None if at is None else _Table(self.data, at + self.number("I", at))

  def vector(self, index: int, dtype) -> np.ndarray:
    """Returns a vector of numbers; empty where the field is absent."""
    at = self.field(index)
    if at is None:
      return np.zeros(0, dtype)
    at += self.number("I", at)
    dtype = np.dtype(dtype).newbyteorder("<")
    return np.frombuffer(self.data, dtype, self.number("I", at), at + 4)

  def tables(self, index: int) -> Iterator["_Table"]:
    """Yields the tables of a vector."""
    at = self.field(index)
    if at is None:
      return
    at += self.number("I", at)
    for i in range(self.number("I", at)):
      place = at + 4 + 4 * i
      yield _Table(self.data, place + self.number("I", place))


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """Reads the constants of a model by name, as float32; integers without scale
  are left as they are.

  Raises:
    FileNotFoundError: there is no such file.
    TFLiteFileError: it is damaged, or no TensorFlow Lite model; names it.
  """
  data = files.read_bytes(path)
  if data[4:8] != _MAGIC:
    raise TFLiteFileError(f"{os.fspath(path)}: not a TensorFlow Lite model")
  try:
    return dict(_constants(_Table(data, struct.unpack_from("<I", data)[0])))
  except (struct.error, ValueError, IndexError, KeyError) as error:
    raise TFLiteFileError(
      f"{os.fspath(path)}: a damaged TensorFlow Lite model"
      f" ({type(error).__name__}: {error})"
    ) from None


def _constants(model: _Table) -> Iterator[tuple[str, np.ndarray]]:
  buffers = [*model.tables(4)]
  for graph in model.tables(2):
    for tensor in graph.tables(0):
      data = buffers[tensor.scalar(2, "I")].vector(0, np.uint8)
      dtype = _TYPES.get(tensor.scalar(1, "b"))
      if data.size and dtype is not None:
        name = tensor.vector(3, np.uint8).tobytes().decode()
        yield name, _values(tensor, data, np.dtype(dtype))


def _values(tensor: _Table, data: np.ndarray, dtype: np.dtype) -> np.ndarray:
  shape = [int(n) for n in tensor.vector(0, np.int32)]
  if (
    math.prod(shape) * dtype.itemsize != data.size or min(shape, default=1) < 0
  ):
    raise ValueError(f"a tensor {shape} of {data.size} bytes")
  values = data.view(dtype.newbyteorder("<")).astype(dtype).reshape(shape)
  quantization = tensor.table(4)
  if quantization is None or dtype.kind == "f":
    return values
  scale = quantization.vector(2, np.float32)
  if not scale.size:
    return values
  zero = quantization.vector(3, np.int64)
  along = [1] * len(shape)
  if scale.size > 1:
    along[quantization.scalar(6, "i")] = scale.size
  zero = zero.reshape(along) if zero.size == scale.size else 0
  return ((values - zero) * scale.reshape(along)).astype(np.float32)
