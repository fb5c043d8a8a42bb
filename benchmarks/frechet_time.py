"""Time and agreement of the Fréchet distance with the textbook's matrix root.

  python -m benchmarks.frechet_time --dim 2048 --rows 500 4000

The textbook's way takes two covariances and `scipy.linalg.sqrtm` of their
product, as public toolkits do; ours takes singular values of the product of the
rows. Both are run in turn on the same rows, whose spectrum falls as 1 / k.
"""

import argparse
import time

import numpy as np
from scipy import linalg

from v2a_jax.evaluation.metrics.frechet import frechet_distance


def by_matrix_root(x: np.ndarray, y: np.ndarray) -> float:
  s_x, s_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
  root = linalg.sqrtm(s_x @ s_y)
  apart = np.square(x.mean(axis=0) - y.mean(axis=0)).sum()
  return float(apart + np.trace(s_x + s_y - 2 * np.real(root)))


def timed(function, *args) -> tuple[float, float]:
  start = time.perf_counter()
  value = function(*args)
  return time.perf_counter() - start, value


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--dim", type=int, default=2048)
  parser.add_argument("--rows", type=int, nargs="*", default=[500, 4000])
  parser.add_argument("--repeats", type=int, default=3)
  args = parser.parse_args()
  rng = np.random.default_rng(0)
  scale = 1 / np.arange(1, args.dim + 1)
  print("| rows | sqrtm, s | ours, s | ratio (least, most) | difference |")
  print("|---:|---:|---:|---:|---:|")
  for rows in args.rows:
    x, y = rng.normal(size=(2, rows, args.dim)) * scale**0.5
    y = 1.1 * y + 0.01
    pairs = [
      (timed(by_matrix_root, x, y), timed(frechet_distance, x, y))
      for _ in range(args.repeats)
    ]
    slow, fast = (np.median([p[i][0] for p in pairs]) for i in (0, 1))
    ratios = sorted(a[0] / b[0] for a, b in pairs)
    off = abs(pairs[0][0][1] / pairs[0][1][1] - 1)
    print(
      f"| {rows} | {slow:.1f} | {fast:.1f} | {np.median(ratios):.1f}"
      f" ({ratios[0]:.1f}, {ratios[-1]:.1f}) | {off:.1e} |",
      flush=True,
    )


if __name__ == "__main__":
  main()
