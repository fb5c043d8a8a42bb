"""`v2a inspect` with Python's garbage collector as it is, and as commands set it.

  python -m benchmarks.garbage_collection --rounds 5

Each round starts one process of either kind; the ratio of processor time is
reported with its spread, and the largest memory of both.

On two idle cores it takes 0.89 times the processor time, from 0.85 to 0.94 over 5
rounds (5.1 s against 5.8 s), and the same memory.
"""

import argparse
import os
import subprocess
import sys

import numpy as np

# The second leaves the collector alone: it looks after every 700 new objects.
KINDS = {"seldom": "", "as it is": "gc.set_threshold = lambda *_: None;"}
COMMAND = """import gc; {} from launch import cli
cli.main(["inspect", "--config=configs/diffusion_tiny.py"])"""


def measure(kind: str) -> tuple[float, float]:
  """Returns seconds of processor time, and the largest memory in GB."""
  command = [sys.executable, "-c", COMMAND.format(KINDS[kind])]
  process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
  _, status, used = os.wait4(process.pid, 0)
  if status:
    raise SystemExit(f"v2a inspect ended with status {status}")
  return used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--rounds", type=int, default=5)
  args = parser.parse_args()
  found = np.array(
    [[measure(kind) for kind in KINDS] for _ in range(args.rounds)]
  )
  for kind, (seconds, memory) in zip(KINDS, found.mean(0)):
    print(f"{kind}: {seconds:.2f} s, {memory:.2f} GB")
  ratios = found[:, 0, 0] / found[:, 1, 0]
  print(
    f"ratio of processor time {ratios.mean():.2f}"
    f" ({ratios.min():.2f} to {ratios.max():.2f})"
  )


if __name__ == "__main__":
  main()
