"""How much longer does a deep model take to compile than a shallow one?

  python -m benchmarks.compile_time --size large --rounds 3

The training step of `configs/diffusion.py` (forward, backward, optimizer) is
traced and compiled for one device from shapes alone, in turn at its own depth
and with three blocks, the persistent cache off. Blocks are scanned, so the
ratio should be near one.

On two cores, jax 0.10: `large` (21 blocks) takes 0.98 times as long as three,
from 0.96 to 1.02 over 3 rounds; 29 s against 29 s to compile.
"""

import argparse
import time

import jax
import numpy as np

from configs import diffusion
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.parallel.mesh import MeshConfig, make_mesh
from v2a_jax.training.program import make_program

SHALLOW = dict(joint_depth=1, depth=2)


def seconds(config) -> tuple[float, float]:
  """Measures the seconds of tracing and of compiling the training step."""
  jax.clear_caches()
  experiment = Experiment.from_config(config)
  mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
  program = make_program(experiment, mesh)
  batch = jax.eval_shape(lambda: experiment.blank_batch(2))
  began = time.monotonic()
  lowered = program.step.lower(program.state, experiment.abstract_frozen, batch)
  traced = time.monotonic()
  lowered.compile()
  return traced - began, time.monotonic() - traced


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--size", default="large")
  parser.add_argument("--rounds", type=int, default=3)
  args = parser.parse_args()
  jax.config.update("jax_enable_compilation_cache", False)
  whole = diffusion.get_config(args.size)
  shallow = whole.copy_and_resolve_references()
  shallow.model.update(SHALLOW)
  blocks = whole.model.joint_depth + whole.model.depth
  ratios = []
  for _ in range(args.rounds):
    few, many = (np.array(seconds(c)) for c in (shallow, whole))
    ratios.append(many.sum() / few.sum())
    print(
      f"3 blocks: {few[0]:.1f} s to trace, {few[1]:.1f} s to compile;"
      f" {blocks} blocks: {many[0]:.1f} s and {many[1]:.1f} s;"
      f" ratio {ratios[-1]:.2f}",
      flush=True,
    )
  print(
    f"{args.size}: {blocks} blocks take {np.median(ratios):.2f} times as long"
    f" as 3, from {min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} rounds"
  )


if __name__ == "__main__":
  main()
