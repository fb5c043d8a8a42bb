"""How much sooner does a restart train, with compiled programs on disk?

  python -m benchmarks.compile_cache --rounds 5

Each round starts two processes, which compile the training step of a config on
CPU: one with an empty cache, one that finds what the first has left. What is
compared is the time from the first line of the program to the compiled step,
without and with tracing, which no cache saves.

On two busy cores, jax 0.10, `diffusion_tiny`: the second process takes 0.05 of
the first's time compiling (2 s against 40), 0.12 with tracing; 3 rounds, from
0.05 to 0.05 and from 0.11 to 0.12.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

PROGRAM = """
import json, sys, time
from configs import {config} as config
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.parallel import compile_cache
from v2a_jax.parallel.mesh import MeshConfig, make_mesh
from v2a_jax.training.program import make_program
import jax
compile_cache.enable()
experiment = Experiment.from_config(config.get_config())
mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
program = make_program(experiment, mesh)
batch = jax.eval_shape(lambda: experiment.blank_batch(8))
began = time.monotonic()
lowered = program.step.lower(program.state, experiment.abstract_frozen, batch)
traced = time.monotonic()
lowered.compile()
print(json.dumps([traced - began, time.monotonic() - traced]))
"""


def seconds(config: str, folder: str) -> tuple[float, float]:
  """Measures the seconds of tracing and of compiling, in a new process."""
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM.format(config=config)],
    env=os.environ | {"V2A_COMPILE_CACHE": folder, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    check=True,
  )
  return tuple(json.loads(done.stdout))


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--config", default="diffusion_tiny")
  parser.add_argument("--rounds", type=int, default=5)
  args = parser.parse_args()
  compiles, starts = [], []
  for _ in range(args.rounds):
    with tempfile.TemporaryDirectory() as folder:
      cold, warm = (seconds(args.config, folder) for _ in range(2))
    compiles.append(warm[1] / cold[1])
    starts.append(sum(warm) / sum(cold))
    print(
      f"empty cache: {cold[0]:.1f} s to trace, {cold[1]:.1f} s to compile;"
      f" second process: {warm[0]:.1f} s and {warm[1]:.1f} s",
      flush=True,
    )
  for what, ratios in (("compiling", compiles), ("with tracing", starts)):
    print(
      f"{args.config}: the second process takes {statistics.median(ratios):.2f}"
      f" of the first's time {what}, from {min(ratios):.2f} to"
      f" {max(ratios):.2f}, {len(ratios)} rounds"
    )


if __name__ == "__main__":
  main()
