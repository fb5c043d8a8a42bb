"""Collectives of a compiled program, read off its HLO text.

The compiler's own word on a layout: what is moved between devices in a step, in
which shapes, and how often. A ring over n devices moves, on each of them,

  all-gather             (n - 1) / n    of the result
  reduce-scatter         (n - 1)        times the result
  all-reduce             2 (n - 1) / n  times the result
  all-reduce-scatter     (n - 1) / n    of the result, of which a part is kept
  all-to-all             (n - 1) / n    of the result
  collective-permute     the result

(Thakur, Rabenseifner and Gropp, "Optimization of collective communication
operations in MPICH", 2005).
"""

from collections.abc import Iterator
import dataclasses
import math
import re

KINDS = (
  *("all-gather", "all-reduce", "reduce-scatter", "all-to-all"),
  "collective-permute",
)
# `%name = f32[8,128]{1,0} all-gather(...)`; a tuple for several arrays at once.
_LINE = re.compile(
  rf"= (?P<result>\(.*?\)|\S+) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\("
)
_ARRAY = re.compile(r"\b([a-z]+[0-9]+[a-z0-9]*|pred)\[([\d,]*)\]")
_BITS = {"pred": 8, "s4": 4, "u4": 4}
# Devices of a group: {{0,1},{2,3}}, [groups,size], or axes of a mesh.
_LISTED = re.compile(r"replica_groups=\{\{([\d,]+)\}")
_COUNTED = re.compile(r"replica_groups=\[\d+,(\d+)\]")
_OVER_AXES = re.compile(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}")
_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) \(.*\{$")
_CALLS = re.compile(
  r"(?:calls|to_apply|body|branch_computations|called_computations)="
  r"(?:\{(?P<many>[^}]*)\}|%?(?P<one>[\w.-]+))"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_WHILE = re.compile(r" while\(.*condition=%?([\w.-]+)")
_LIMIT = re.compile(r"= s32\[\]\S* constant\((\d+)\)")
# One asynchronous collective of a TPU program: its start, the work beside it
# and its end are three computations, each with its line.
_CHAIN = re.compile(r'channel_id=(\d+).*chain_id="(\d+)"')


@dataclasses.dataclass(frozen=True)
class Collective:
  """One array that is moved between devices.

  Attributes:
    kind: one of `KINDS`, or `all-reduce-scatter`.
    dtype: dtype as HLO writes it, such as `bf16`.
    shape: shape of the result on one device.
    group: number of devices that take part; 0 where the program does not say.
    times: number of times that it runs in one run of the program, with the trip
      counts of the loops around it.
  """

  kind: str
  dtype: str
  shape: tuple[int, ...]
  group: int = 0
  times: int = 1

  @property
  def bytes(self) -> int:
    """Size of the result on one device, of one time."""
    digits = re.search(r"\d+", self.dtype)
    bits = _BITS.get(self.dtype) or int(digits[0])
    return math.prod(self.shape) * bits // 8

  @property
  def moved(self) -> float:
    """Bytes that one device sends in a ring, all times together."""
    n = max(self.group, 2)
    share = {
      "all-gather": (n - 1) / n,
      "reduce-scatter": n - 1,
      "all-reduce": 2 * (n - 1) / n,
      "all-reduce-scatter": (n - 1) / n,
      "all-to-all": (n - 1) / n,
      "collective-permute": 1,
    }
    return share[self.kind] * self.bytes * self.times


def read(hlo: str) -> list[Collective]:
  """Reads the collectives of a program from `compiled.as_text()`.

  A loop whose trip count cannot be read counts as one time.
  """
  bodies, entry = _computations(hlo)
  found: list[Collective] = []
  chains: set[tuple[str, str]] = set()
  for name, times in _times(bodies, entry).items():
    # XLA for TPU has a reduce-scatter as an all-reduce inside such a fusion.
    scatters = name.startswith("all-reduce-scatter")
    for line in bodies.get(name, ()):
      chain = _CHAIN.search(line)
      if not _LINE.search(line) or (chain and chain.groups() in chains):
        continue
      chains.update([chain.groups()] if chain else [])
      found += _read_line(line, times, scatters)
  return found


def _read_line(line: str, times: int, scatters: bool) -> Iterator[Collective]:
  match = _LINE.search(line)
  kind, group = match["kind"], _group(line)
  arrays = _ARRAY.findall(match["result"])
  if match["start"] and kind != "all-reduce":
    # The start of an asynchronous one gives (operands, results, contexts).
    arrays = [a for a in arrays if a != ("u32", "")]
    arrays = arrays[len(arrays) // 2 :]
  for dtype, text in arrays:
    shape = tuple(int(n) for n in text.split(",") if n)
    if scatters:
      yield Collective("all-reduce-scatter", dtype, shape, group, times)
    else:
      yield Collective(kind, dtype, shape, group, times)


def _group(line: str) -> int:
  """Returns the number of devices of a group; 0 where none is written."""
  if match := _COUNTED.search(line):
    return int(match[1])
  if match := _LISTED.search(line):
    return match[1].count(",") + 1
  if match := _OVER_AXES.search(line):
    sizes = dict(axis.split("=") for axis in match[1].split(","))
    return math.prod(int(sizes[axis]) for axis in match[2].split(","))
  return 0


def _computations(hlo: str) -> tuple[dict[str, list[str]], str]:
  """Returns the lines of every computation, and the name of the entry.

  Lines outside of any computation belong to "", which is then the entry.
  """
  bodies, entry, name = {"": []}, "", ""
  for line in hlo.splitlines():
    if match := _COMPUTATION.match(line):
      name = match["name"]
      bodies[name] = []
      entry = name if match["entry"] else entry
    elif line.startswith("}") and not line.startswith("}}"):
      name = ""  # A Pallas kernel's metadata has lines of its own with "}}".
    else:
      bodies[name].append(line)
  return bodies, entry


def _times(bodies: dict[str, list[str]], entry: str) -> dict[str, int]:
  """Returns how often each computation runs in one run of the entry."""
  times: dict[str, int] = {}

  def visit(name, factor):
    times[name] = times.get(name, 0) + factor
    for line in bodies.get(name, ()):
      inner = factor * _trips(line, bodies)
      for call in _CALLS.finditer(line):
        for called in re.findall(r"[\w.-]+", call["many"] or call["one"]):
          visit(called, inner)

  visit(entry, 1)
  return times


def _trips(line: str, bodies: dict[str, list[str]]) -> int:
  """Returns the trip count of a loop; 1 for any other line."""
  if match := _TRIPS.search(line):
    return int(match[1])
  if match := _WHILE.search(line):
    # `jax.lax.scan` counts from 0 up to the one constant of its condition.
    condition = "\n".join(bodies[match[1]])
    limits = _LIMIT.findall(condition)
    if len(limits) == 1 and "direction=LT" in condition:
      return int(limits[0])
  return 1
