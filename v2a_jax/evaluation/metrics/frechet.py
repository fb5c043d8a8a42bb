"""Distances between two sets of embeddings: Fréchet and kernel.

Fréchet distance of the Gaussians N(m_x, S_x), N(m_y, S_y) fitted to the sets:

  F = |m_x - m_y|^2 + tr S_x + tr S_y - 2 tr (S_x S_y)^(1/2)

Heusel et al., https://arxiv.org/abs/1706.08500, eq. 6; for sound Kilgour et al.,
"Fréchet audio distance", https://arxiv.org/abs/1812.08466. With the centred rows
A = (X - m_x) / sqrt(n - 1) and B likewise, S_x = A' A and

  tr (S_x S_y)^(1/2) = the sum of the singular values of A B'

so no matrix square root is taken, nothing is added to a diagonal, nothing turns
complex, and fewer rows than dimensions is no special case.

F is biased upwards, by more than a good model's distance when there are few
clips. So both sets' clips are drawn again, and the bias-corrected value and the
pivotal interval are reported (see intervals.py), with the plug-in value beside.

Kernel distance: 100 x the squared maximum mean discrepancy under a Gaussian
kernel whose bandwidth is the reference's median pairwise distance. Chung et al.,
"KAD: no more FAD!", https://arxiv.org/abs/2502.15602. Pairs from one clip are
left out, as they depend on each other; the estimate is then unbiased, also when
clips are drawn again.
"""

from concurrent import futures

import numpy as np
from scipy.spatial import distance
import threadpoolctl

from v2a_jax.evaluation import intervals

# Draws of the Fréchet bootstrap: each is a singular value decomposition.
FRECHET_DRAWS = 200
_KAD_SCALE = 100.0
_BANDWIDTH_ROWS = 2000


def frechet_distance(
  x: np.ndarray,
  y: np.ndarray,
  *,
  x_weights: np.ndarray | None = None,
  y_weights: np.ndarray | None = None,
) -> float:
  """Squared Fréchet distance, plug-in, computed in float64.

  Args:
    x: [n, d].
    y: [m, d].
    x_weights: non-negative integers [n], how often each row counts; None is
      once.
    y_weights: likewise [m].

  Raises:
    ValueError: a set has fewer than two rows, or values that are not finite.
  """
  mean_x, rows_x = _centred(x, x_weights)
  mean_y, rows_y = _centred(y, y_weights)
  cross = np.linalg.svd(_short(rows_x) @ _short(rows_y).T, compute_uv=False)
  spread = np.square(rows_x).sum() + np.square(rows_y).sum()
  apart = np.square(mean_x - mean_y).sum()
  return float(max(0.0, apart + spread - 2 * cross.sum()))


def _centred(rows, weights) -> tuple[np.ndarray, np.ndarray]:
  """The mean [d] and rows A [n, d] with A' A = the covariance (n - 1)."""
  rows = np.asarray(rows, np.float64)
  if weights is None:
    weights = np.ones(len(rows))
  rows, weights = rows[weights > 0], weights[weights > 0]
  if weights.sum() < 2:
    raise ValueError(
      f"a Fréchet distance needs two rows a set or more, not {len(rows)}"
    )
  if not np.isfinite(rows).all():
    raise ValueError("a Fréchet distance of embeddings that are not finite")
  mean = weights @ rows / weights.sum()
  scale = np.sqrt(weights / (weights.sum() - 1))
  return mean, (rows - mean) * scale[:, None]


def _short(rows: np.ndarray) -> np.ndarray:
  """At most d rows with the same covariance."""
  tall = rows.shape[0] > rows.shape[1]
  return np.linalg.qr(rows, mode="r") if tall else rows


def frechet(
  x: np.ndarray,
  y: np.ndarray,
  *,
  x_clips: np.ndarray,
  y_clips: np.ndarray,
  seed: int = 0,
  draws: int = FRECHET_DRAWS,
) -> intervals.Estimate:
  """Fréchet distance with its interval.

  Args:
    x: [n, d], windows of the set that is judged.
    y: [m, d], windows of the reference, from other clips.
    x_clips: int [n], each window's clip, 0 to clips - 1.
    y_clips: int [m].
    seed: of the draws.
    draws: how many.

  Returns:
    The bias-corrected distance; extras are `plug_in`, `windows` and
    `reference_clips`.
  """
  num_x, num_y = x_clips.max() + 1, y_clips.max() + 1
  x_counts = intervals.clip_counts(num_x, draws=draws, seed=seed)
  y_counts = intervals.clip_counts(num_y, draws=draws, seed=seed + 1)

  def draw(a, b):
    return frechet_distance(x, y, x_weights=a[x_clips], y_weights=b[y_clips])

  # A draw is a small problem: threads that share one wait more than they work,
  # on a busy machine thirty times as long. So one thread each, side by side.
  with threadpoolctl.threadpool_limits(1), futures.ThreadPoolExecutor() as pool:
    resampled = list(pool.map(draw, x_counts, y_counts))
  return intervals.pivotal(
    frechet_distance(x, y),
    np.array(resampled),
    n=int(num_x),
    windows=len(x),
    reference_clips=int(num_y),
  )


def _clip_sums(kernel: np.ndarray, rows: np.ndarray, columns: np.ndarray):
  """Sums of a kernel [n, m] over the windows of each pair of clips."""
  fold_rows = np.eye(rows.max() + 1)[rows]
  fold_columns = np.eye(columns.max() + 1)[columns]
  return fold_rows.T @ kernel @ fold_columns


def median_distance(rows: np.ndarray) -> float:
  """Median distance of pairs; of an even choice of rows if there are many."""
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
  """Kernel audio distance with a percentile interval; may be negative.

  The arguments are those of `frechet`.
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
    """Mean over pairs of different clips, one row of counts a draw."""
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
    float(_KAD_SCALE * value),
    float(_KAD_SCALE * low),
    float(_KAD_SCALE * high),
    int(num_x),
    {"reference_clips": int(num_y)},
  )
