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
    return kernel_distance(features, reference, seed=seed)


def median_distance(rows: np.ndarray) -> float:
  """Returns the median distance of pairs of rows, of every k-th if many."""
  step = -(-len(rows) // _BANDWIDTH_ROWS)
  return float(np.median(distance.pdist(rows[::step])))


def kernel_distance(
  x: embeddings.Features,
  y: embeddings.Features,
  *,
  seed: int = 0,
  draws: int = 1000,
) -> intervals.Estimate:
  """Estimates the kernel distance to the reference `y`, by percentiles.

  The value may be negative; the extra is `reference_clips`.
  """
  gamma = 1.0 / (2.0 * median_distance(y.vectors) ** 2 + 1e-8)

  def sums(a, b):
    """Sums the kernel over the windows of each pair of clips."""
    squares = distance.cdist(a.vectors, b.vectors, "sqeuclidean")
    kernel = np.exp(-gamma * squares)
    fold = lambda clips: np.eye(clips.max() + 1)[clips]
    return fold(a.clips).T @ kernel @ fold(b.clips)

  xx, yy, xy = sums(x, x), sums(y, y), sums(x, y)
  x_sizes, y_sizes = np.bincount(x.clips), np.bincount(y.clips)

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
    ends = np.nanquantile(squared(a, b), [0.025, 0.975])
  numbers = (float(_SCALE * number) for number in (value, *ends))
  return intervals.Estimate(*numbers, num_x, {"reference_clips": num_y})
