"""How much longer does a step take in the training loop than by itself?

  python -m benchmarks.loop_overhead --rounds 30

In one process, in turn: `--steps` steps of the loop that `v2a train` runs
(reading and moving batches, metrics, progress, signals), and as many calls of
the same compiled step on a batch that is already on the device. Batches come
from memory, because on a CPU decoding would take the cores that compute. The
model is a small one, whose steps are short; the goal is a ratio of at most 1.02.
Each round drains the devices first, so one batch a round is read in sight.

On two cores that others use too, jax 0.10, steps of 100 ms: medians of 1.016 (8
rounds of 20 steps, from 0.915 to 1.114) and 1.035 (40 rounds of 10, quartiles
1.005 and 1.073; all rounds together 1.012). On two free cores, steps of 41 ms: 1.039
(30 rounds, quartiles 1.027 and 1.061), so the loop takes about 1.6 ms a step.
"""

import argparse
import collections
import contextlib
import itertools
import pathlib
import tempfile
import time

import jax
import numpy as np

from configs import diffusion_tiny
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.parallel import sharding
from v2a_jax.training.loop import Run

SIZES = dict(depth=2, joint_depth=1, width=64, num_heads=4, mlp_dim=128)


class InMemory:
  """An experiment whose loader repeats one batch."""

  def __init__(self, experiment: Experiment):
    self._experiment = experiment
    blank = jax.device_get(experiment.blank_batch(experiment.batch_size))
    self._batch = blank

  def __getattr__(self, name):
    return getattr(self._experiment, name)

  def open_loader(self, split, *, step, index, count):
    del split, step, index, count
    return itertools.repeat(self._arrays())

  def make_batch(self, arrays):
    return jax.tree.unflatten(jax.tree.structure(self._batch), arrays.values())

  def _arrays(self):
    leaves = jax.tree.leaves(self._batch)
    return {f"{i:03}": np.asarray(leaf) for i, leaf in enumerate(leaves)}


class Alone:
  """The compiled step of a run, on a batch that stays where it is."""

  def __init__(self, run: Run):
    self._run = run
    self._state = jax.tree.map(lambda x: x.copy(), run.state)
    arrays = sharding.shard_batch(next(run.loader), run.mesh)
    self._batch = run.experiment.make_batch(arrays)

  def seconds(self, steps: int) -> float:
    """Measures the seconds of so many steps, two in flight as in the loop."""
    in_flight = collections.deque()
    jax.block_until_ready(self._state)
    began = time.perf_counter()
    for _ in range(steps):
      self._state, metrics = self._run.compiled(
        self._state, self._run.frozen, self._batch, self._run.spent
      )
      in_flight.append(metrics)
      if len(in_flight) > 2:
        jax.block_until_ready(in_flight.popleft())
    jax.block_until_ready(self._state)
    return time.perf_counter() - began


def compare(run: Run, steps: int) -> list[tuple[float, float]]:
  """Returns (seconds in the loop, seconds alone) of each round."""
  rounds, alone, began = [], [], 0.0

  def stop(step):
    nonlocal began
    if step % steps:
      return None
    jax.block_until_ready(run.state)
    spent = time.perf_counter() - began
    if not alone:
      alone.append(Alone(run))
    else:
      rounds.append((spent, alone[0].seconds(steps)))
    began = time.perf_counter()
    return None

  run.until_done_or(stop)
  return rounds


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--rounds", type=int, default=30)
  parser.add_argument("--steps", type=int, default=10)
  parser.add_argument("--batch_size", type=int, default=16)
  args = parser.parse_args()
  config = diffusion_tiny.get_config()
  config.model.update(SIZES)
  config.data.update(
    batch_size=args.batch_size, seconds=1.0, fps=8.0, frame_size=16
  )
  config.update(
    num_train_steps=(args.rounds + 1) * args.steps,
    checkpoint_every=10**6,
    eval_every=0,
    log_every=10,
    wandb_mode="disabled",
  )
  experiment = InMemory(Experiment.from_config(config))
  with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
    rounds = compare(Run(experiment, pathlib.Path(folder), stack), args.steps)
  ratios = [loop / alone for loop, alone in rounds]
  for loop, alone in rounds:
    print(
      f"{1e3 * loop / args.steps:.2f} ms a step in the loop,"
      f" {1e3 * alone / args.steps:.2f} ms alone: {loop / alone:.3f}"
    )
  low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
  together = np.sum(rounds, axis=0)
  print(
    f"a step in the loop takes {middle:.3f} times as long as alone (quartiles"
    f" {low:.3f} and {high:.3f}, {len(ratios)} rounds; all rounds together"
    f" {together[0] / together[1]:.3f})"
  )


if __name__ == "__main__":
  main()
