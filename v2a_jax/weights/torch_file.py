"""Reads the tensors of a PyTorch checkpoint without PyTorch or unpickling.

`torch.save` writes an uncompressed zip archive:

  NAME/data.pkl      a pickle program that builds a dict of tensors
  NAME/data/KEY      the bytes of one storage, which tensors are views of
  NAME/byteorder     "little" or "big" (absent in old files)

and before PyTorch 1.6 one file of five pickle programs (a magic number, a
version, the machine, the dict, the keys of the storages) and then the storages,
each as its number of elements, int64, and its bytes.

Unpickling a file runs arbitrary code; torch_program.py interprets the program
instead, and here its tensors become checked views of their storages. A program
may refer to the same object again and again, so a small file could describe
endlessly many tensors: what it builds is bounded by the file's size.

Format: https://docs.pytorch.org/docs/stable/notes/serialization.html
"""

from collections.abc import Callable, Mapping
import dataclasses
import io
import math
import os
import struct
from typing import Any, BinaryIO
import zipfile

import numpy as np

from v2a_jax.basics import files
from v2a_jax.weights.torch_program import (
  Program,
  Storage,
  Tensor,
  TorchFileError,
)

_MAX_TENSORS = 1_000_000
_MAX_DEPTH = 64  # of nested dicts
# Tensors may share a storage, but not so that they are this much larger than
# the file.
_MAX_EXPANSION = 16
_MIN_BYTES = 1 << 20
# Old files begin with a program that puts the number 0x1950a86a20f9469cfc6c.
_OLD_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")


class _Reader:
  """Copies tensors out of their storages, of which it keeps the last in memory."""

  def __init__(self, read: Callable[[Storage], bytes], size: int):
    """Reads storages by `read`, of a file of `size` bytes."""
    self._read, self._last = read, (None, None)
    self._bytes_left = max(size, _MIN_BYTES) * _MAX_EXPANSION

  def _array(self, storage: Storage) -> np.ndarray:
    key, dtype, count = dataclasses.astuple(storage)
    if self._last[0] != storage:
      self._last = (None, None)  # Before the next one is read.
      data = self._read(storage)
      if len(data) < count * dtype.itemsize:
        raise TorchFileError(
          f"storage {key} has {len(data)} bytes, {count} x {dtype} expected"
        )
      self._last = storage, np.frombuffer(data, dtype, count)
    return self._last[1]

  def copy(self, tensor: Tensor) -> np.ndarray:
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


def _flatten(tree: Any) -> dict[str, Tensor]:
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
    if isinstance(value, Tensor):
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
    with open(files.open_regular(source), "rb") as file:
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
  tensors = _flatten(Program().run(archive.read(programs[0])))
  size = sum(entry.file_size for entry in archive.infolist())
  reader = _Reader(lambda of: archive.read(f"{folder}data/{of.key}"), size)
  return {name: reader.copy(tensor) for name, tensor in tensors.items()}


def _read_old(file: BinaryIO) -> dict[str, np.ndarray]:
  """Reads the format of before PyTorch 1.6."""
  data = file.read()
  file = io.BytesIO(data)
  _, _, machine = (Program().run(file) for _ in range(3))
  if machine.get("little_endian") is not True:
    raise TorchFileError("big-endian storages")
  program = Program()
  tensors = _flatten(program.run(file))
  places = {}
  for key in Program().run(file):
    if key not in program.storages:
      raise TorchFileError(f"a storage {key} of no tensor")
    (count,) = struct.unpack("<q", file.read(8))
    size = max(0, count) * program.storages[key].dtype.itemsize
    places[key] = slice(file.tell(), file.tell() + size)
    file.seek(size, io.SEEK_CUR)
  reader = _Reader(lambda of: data[places[of.key]], len(data))
  return {name: reader.copy(tensor) for name, tensor in tensors.items()}
