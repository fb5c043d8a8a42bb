"""How often 95 % intervals over clips hold the truth, on simulated scores.

  python -m benchmarks.interval_coverage

seed_coverage.py does the same for arms of training seeds, set_coverage.py for
distances of sets.
"""

import argparse

import numpy as np

from v2a_jax.evaluation import intervals
from v2a_jax.evaluation.metrics.offset import median_with_spread

SIZES = (16, 48, 128)  # clips


def report(name: str, found: list, truths) -> None:
  """Prints coverage, misses on each side, bias and width.

  The first two are left out where there are no intervals.
  """
  found = [(e.low, e.high, e.value) for e in found]
  low, high, value = np.array(found, float).T
  truths = np.broadcast_to(truths, low.shape)
  inside = np.mean((low <= truths) & (truths <= high))
  error = 100 * np.sqrt(inside * (1 - inside) / len(low))
  below, above = 100 * np.mean(truths < low), 100 * np.mean(truths > high)
  held = f"{100 * inside:.1f} ± {error:.1f} | {below:.1f} / {above:.1f}"
  print(
    f"| {name} | {' | ' if np.isnan(low).all() else held}"
    f" | {np.mean(value - truths):+.3f} | {value.std(ddof=1):.3f}"
    f" | {np.mean(high - low):.3f} | {len(low)} |",
    flush=True,
  )


HEAD = (
  "| case | covered % | truth below / above % | bias | sd | width | repeats |\n"
  "|---|---:|---:|---:|---:|---:|---:|"
)


def _onsets(rng, n):
  """Draws 2 hits and reference + detected of clips of different difficulty."""
  reference = rng.poisson(4, n) + 1
  detected = rng.poisson(4, n) + 1
  share = rng.beta(3, 2, n)
  hits = rng.binomial(np.minimum(reference, detected), share)
  return 2.0 * hits, (reference + detected).astype(float)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--repeats", type=int, default=600)
  repeats = parser.parse_args().repeats
  rng = np.random.default_rng(0)
  above, below = _onsets(np.random.default_rng(1), 2_000_000)
  ratio = above.sum() / below.sum()
  normal = lambda n: intervals.mean(rng.normal(size=n), draws=2000)
  skewed = lambda n: intervals.mean(rng.exponential(size=n), draws=2000)
  f1 = lambda n: intervals.ratio(*_onsets(rng, n))

  def paired(n):
    one, (two, total) = _onsets(rng, n), _onsets(rng, n)
    return intervals.ratio_difference(*one, two, total)

  cases = {
    "mean, normal scores": (normal, 0.0),
    "mean, exponential scores": (skewed, 1.0),
    "onset F1": (f1, ratio),
    "difference of onset F1": (paired, 0.0),
    "share of clips, 10 %": (
      lambda n: intervals.share(rng.random(n) < 0.1),
      0.1,
    ),
    "median offset": (lambda n: median_with_spread(rng.standard_t(2, n)), 0.0),
  }
  print(HEAD)
  for name, (draw, truth) in cases.items():
    for n in SIZES:
      report(f"{name}, {n} clips", [draw(n) for _ in range(repeats)], truth)


if __name__ == "__main__":
  main()
