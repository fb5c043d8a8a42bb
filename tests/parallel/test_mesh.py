"""Sizes and order of the device mesh."""

import dataclasses

import jax
import numpy as np
import pytest

from v2a_jax.basics.settings import SettingError
from v2a_jax.parallel import mesh as mesh_lib
from v2a_jax.parallel.mesh import MeshConfig, make_mesh, resolve_shape


@pytest.mark.parametrize(
  "axes, devices, shape",
  [
    (dict(), 8, (8, 1, 1, 1)),
    (dict(fsdp=2, tensor=2), 8, (2, 2, 1, 2)),
    (dict(data=2, fsdp=-1), 8, (2, 4, 1, 1)),
    (dict(data=1, fsdp=1, tensor=-1), 6, (1, 1, 1, 6)),
    (dict(data=2, context=2, tensor=2), 8, (2, 1, 2, 2)),
    (dict(data=-1, fsdp=4), 4, (1, 4, 1, 1)),
  ],
)
def test_the_free_axis_takes_the_remaining_devices(axes, devices, shape):
  assert resolve_shape(MeshConfig(**axes), devices) == shape


@pytest.mark.parametrize(
  "axes, words",
  [
    (dict(fsdp=3), r"8 devices.*\[1, 2, 4, 8\]"),
    (dict(data=2, fsdp=2), "does not cover 8 devices.*set one to -1"),
    (dict(data=4, fsdp=4), "does not cover 8 devices"),
    (dict(data=-1, fsdp=-1), "at most one size may be -1"),
  ],
)
def test_sizes_that_do_not_cover_the_devices_are_refused(axes, words):
  with pytest.raises(ValueError, match=words):
    make_mesh(MeshConfig(**axes))


@pytest.mark.parametrize("size", [0, -2])
def test_sizes_are_positive(size):
  with pytest.raises(SettingError, match=r"tensor=.* is not in \[1, inf\)"):
    MeshConfig(tensor=size)


def test_a_mesh_has_every_device_once_on_automatic_axes():
  mesh = make_mesh(MeshConfig(fsdp=2, tensor=2))
  assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "context": 1, "tensor": 2}
  assert tuple(mesh.shape) == mesh_lib.AXES
  assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}
  assert set(mesh.devices.flat) == set(jax.devices())
  half = make_mesh(MeshConfig(data=-1), jax.devices()[4:])
  assert list(half.devices.flat) == jax.devices()[4:]


@dataclasses.dataclass(frozen=True)
class Device:
  """A device of a TPU slice, described as jax's are."""

  id: int
  slice_index: int
  platform: str = "cpu"
  device_kind: str = "cpu"


def slices(count, size):
  return [Device(i, i // size) for i in range(count * size)]


def test_only_the_data_axis_crosses_slices():
  mesh = make_mesh(MeshConfig(data=4, fsdp=2, tensor=2), slices(2, 8))
  slice_of = np.vectorize(lambda device: device.slice_index)(mesh.devices)
  assert slice_of.shape == (4, 2, 1, 2)
  assert all(len(np.unique(row)) == 1 for row in slice_of)
  assert slice_of[:, 0, 0, 0].tolist() == [0, 0, 1, 1]


def test_a_data_axis_that_does_not_split_over_slices_is_refused():
  with pytest.raises(ValueError, match="data=1 is not a multiple of the 2 sl"):
    make_mesh(MeshConfig(data=1, fsdp=8), slices(2, 4))
