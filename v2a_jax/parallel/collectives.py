"""Collectives of a compiled program, read off its HLO text.

The compiler's own word on a layout: what is moved between devices in a step, in
which shapes. Bytes are those of the operation's result on one device.
"""

import dataclasses
import math
import re

KINDS = (
  *("all-gather", "all-reduce", "reduce-scatter", "all-to-all"),
  "collective-permute",
)
# `%name = f32[8,128]{1,0} all-gather(...)`; a tuple for several arrays at once.
_LINE = re.compile(
  rf"= (?P<result>\(.*?\)|\S+) (?P<kind>{'|'.join(KINDS)})(?:-start)?\("
)
_ARRAY = re.compile(r"\b([a-z]+[0-9]+[a-z0-9]*|pred)\[([\d,]*)\]")
_BITS = {"pred": 8, "s4": 4, "u4": 4}


@dataclasses.dataclass(frozen=True)
class Collective:
  """One array that is moved between devices.

  Attributes:
    kind: one of `KINDS`.
    dtype: dtype as HLO writes it, such as `bf16`.
    shape: shape of the result on one device.
  """

  kind: str
  dtype: str
  shape: tuple[int, ...]

  @property
  def bytes(self) -> int:
    """Size of the result on one device."""
    digits = re.search(r"\d+", self.dtype)
    bits = _BITS.get(self.dtype) or int(digits[0])
    return math.prod(self.shape) * bits // 8


def read(hlo: str) -> list[Collective]:
  """Reads the collectives of a program from `compiled.as_text()`."""
  found = []
  for line in hlo.splitlines():
    if match := _LINE.search(line):
      for dtype, shape in _ARRAY.findall(match["result"]):
        dims = tuple(int(n) for n in shape.split(",") if n)
        found.append(Collective(match["kind"], dtype, dims))
  return found
