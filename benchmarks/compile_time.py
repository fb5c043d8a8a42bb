"""Compares the compile time of a deep model with that of a shallow one.

  python -m benchmarks.compile_time --size large --rounds 3

The training step of `configs/diffusion.py` (forward, backward, optimizer) is
traced and compiled for one device from shapes alone, alternately at full depth
and with three blocks, without the persistent cache. Blocks are scanned, so the
ratio should be near one.

On two cores, jax 0.10: `large` (21 blocks) takes 0.98 times as long as three,
from 0.96 to 1.02 over 3 rounds; 29 s against 29 s to compile.
"""

import argparse
import time

import jax
import numpy as np

from configs import diffusion
from v2a_jax.experiment import build
from v2a_jax.experiment.blueprint import make_blueprint
from v2a_jax.training.optimizer import make_optimizer
from v2a_jax.training.state import make_init
from v2a_jax.training.step import make_train_step

SHALLOW = dict(joint_depth=1, depth=2)


def seconds(config) -> tuple[float, float]:
  """Returns the seconds to trace and to compile the training step."""
  jax.clear_caches()
  plan = make_blueprint(config)
  optimizer = make_optimizer(plan.optimizer, config.num_train_steps)
  init = make_init(plan.make_model, optimizer, seed=0, ema=True)
  step = make_train_step(
    plan.graphdef, plan.objective, optimizer, target=plan.target
  )
  batch = jax.eval_shape(lambda: build.blank_batch(plan.loader, 2))
  state = jax.eval_shape(init)
  began = time.monotonic()
  lowered = jax.jit(step, donate_argnums=0).lower(state, plan.given, batch)
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
