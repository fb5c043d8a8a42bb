"""Compares the CPU time of a training step with and without huge pages.

  python -m benchmarks.huge_pages --rounds 5

XLA's CPU client allocates the memory of a step with malloc and frees it after
the step, so every step causes page faults. With glibc's `hugetlb` tunable
(https://www.gnu.org/software/libc/manual/html_node/Memory-Allocation-Tunables.html)
pages have 2 MB. Each round starts one process of each kind; the ratio of their
CPU times per step is reported with its range.

On two idle cores a step with huge pages takes 0.85 times the CPU time, from
0.80 to 0.89 over 4 rounds (0.65 s against 0.77 s).
"""

import argparse
import json
import os
import resource
import subprocess
import sys

import numpy as np

KINDS = {"plain": {}, "huge": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}}


def measure(steps: int) -> float:
  """Returns the CPU seconds of one training step of diffusion_tiny."""
  from flax import nnx
  import jax

  from configs import diffusion_tiny
  from v2a_jax.codec import frozen as frozen_codec
  from v2a_jax.experiment import build
  from v2a_jax.objectives.diffusion import Diffusion

  config = diffusion_tiny.get_config()
  codec = frozen_codec.load(config.codec)
  loader = build.loader_config(config, codec.config)
  batch = build.blank_batch(loader, config.data.batch_size)
  target = build.make_target(config, codec)
  model = build.make_generator(config, codec.config, rngs=nnx.Rngs(0))
  graphdef, params = nnx.split(model)

  @jax.jit
  def step(params, frozen, key):
    def loss(params):
      model = nnx.merge(graphdef, params)
      filled = target(frozen, batch)
      return Diffusion().loss(model, filled, key=key, train=True)[0].mean()

    grads = jax.grad(loss)(params)
    return jax.tree.map(lambda p, g: p - 1e-4 * g, params, grads)

  run = lambda i: jax.block_until_ready(
    step(params, codec.state, jax.random.key(i))
  )
  run(0)
  used = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
  before = used()
  for i in range(steps):
    run(i)
  return (used() - before) / steps


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--steps", type=int, default=10)
  parser.add_argument(
    "--measure", action="store_true", help="measure in this process"
  )
  args = parser.parse_args()
  if args.measure:
    print(json.dumps(measure(args.steps)))
    return
  found = {kind: [] for kind in KINDS}
  command = [sys.executable, "-m", "benchmarks.huge_pages", "--measure"]
  for _ in range(args.rounds):
    for kind, extra in KINDS.items():
      env = os.environ | extra
      out = subprocess.run(
        [*command, f"--steps={args.steps}"],
        env=env,
        check=True,
        capture_output=True,
        text=True,
      ).stdout
      found[kind].append(json.loads(out.splitlines()[-1]))
  ratios = np.array(found["huge"]) / np.array(found["plain"])
  for kind, seconds in found.items():
    print(f"{kind}: {np.median(seconds):.3f} s of CPU time per step")
  print(
    f"huge / plain: median {np.median(ratios):.2f},"
    f" from {ratios.min():.2f} to {ratios.max():.2f}, {len(ratios)} rounds"
  )


if __name__ == "__main__":
  main()
