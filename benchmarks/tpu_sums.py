"""Bytes that TPU chips send for a sum of which each keeps a part.

  python -m benchmarks.tpu_sums [v5e:4x4 v6e:8x8 ...]    needs libtpu

Sums a matrix over all chips of a slice, in one stage, as `jax.lax.psum_scatter`
does, and in stages, as `v2a_jax/parallel/scatter.py` does, and divides what the
compiled programs send by arithmetic, (n - 1) / n of the matrix.
"""

import sys

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from v2a_jax.parallel import collectives, scatter, topology

# Kernels, [layers, in, parts, out], of which `in` is split.
SHAPES = (
  *((12, 448, 2, 896), (3, 1792, 448), (3, 448, 3, 448), (8192, 448)),
  *((14, 896, 3, 896), (14, 3584, 896), (16, 3072, 2, 8192)),
)
TOPOLOGIES = ("v5e:4x4", "v6e:8x8", "v5p:4x4x4")


def main(names: list[str]) -> None:
  print("| topology | kernel | one stage | in stages |\n|---|---|---:|---:|")
  for name in names or TOPOLOGIES:
    devices = topology.describe_devices(topology.parse(name))
    mesh = jax.sharding.Mesh(np.array(devices), ("data",))
    for shape in SHAPES:
      sent = [over_arithmetic(mesh, shape, stages) for stages in (False, True)]
      cells = " | ".join(f"{ratio:.3f}" for ratio in sent)
      print(f"| {name} | {list(shape)} | {cells} |", flush=True)


def over_arithmetic(mesh, shape, stages: bool) -> float:
  """Compiles the sum; returns bytes sent over those by arithmetic."""
  axis = min(1, len(shape) - 2)

  def summed(x):
    if stages:
      return scatter.in_stages(2 * x, "data", axis)
    return jax.lax.psum_scatter(
      2 * x, "data", scatter_dimension=axis, tiled=True
    )

  run = jax.jit(
    jax.shard_map(
      summed,
      mesh=mesh,
      in_specs=P(),
      out_specs=P(*[None] * axis, "data"),
      check_vma=False,
    )
  )
  x = jax.ShapeDtypeStruct(
    shape, jnp.float32, sharding=NamedSharding(mesh, P())
  )
  lowered = run.trace(x).lower(lowering_platforms=("tpu",))
  moved = collectives.read(lowered.compile().as_text())
  least = (mesh.size - 1) / mesh.size * 4 * np.prod(shape)
  return sum(c.moved for c in moved) / least


if __name__ == "__main__":
  main(sys.argv[1:])
