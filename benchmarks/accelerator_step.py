"""How fast is a training step on the accelerator that is here?

  python -m benchmarks.accelerator_step --size small --batch_size 64
  python -m benchmarks.accelerator_step --size large --batch_size 16 \
    --set remat=attention

The step of `configs/diffusion.py` that `v2a train` runs, in bfloat16, on one
batch of noise that stays on the device: what a run reaches if its data are in
time. Model FLOPs utilisation is that of `training/throughput.py`: FLOPs counted
on the traced step without recomputation, over the data sheet's peak. The first
steps are left out; a time is the median over `--steps`, each waited for.

On one H200, jax 0.11.2, `small` with batches of 64 (10 steps, within 1 %):

  remat      attention         a step    clips/s   MFU    memory   compiled in
  full       auto              633 ms     101     0.173   26 GB     71 s
  attention  cudnn everywhere  587 ms     109     0.187   35 GB     67 s

The goal is 0.45. At width 448 a matrix product reads and writes so much for each
operation that memory bounds it, and most of the FLOPs are in the encoder of
frames, whose attention has 49 tokens. `large`, where the products are wider, did
not fit into the time on that machine and has not been measured.
"""

import argparse
import ast
import json
import logging
import time

import jax
import numpy as np

from configs import diffusion
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.parallel import sharding
from v2a_jax.parallel.mesh import MeshConfig, make_mesh
from v2a_jax.training.program import make_program
from v2a_jax.training.throughput import peak_flops

WARM_UP = 3


def noise_batch(experiment: Experiment, rng: np.random.Generator):
  """Makes a batch of the experiment's size in which every condition is there."""
  blank = experiment.blank_batch(experiment.batch_size)

  def fill(value):
    shape, dtype = np.shape(value), np.asarray(value).dtype
    if np.issubdtype(dtype, np.bool_):
      return np.ones(shape, bool)
    if dtype == np.uint8:
      return rng.integers(0, 256, shape, np.uint8)
    if np.issubdtype(dtype, np.integer):
      return rng.integers(0, 2, shape).astype(dtype)
    return rng.uniform(0.0, 0.5, shape).astype(dtype)

  batch = jax.tree.map(fill, blank)
  seconds = np.full(experiment.batch_size, experiment.data.seconds, np.float32)
  frames = batch.cond.frame_times.shape
  times = np.linspace(0, experiment.data.seconds, frames[1], endpoint=False)
  times = np.broadcast_to(times.astype(np.float32), frames)
  return batch.replace(
    duration=seconds, cond=batch.cond.replace(frame_times=times)
  )


def measure(experiment: Experiment, steps: int) -> dict[str, float]:
  """Measures seconds to compile and of a step, FLOPs, and memory in bytes."""
  device = jax.devices()[0]
  mesh = make_mesh(MeshConfig(data=1), [device])
  program = make_program(experiment, mesh)
  state, _ = sharding.init_sharded(program.init, mesh, program.shardings)
  frozen = jax.device_put(experiment.frozen(), device)
  batch = noise_batch(experiment, np.random.default_rng(0))
  batch = jax.device_put(batch, device)
  began = time.perf_counter()
  traced = program.step.trace(state, frozen, batch)
  compiled = traced.lower().compile()
  compile_seconds = time.perf_counter() - began
  seconds = []
  for _ in range(WARM_UP + steps):
    began = time.perf_counter()
    state, metrics = compiled(state, frozen, batch)
    jax.block_until_ready((state, metrics))
    seconds.append(time.perf_counter() - began)
  flops = experiment.step_flops(traced.jaxpr)
  low, middle, high = np.quantile(seconds[WARM_UP:], (0.0, 0.5, 1.0))
  peak, _ = peak_flops(device)
  memory = device.memory_stats() or {}
  return dict(
    device=device.device_kind,
    compile_seconds=compile_seconds,
    step_seconds=middle,
    fastest=low,
    slowest=high,
    clips_per_second=experiment.batch_size / middle,
    flops_per_step=flops,
    mfu=flops / middle / peak,
    memory_gb=memory.get("peak_bytes_in_use", 0) / 1e9,
    loss=float(metrics["loss"]),
  )


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--size", default="small")
  parser.add_argument("--batch_size", type=int, default=64)
  parser.add_argument("--steps", type=int, default=10)
  parser.add_argument(
    "--set",
    action="append",
    default=[],
    metavar="FIELD=VALUE",
    help="another value of a field of config.model; can be repeated",
  )
  args = parser.parse_args()
  logging.basicConfig(level=logging.INFO, format="%(message)s")
  jax.config.update("jax_enable_compilation_cache", False)
  config = diffusion.get_config(args.size)
  config.data.batch_size = args.batch_size
  for setting in args.set:
    name, _, value = setting.partition("=")
    try:
      config.model[name] = ast.literal_eval(value)
    except (SyntaxError, ValueError):
      config.model[name] = value
  row = measure(Experiment.from_config(config), args.steps)
  about = dict(size=args.size, batch_size=args.batch_size, set=args.set)
  print(json.dumps(about | row), flush=True)


if __name__ == "__main__":
  main()
