"""Chips and pods that programs are planned for without having one.

A topology is written `v5p:4x4x4`: a chip, and the shape of one slice in chips.
libtpu describes its devices and compiles for them on any machine. For GPUs,
`h100:8`, there is no such compiler; slices are the machines.
"""

import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

import jax

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """Figures of one accelerator, from the vendor's data sheet.

  https://cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e. That of v4 does not
  say how fast slices exchange data; it is taken to be as v5p.

  Attributes:
    hbm_bytes: memory of a chip.
    hbm_rate: bytes a second between memory and chip.
    link_rate: bytes a second that a chip sends at most, all links together.
    slice_rate: bytes a second that a chip sends to other slices, over the data
      centre's network.
    shapes: shapes of the slices that are offered, the smallest first.
    config_name: libtpu's name of the chip with its cores as one device, where
      that is not its default.
    gpu: name of a GPU in `throughput.PEAK_FLOPS`; "" for a TPU.
  """

  hbm_bytes: int
  hbm_rate: float
  link_rate: float
  slice_rate: float
  shapes: tuple[str, ...]
  config_name: str = ""
  gpu: str = ""


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = (
  *("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"),
  *("8x8x16", "8x16x16"),
)
_MACHINE = ("1", "2", "4", "8")
# Link rates are 2,400, 1,600, 4,800 and 3,584 Gbit/s.
CHIPS = {
  "v4": Chip(32 * GIB, 1228e9, 300e9, 6.25e9, _CUBES, "megacore"),
  "v5e": Chip(16 * GIB, 819e9, 200e9, 3.125e9, _FLAT),
  "v5p": Chip(95 * GIB, 2765e9, 600e9, 6.25e9, _CUBES),
  "v6e": Chip(32 * GIB, 1640e9, 448e9, 12.5e9, _FLAT),
  # NVLink in one direction, and one network card of 200 or 400 Gbit/s for each.
  "a100": Chip(80 * 10**9, 2039e9, 300e9, 25e9, _MACHINE, gpu="A100"),
  "h100": Chip(80 * 10**9, 3350e9, 450e9, 50e9, _MACHINE, gpu="H100"),
  "h200": Chip(141 * 10**9, 4800e9, 450e9, 50e9, _MACHINE, gpu="H200"),
  "b200": Chip(180 * 10**9, 8000e9, 900e9, 50e9, _MACHINE, gpu="B200"),
}


def memory_of(device: Any) -> int | None:
  """Returns the bytes of memory of a device; None where it does not say."""
  try:
    return (device.memory_stats() or {}).get("bytes_limit")
  except (jax.errors.JaxRuntimeError, NotImplementedError):
    return None


class TopologyError(ValueError):
  """A topology that does not exist, or that cannot be described here."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
  """Slices of one kind of chip.

  Attributes:
    name: key of `CHIPS`.
    shape: chips along each dimension of a slice.
    num_slices: number of slices, joined by the data centre's network.
  """

  name: str
  shape: tuple[int, ...]
  num_slices: int = 1

  @property
  def chip(self) -> Chip:
    """Figures of its chips."""
    return CHIPS[self.name]

  @property
  def num_chips(self) -> int:
    """Number of chips of all slices."""
    return math.prod(self.shape) * self.num_slices

  def __str__(self) -> str:
    slices = f"{self.num_slices} x " if self.num_slices > 1 else ""
    return f"{slices}{self.name}:{'x'.join(map(str, self.shape))}"


def _example(name: str) -> str:
  """Returns the shape of a slice of middling size."""
  shapes = CHIPS[name].shapes
  return shapes[(len(shapes) - 1) // 2]


def parse(text: str, *, num_slices: int = 1) -> Topology:
  """Reads a topology as it is written on the command line.

  Args:
    text: such as `v5p:4x4x4`.
    num_slices: number of slices of that shape.

  Raises:
    TopologyError: there is no such chip, or the shape is not one.
  """
  name, _, shape = text.partition(":")
  known = ", ".join(f"{key}:{_example(key)}" for key in CHIPS)
  if name not in CHIPS:
    raise TopologyError(f"topology {text!r}: no such chip; give one as {known}")
  rank = _example(name).count("x") + 1
  if CHIPS[name].gpu and shape not in CHIPS[name].shapes:
    raise TopologyError(
      f"topology {text!r}: machines of {name} have"
      f" {', '.join(CHIPS[name].shapes)} chips; --num_slices is their number"
    )
  if not re.fullmatch(r"[1-9]\d*" + r"x[1-9]\d*" * (rank - 1), shape):
    raise TopologyError(
      f"topology {text!r}: a slice of {name} has {rank} dimensions, such as"
      f" {name}:{_example(name)}"
    )
  if num_slices < 1:
    raise TopologyError(f"num_slices={num_slices}: use 1 or more")
  sizes = tuple(map(int, shape.split("x")))
  return Topology(name=name, shape=sizes, num_slices=num_slices)


def describe_devices(topology: Topology) -> list[Any]:
  """Describes the devices of a topology, for meshes and for compiling.

  Raises:
    TopologyError: libtpu is missing, or refuses the shape.
  """
  from jax.experimental import topologies

  # Without these libtpu asks the network which TPU this machine is.
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5e-8")
  os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
  os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")
  # Only one process may hold a TPU, but any number may compile.
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
  slice_shape = dataclasses.replace(topology, num_slices=1)
  settings = {}
  if topology.chip.config_name:
    settings["chip_config_name"] = topology.chip.config_name
  if topology.num_slices > 1:
    settings["num_slices"] = topology.num_slices
  if math.prod(topology.shape) < 4:  # libtpu's own hosts have four chips.
    bounds = (*topology.shape, 1, 1)[:3]
    settings["chips_per_host_bounds"] = bounds
  if not importlib.util.find_spec("libtpu"):
    raise TopologyError(
      "compiling for TPU needs libtpu: pip install 'v2a_jax[plan]'"
    )
  try:
    described = topologies.get_topology_desc(
      str(slice_shape), platform="tpu", **settings
    )
  except RuntimeError as error:
    reason = str(error).strip().partition("\n")[0]
    raise TopologyError(
      f"no topology {topology}: {reason}; slices of {topology.name} are"
      f" {', '.join(topology.chip.shapes)}"
    ) from error
  return list(described.devices)
