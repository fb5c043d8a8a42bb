"""Which attention is faster here, and how much memory does each need?

  python -m benchmarks.attention --length 623 --rounds 5
  python -m benchmarks.attention --memory v5p:2x2x1

The first times forward and backward of one attention by every implementation
that runs here, in turn, after saying which do; ratios are to XLA's. It has not
yet been run on a TPU or a GPU. The second compiles for a TPU that is not here
and prints the compiler's temporaries.

By libtpu 0.0.42.1 for v5p, jax 0.10.2, 8 clips, 7 heads of 64, bfloat16:

  tokens    xla        splash
    623      128 MiB     49 MiB
   4096     5376 MiB    502 MiB
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.basics.settings import SettingError
from v2a_jax.models import attend
from v2a_jax.parallel import mesh, topology


def gradient(implementation):
  """Makes the function from q, k, v and a mask of keys to three gradients."""

  def loss(q, k, v, mask):
    out = attend.attend(q, k, v, mask=mask, implementation=implementation)
    return out.astype(jnp.float32).sum()

  return jax.jit(jax.grad(loss, (0, 1, 2)))


def able(dtype, head_size) -> list[str]:
  """Lists the implementations that run here; prints why others do not."""
  found = []
  for name in attend.IMPLEMENTATIONS[1:]:
    try:
      found.append(attend.choose(name, dtype, head_size))
    except SettingError as error:
      print(error)
  return found


def compare(args):
  """Times the implementations in turn."""
  names = able(jnp.dtype(args.dtype), args.head_size)
  print(f"available: {', '.join(names)}")
  shape = args.batch, args.length, args.heads, args.head_size
  q, k, v = jax.random.normal(jax.random.key(0), (3, *shape), args.dtype)
  mask = jax.random.bernoulli(jax.random.key(1), 0.8, shape[:2])
  steps = {name: gradient(name) for name in names}
  seconds = {name: [] for name in names}
  for _ in range(args.rounds + 1):  # The first one compiles.
    for name, step in steps.items():
      began = time.monotonic()
      jax.block_until_ready(step(q, k, v, mask))
      seconds[name].append(time.monotonic() - began)
  for name in names:
    ratios = np.array(seconds[name][1:]) / seconds["xla"][1:]
    print(
      f"{name}: {np.median(seconds[name][1:]) * 1e3:.2f} ms,"
      f" {np.median(ratios):.2f} times XLA's, from {ratios.min():.2f} to"
      f" {ratios.max():.2f}, {args.rounds} rounds"
    )


def measure_memory(args):
  """Prints the temporaries of programs for one chip of a topology."""
  devices = topology.describe_devices(topology.parse(args.memory))
  one = mesh.make_mesh(mesh.MeshConfig(data=1), devices[:1])
  whole = jax.NamedSharding(one, jax.P())
  struct = lambda shape, dtype: jax.ShapeDtypeStruct(
    shape, dtype, sharding=whole
  )
  for length in (623, 4096):
    shape = args.batch, length, args.heads, args.head_size
    q, mask = struct(shape, args.dtype), struct(shape[:2], bool)
    for name in ("xla", "splash"):
      with jax.set_mesh(one):
        found = gradient(name).lower(q, q, q, mask).compile()
      mib = found.memory_analysis().temp_size_in_bytes / 2**20
      print(f"{length} tokens, {name}: {mib:.0f} MiB", flush=True)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--length", type=int, default=623)
  parser.add_argument("--batch", type=int, default=8)
  parser.add_argument("--heads", type=int, default=7)
  parser.add_argument("--head_size", type=int, default=64)
  parser.add_argument("--dtype", default="bfloat16")
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--memory", metavar="TOPOLOGY", default="")
  args = parser.parse_args()
  (measure_memory if args.memory else compare)(args)


if __name__ == "__main__":
  main()
