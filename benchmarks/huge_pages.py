"""Training step with and without huge pages for the allocator, in turn.

  python -m benchmarks.huge_pages --rounds 5

XLA's CPU client takes the memory of a step from malloc and gives it back, so
each step faults its pages in anew. With glibc's `hugetlb` tunable
(https://www.gnu.org/software/libc/manual/html_node/Memory-Allocation-Tunables.html)
the pages are 2 MB. Each round starts one process of either kind; the ratio of
processor time a step is reported with its spread.

On two idle cores huge pages take 0.85 times the processor time of a step, from
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
  """Returns seconds of processor time per training step of diffusion_tiny."""
  import jax

  from configs import diffusion_tiny
  from v2a_jax.experiment.experiment import Experiment
  from v2a_jax.parallel import mesh as mesh_lib
  from v2a_jax.parallel import sharding
  from v2a_jax.training.program import make_program

  experiment = Experiment.from_config(diffusion_tiny.get_config())
  mesh = mesh_lib.make_mesh(experiment.mesh)
  with jax.set_mesh(mesh):
    program = make_program(experiment, mesh)
    state, _ = sharding.init_sharded(program.init, mesh)
    batch = jax.device_put(
      experiment.blank_batch(experiment.batch_size),
      sharding.batch_sharding(mesh),
    )
    frozen = experiment.frozen()

    def run(state):
      state, metrics = program.step(state, frozen, batch)
      jax.block_until_ready(metrics)
      return state

    state = run(state)
    used = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    before = used()
    for _ in range(steps):
      state = run(state)
    return (used() - before) / steps


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--steps", type=int, default=10)
  parser.add_argument("--measure", action="store_true", help="one process")
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
    print(f"{kind}: {np.median(seconds):.3f} s of processor time a step")
  print(
    f"huge / plain: median {np.median(ratios):.2f},"
    f" from {ratios.min():.2f} to {ratios.max():.2f}, {len(ratios)} rounds"
  )


if __name__ == "__main__":
  main()
