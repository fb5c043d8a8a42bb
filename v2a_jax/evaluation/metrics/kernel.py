"""Kernel distance between two sets of embeddings (KAD).

100 x the squared maximum mean discrepancy under a Gaussian kernel

  k(a, b) = exp(-|a - b|^2 / (2 s^2 + 1e-8))
  KAD = 100 (mean k(x, x') + mean k(y, y') - 2 mean k(x, y))

whose bandwidth s is the reference's median pairwise distance. Chung et al.,
"KAD: no more FAD!", https://arxiv.org/abs/2502.15602. Pairs (x, x') from one
clip are left out, as they depend on each other; the estimate is then unbiased,
also when clips are resampled.
"""

import numpy as np
from scipy.spatial import distance

from v2a_jax.evaluation import embeddings, intervals
from v2a_jax.evaluation.metrics import base

_SCALE = 100.0
_BANDWIDTH_ROWS = 2000


class KernelDistance(base.SetMetric):
  """Kernel distance to true sounds of other clips, on mn04 embeddings."""

  id = "kad_mn04"
  label = "KAD (mn04)"
  direction = "lower"
  about = (
    "100 x squared kernel distance between the same sets as FAD, bandwidth from"
    " the reference's median distance, pairs within a clip left out. Unbiased,"
    " so it can be slightly negative."
  )
  embedding = embeddings.Mn04
  needs_reference = True

  def compute(self, features, *, reference, seed=0) -> intervals.Estimate:
    return kernel_distance(
      features.vectors,
      reference.vectors,
      x_clips=features.clips,
      y_clips=reference.clips,
      seed=seed,
    )


def _clip_sums(kernel: np.ndarray, rows: np.ndarray, columns: np.ndarray):
  """Sums a kernel [n, m] over the windows of each pair of clips."""
  fold_rows = np.eye(rows.max() + 1)[rows]
  fold_columns = np.eye(columns.max() + 1)[columns]
  return fold_rows.T @ kernel @ fold_columns


def median_distance(rows: np.ndarray) -> float:
  """Returns the median distance of pairs of rows, of every k-th if many."""
  step = -(-len(rows) // _BANDWIDTH_ROWS)
  return float(np.median(distance.pdist(rows[::step])))


def kernel_distance(
  x: np.ndarray,
  y: np.ndarray,
  *,
  x_clips: np.ndarray,
  y_clips: np.ndarray,
  seed: int = 0,
  draws: int = 1000,
) -> intervals.Estimate:
  """Estimates the kernel distance, with its percentile interval.

  Args:
    x: embeddings of the evaluated set's windows, [n, d].
    y: embeddings of the reference's windows, from other clips, [m, d].
    x_clips: clip index of each window, int [n], 0 to clips - 1.
    y_clips: clip index of each window, int [m].
    seed: random seed of the bootstrap.
    draws: number of bootstrap resamples.

  Returns:
    The distance, which may be negative; the extra is `reference_clips`.
  """
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  gamma = 1.0 / (2.0 * median_distance(y) ** 2 + 1e-8)

  def sums(a, b, a_clips, b_clips):
    kernel = np.exp(-gamma * distance.cdist(a, b, "sqeuclidean"))
    return _clip_sums(kernel, a_clips, b_clips)

  xx, yy = sums(x, x, x_clips, x_clips), sums(y, y, y_clips, y_clips)
  xy = sums(x, y, x_clips, y_clips)
  x_sizes, y_sizes = np.bincount(x_clips), np.bincount(y_clips)

  def within(total, sizes, counts):
    """Averages over pairs of different clips, for counts [draws, clips]."""
    apart = 1.0 - np.eye(len(sizes))
    pairs = np.outer(sizes, sizes) * apart
    over = lambda m: np.einsum("ki,ij,kj->k", counts, m, counts, optimize=True)
    return over(total * apart) / over(pairs)

  def squared(a, b):
    across = np.einsum("ki,ij,kj->k", a, xy, b, optimize=True)
    across /= (a @ x_sizes) * (b @ y_sizes)
    return within(xx, x_sizes, a) + within(yy, y_sizes, b) - 2 * across

  num_x, num_y = len(x_sizes), len(y_sizes)
  a = intervals.clip_counts(num_x, draws=draws, seed=seed).astype(float)
  b = intervals.clip_counts(num_y, draws=draws, seed=seed + 1).astype(float)
  value = squared(np.ones((1, num_x)), np.ones((1, num_y)))[0]
  with np.errstate(invalid="ignore", divide="ignore"):
    low, high = np.nanquantile(squared(a, b), [0.025, 0.975])
  return intervals.Estimate(
    float(_SCALE * value),
    float(_SCALE * low),
    float(_SCALE * high),
    int(num_x),
    {"reference_clips": int(num_y)},
  )
