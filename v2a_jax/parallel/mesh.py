"""The device mesh: four axes, `data`, `fsdp`, `context` and `tensor`.

`data` replicates parameters and splits the batch; `fsdp` splits the batch and
the parameters; `context` splits tokens along time, and the frames that are
encoded; `tensor` splits heads, hidden units and vocabulary. Only `data` crosses
the slow network between TPU slices.
"""

from collections.abc import Iterable, Sequence
import dataclasses
import math

import jax
from jax.experimental import mesh_utils
import numpy as np

from v2a_jax.basics.settings import check, choose

AXES = ("data", "fsdp", "context", "tensor")
MODES = ("mesh", "auto")
REDUCE_DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
  """Sizes of the mesh's axes; one of them may be -1, which takes the rest.

  Attributes:
    data: number of devices that split the batch and replicate the parameters.
    fsdp: number of devices that split the batch and the parameters.
    tensor: number of devices that split heads, hidden units and vocabulary.
    context: number of devices that split tokens along time; for long windows.
  """

  data: int = -1
  fsdp: int = 1
  tensor: int = 1
  context: int = 1

  def __post_init__(self):
    for axis in AXES:
      if getattr(self, axis) != -1:
        check(self, **{axis: "[1, inf)"})

  @property
  def shape(self) -> tuple[int, ...]:
    """Sizes in the order of `AXES`."""
    return tuple(getattr(self, axis) for axis in AXES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParallelConfig:
  """How the devices share the work.

  Attributes:
    mode: `mesh` takes all axes from the section `mesh`; `auto` chooses data,
      fsdp and zero1 by the memory of a device, and says why.
    zero1: whether optimizer state and averaged weights are split over `data`
      too (ZeRO-1, arXiv:1910.02054); parameters are not.
    reduce_dtype: dtype in which gradients are summed over devices, `float32` or
      `bfloat16`.
    offload_optimizer: whether optimizer state rests in the host's memory.
  """

  mode: str = "mesh"
  zero1: bool = False
  reduce_dtype: str = "float32"
  offload_optimizer: bool = False

  def __post_init__(self):
    choose(self, mode=MODES, reduce_dtype=REDUCE_DTYPES)


def make_mesh(
  config: MeshConfig, devices: Sequence[jax.Device] | None = None
) -> jax.sharding.Mesh:
  """Makes a mesh over `devices` (default: all devices of all processes).

  The axis types are always stated: `jax.make_mesh` defaults to Explicit and
  `Mesh` to Auto, and this code base is written for Auto.

  Raises:
    ValueError: the axes do not multiply to the number of devices, or others
      than `data` would cross TPU slices.
  """
  devices = jax.devices() if devices is None else list(devices)
  shape = resolve_shape(config, len(devices))
  return jax.sharding.Mesh(
    _device_grid(shape, devices),
    AXES,
    axis_types=(jax.sharding.AxisType.Auto,) * len(AXES),
  )


def resolve_shape(config: MeshConfig, num_devices: int) -> tuple[int, ...]:
  """Fills in the -1.

  Raises:
    ValueError: the axes do not multiply to `num_devices`.
  """
  sizes = dict(zip(AXES, config.shape))
  fixed = math.prod(size for size in config.shape if size != -1)
  free = config.shape.count(-1)
  if free > 1:
    raise ValueError(f"mesh {sizes}: at most one size may be -1")
  if num_devices % fixed or (not free and num_devices != fixed):
    divisors = [n for n in range(1, num_devices + 1) if num_devices % n == 0]
    raise ValueError(
      f"mesh {sizes} does not cover {num_devices} devices: choose sizes"
      f" from {divisors} whose product is {num_devices}, or set one to -1"
    )
  return tuple(
    num_devices // fixed if size == -1 else size for size in config.shape
  )


def num_slices(mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh) -> int:
  """Returns the number of TPU slices of a mesh; 1 of one without devices."""
  if isinstance(mesh, jax.sharding.AbstractMesh):
    return 1
  return len(_slices(mesh.devices.flat))


def _slices(devices: Iterable[jax.Device]) -> set[int]:
  return {getattr(device, "slice_index", 0) for device in devices}


def _device_grid(
  shape: tuple[int, ...], devices: Sequence[jax.Device]
) -> np.ndarray:
  """Orders devices so that neighbours on an axis are near in the network."""
  slices = _slices(devices)
  if len(slices) == 1:
    return mesh_utils.create_device_mesh(
      shape, devices, allow_split_physical_axes=True
    )
  data, *inner = shape
  if data % len(slices):
    raise ValueError(
      f"mesh data={data} is not a multiple of the {len(slices)} slices; only"
      " the data axis may cross slices"
    )
  return mesh_utils.create_hybrid_device_mesh(
    (data // len(slices), *inner),
    (len(slices), *[1] * len(inner)),
    devices,
    allow_split_physical_axes=True,
  )
