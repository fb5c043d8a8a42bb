"""How long do models take to make sound, beside each other?

  python -m benchmarks.generation_time runs/diffusion runs/ar --clips 1 8

Makes clips as long as each model's window, from conditions to samples, as `v2a
generate` and `v2a eval` do, in one process and in turn, with the samplers that
the checkpoints name. Prints the median of the seconds a clip with its quartiles,
and its ratio to the first model round by round. One clip at a time is latency;
several at a time are what an evaluation pays.
"""

import argparse
import time

import jax
import numpy as np

from v2a_jax.soundtrack.synthesizer import Synthesizer


def main():
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("checkpoint", nargs="+")
  parser.add_argument("--clips", type=int, nargs="+", default=[1, 8])
  parser.add_argument("--rounds", type=int, default=15)
  args = parser.parse_args()
  models = {path: Synthesizer.load(path) for path in args.checkpoint}
  device = jax.devices()[0].device_kind
  print(f"{device}, {args.rounds} rounds in turn, median [quartiles]")
  for clips in args.clips:
    seconds = {path: [] for path in models}
    for round_ in range(args.rounds + 1):  # The first one compiles.
      for path, model in models.items():
        cond = model.experiment.blank_batch(clips).cond
        began = time.monotonic()
        np.asarray(model.sample(cond, seed=round_))
        seconds[path].append((time.monotonic() - began) / clips)
    first = np.array(seconds[args.checkpoint[0]][1:])
    for path, model in models.items():
      own = np.array(seconds[path][1:])
      low, middle, high = np.quantile(own, [0.25, 0.5, 0.75])
      ratio = np.quantile(own / first, [0.25, 0.5, 0.75])
      print(
        f"{model.experiment.run.name}, {clips} at a time: {1000 * middle:.0f}"
        f" [{1000 * low:.0f}, {1000 * high:.0f}] ms for"
        f" {model.window_seconds:g} s of sound, {ratio[1]:.2f}"
        f" [{ratio[0]:.2f}, {ratio[2]:.2f}] times the first"
      )


if __name__ == "__main__":
  main()
