"""The format in which a confined child process sends its results.

The parent trusts nothing that a child sends after it has decoded a hostile
file, so results are not pickled: building a value of this format calls nothing
but the constructors below.

  header:   JSON; a value is null, true, a number, a string, or ["kind", …]
  buffers:  bytes of the arrays, in the order in which the header names them
"""

from collections.abc import Callable, Sequence
import dataclasses
from fractions import Fraction
import json
import math
import pathlib
import struct
from typing import Any

import numpy as np

from v2a_jax.media.base import Audio, Clip, MediaError, MediaInfo, Video

LENGTH = struct.Struct("<Q")  # of a size on the way
MAX_FILES = 8  # descriptors with a request
_DTYPES = ("|u1", "|i1", "<i2", "<i4", "<i8", "<f4", "<f8", "|b1")
_RECORDS = {cls.__name__: cls for cls in (Audio, Clip, MediaInfo, Video)}
_SEQUENCES = {"list": list, "tuple": tuple}


class WireError(ValueError):
  """A message is not of this format, or a value cannot be sent in it."""


def encode(value: Any) -> tuple[bytes, list[memoryview]]:
  """Returns the header and the buffers of a value.

  Raises:
    WireError: the value, or one in it, is of another type than those below.
  """
  buffers: list[memoryview] = []
  return json.dumps(_pack(value, buffers)).encode(), buffers


def decode(header: bytes, buffers: Sequence[bytearray]) -> Any:
  """Builds the value of a header and its buffers; arrays share their memory.

  Raises:
    WireError: they are not what `encode` returns.
  """
  left = list(buffers)
  try:
    value = _unpack(json.loads(header), left)
  except WireError:
    raise
  except (
    ArithmeticError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
  ) as error:
    raise WireError(f"damaged message ({type(error).__name__})") from None
  if left:
    raise WireError(f"{len(left)} buffers that no array is made of")
  return value


def _pack(value: Any, buffers: list[memoryview]) -> Any:
  pack = lambda values: [_pack(v, buffers) for v in values]
  if value is None or type(value) in (bool, int, float, str):
    return value
  if isinstance(value, np.generic):
    return _pack(value.item(), buffers)
  if isinstance(value, np.ndarray) and value.dtype.str in _DTYPES:
    buffers.append(memoryview(np.ascontiguousarray(value)).cast("B"))
    return ["array", value.dtype.str, list(value.shape)]
  if isinstance(value, bytes):
    buffers.append(memoryview(value))
    return ["bytes"]
  if isinstance(value, Fraction):
    return ["fraction", value.numerator, value.denominator]
  if isinstance(value, pathlib.PurePath):
    return ["path", str(value)]
  if isinstance(value, MediaError):
    return ["error", *map(str, value.args)]
  if type(value) in (list, tuple):
    return [type(value).__name__, *pack(value)]
  if type(value) is dict:
    return ["dict", pack(value), pack(value.values())]
  if type(value).__name__ in _RECORDS and dataclasses.is_dataclass(value):
    fields = [getattr(value, f.name) for f in dataclasses.fields(value)]
    return ["record", type(value).__name__, *pack(fields)]
  raise WireError(f"a reading process cannot return a {type(value).__name__}")


def _unpack(value: Any, buffers: list[bytearray]) -> Any:
  if not isinstance(value, list):
    if isinstance(value, dict):
      raise WireError("an object where a value is expected")
    return value
  kind, *rest = value
  if kind in _SEQUENCES:
    return _SEQUENCES[kind](_unpack(v, buffers) for v in rest)
  return _BUILDERS[kind](rest, buffers)


def _array(rest: list, buffers: list[bytearray]) -> np.ndarray:
  dtype, shape = rest
  data = buffers.pop(0) if buffers else b""
  counts = all(type(n) is int and n >= 0 for n in shape)
  if dtype not in _DTYPES or not counts:
    raise WireError(f"an array of {dtype!r} {shape!r}")
  if math.prod(shape) * np.dtype(dtype).itemsize != len(data):
    raise WireError(f"{len(data)} bytes for an array of {dtype} {shape}")
  return np.frombuffer(data, dtype).reshape(shape)


def _bytes(rest: list, buffers: list[bytearray]) -> bytes:
  if rest or not buffers:
    raise WireError("bytes without a buffer")
  return bytes(buffers.pop(0))


def _record(rest: list, buffers: list[bytearray]) -> Any:
  name, *values = rest
  fields = dataclasses.fields(_RECORDS[name])
  named = zip(fields, values, strict=True)
  return _RECORDS[name](**{f.name: _unpack(v, buffers) for f, v in named})


def _dict(rest: list, buffers: list[bytearray]) -> dict:
  keys, values = ([_unpack(v, buffers) for v in part] for part in rest)
  return dict(zip(keys, values, strict=True))


def _texts(rest: list, count: int) -> list[str]:
  if len(rest) != count or not all(isinstance(text, str) for text in rest):
    raise WireError("a text is missing")
  return rest


_BUILDERS: dict[str, Callable[[list, list[bytearray]], Any]] = {
  "array": _array,
  "bytes": _bytes,
  "record": _record,
  "dict": _dict,
  "fraction": lambda rest, _: Fraction(*map(int, rest)),
  "path": lambda rest, _: pathlib.Path(*_texts(rest, 1)),
  "error": lambda rest, _: MediaError(*_texts(rest, 3)),
}
