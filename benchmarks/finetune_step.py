"""What does a step of fine-tuning a published generator take on this machine?

  python -m benchmarks.finetune_step --batch_size 1

The step of `configs/finetune_mmaudio.py` that `v2a train` runs: low-rank changes
of small_16k at full size, with CLIP's text tower and the codec's encoder in the
step, and features of the frames as they are cached. Weights and the batch are
drawn, so no published file is needed; what it learns means nothing.
docs/mmaudio.md has what was measured.
"""

import argparse
import json
import resource
import time

import jax
import numpy as np

from benchmarks.accelerator_step import noise_batch
from configs import finetune_mmaudio
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.parallel.mesh import MeshConfig, make_mesh
from v2a_jax.training.program import make_program


def drawn(shapes, rng: np.random.Generator):
  """Draws arrays under which activations keep about their size."""

  def draw(leaf):
    spread = 1 / np.sqrt(np.prod(leaf.shape[:-1]) or 1)
    array = rng.standard_normal(leaf.shape, np.float32)
    array *= 0.5 * spread
    return array.astype(leaf.dtype)

  return jax.tree.map(draw, shapes)


def measure(experiment: Experiment, steps: int) -> dict[str, float]:
  """Measures seconds to compile and of a step, and memory in bytes."""
  device, rng = jax.devices()[0], np.random.default_rng(0)
  mesh = make_mesh(MeshConfig(data=1), [device])
  with jax.set_mesh(mesh):
    program = make_program(experiment, mesh)
    zeros = lambda x: np.zeros(x.shape, x.dtype)
    state = jax.tree.map(zeros, program.state)
    state = state.replace(
      params=drawn(program.state.params, rng),
      buffers=drawn(program.state.buffers, rng),
    )
    state = jax.device_put(state, program.shardings)
    frozen = jax.device_put(drawn(experiment.abstract_frozen, rng), device)
    batch = jax.device_put(noise_batch(experiment, rng), device)
    began = time.perf_counter()
    compiled = program.step.lower(state, frozen, batch).compile()
    compile_seconds, seconds = time.perf_counter() - began, []
    for _ in range(steps):
      began = time.perf_counter()
      state, metrics = compiled(state, frozen, batch)
      jax.block_until_ready((state, metrics))
      seconds.append(time.perf_counter() - began)
  count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  needs = compiled.memory_analysis()
  return dict(
    trained=count(program.state.params),
    carried=count(program.state.buffers),
    compile_seconds=compile_seconds,
    step_seconds=seconds,
    program_mb=needs.temp_size_in_bytes / 1e6,
    peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    loss=float(metrics["loss"]),
    grad_norm=float(metrics["grad_norm"]),
  )


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--batch_size", type=int, default=1)
  parser.add_argument("--steps", type=int, default=3)
  args = parser.parse_args()
  jax.config.update("jax_enable_compilation_cache", False)
  config = finetune_mmaudio.get_config()
  config.data.batch_size = args.batch_size
  row = measure(Experiment.from_config(config), args.steps)
  print(json.dumps({"batch_size": args.batch_size} | row), flush=True)


if __name__ == "__main__":
  main()
