"""Sums over the devices of a mesh axis of which each keeps its part.

TPU's compiler (libtpu 0.0.42) turns such a sum over all chips of a slice into one
of which each chip gets everything, which sends twice as much. It does not if
some of them take part and what is split are the rows of a matrix that fills
whole registers. So there the sum is made in stages: over the columns of a grid of
the chips, then over its rows, then over slices, each of what the last has left.
`benchmarks/tpu_sums.py` compiles both.
"""

import math

import jax
from jax.experimental.layout import Layout, with_layout_constraint
import numpy as np

from v2a_jax.parallel.sharding import platform

_LANES = 128  # Numbers in a row of a TPU's register, which has 8 rows.
_ROWS = Layout(major_to_minor=(0, 1))


def psum_scatter(
  x: jax.Array, over: str, axis: int, *, slices: int = 1
) -> jax.Array:
  """Returns, on device i of the n of a mesh axis, part i of their sum.

  Args:
    x: array.
    over: name of the mesh axis, which is manual (`jax.shard_map`).
    axis: dimension of `x` that is split, a multiple of n long.
    slices: number of TPU slices that the axis spans, one after the other.
  """
  if platform() == "tpu" and x.size % (jax.lax.axis_size(over) * _LANES) == 0:
    return in_stages(x, over, axis, slices=slices)
  return jax.lax.psum_scatter(x, over, scatter_dimension=axis, tiled=True)


def in_stages(
  x: jax.Array, over: str, axis: int, *, slices: int = 1
) -> jax.Array:
  """Returns the same by up to three sums, within each slice first."""
  devices = jax.lax.axis_size(over)
  within = devices // slices
  columns = max(n for n in range(1, math.isqrt(within) + 1) if within % n == 0)
  grid = np.arange(devices).reshape(slices, columns, within // columns)
  whole = x.swapaxes(0, axis)
  # What the devices of one place in all slices keep comes together.
  parts = whole.reshape(slices, within, -1).swapaxes(0, 1)
  parts = parts.reshape(devices * _rows(x.size // devices), -1)
  for dimension in (1, 2, 0):
    count = grid.shape[dimension]
    groups = np.moveaxis(grid, dimension, -1).reshape(-1, count)
    if count > 1:
      parts = jax.lax.psum_scatter(
        with_layout_constraint(parts, _ROWS),
        over,
        scatter_dimension=0,
        axis_index_groups=groups.tolist(),
        tiled=True,
      )
  kept = parts.reshape(whole.shape[0] // devices, *whole.shape[1:])
  return kept.swapaxes(0, axis)


def _rows(size: int) -> int:
  """Returns in how many rows to lay out what a device keeps, 64 at most.

  A multiple of 8 where there is one, so that the rows fill registers.
  """
  counts = [n for n in range(1, 65) if size % (n * _LANES) == 0]
  return max(counts, key=lambda n: (n % 8 == 0, n), default=1)
