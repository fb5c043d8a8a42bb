"""Fréchet distance between two sets of embeddings (FAD).

Distance of the Gaussians N(m_x, S_x), N(m_y, S_y) fitted to the sets:

  F = |m_x - m_y|^2 + tr S_x + tr S_y - 2 tr (S_x S_y)^(1/2)

Heusel et al., https://arxiv.org/abs/1706.08500, eq. 6; for sound Kilgour et
al., "Fréchet audio distance", https://arxiv.org/abs/1812.08466. With the
centred rows A = (X - m_x) / sqrt(n - 1) and B likewise, S_x = A' A and

  tr (S_x S_y)^(1/2) = the sum of the singular values of A B'

so no matrix square root is taken, nothing is added to a diagonal, nothing turns
complex, and fewer rows than dimensions is no special case.

F is biased upwards, by more than a good model's distance when there are few
clips. So the clips of both sets are resampled, and the bias-corrected value and
the pivotal interval are reported (see intervals.py), with the plug-in value
beside them.
"""

from concurrent import futures

import numpy as np
import threadpoolctl

from v2a_jax.evaluation import embeddings, intervals
from v2a_jax.evaluation.metrics import base

DRAWS = 200  # bootstrap resamples; each takes a singular value decomposition


class FrechetDistance(base.SetMetric):
  """Fréchet distance to true sounds of other clips, on mn04 embeddings."""

  id = "fad_mn04"
  label = "FAD (mn04)"
  direction = "lower"
  about = (
    "Fréchet distance between the row's sounds and true sounds of other clips,"
    " on EfficientAT mn04 embeddings of 1 s windows. Corrected for the bias of"
    " small sets by the bootstrap, which can leave part of it: read it against"
    " the ground truth row. `plug_in` is the uncorrected value that papers"
    " print; not comparable with VGGish FAD."
  )
  embedding = embeddings.Mn04
  needs_reference = True

  def compute(self, features, *, reference, seed=0) -> intervals.Estimate:
    return frechet(features, reference, seed=seed)


def frechet_distance(
  x: np.ndarray,
  y: np.ndarray,
  *,
  x_weights: np.ndarray | None = None,
  y_weights: np.ndarray | None = None,
) -> float:
  """Returns the squared Fréchet distance, not bias-corrected, in float64.

  Args:
    x: embeddings [n, d].
    y: embeddings [m, d].
    x_weights: multiplicity of each row, non-negative integers [n]; None for 1.
    y_weights: multiplicity of each row, [m].

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
  """Returns the mean [d] and rows A [n, d]; A' A is the covariance (n - 1)."""
  rows = np.asarray(rows, np.float64)
  if weights is None:
    weights = np.ones(len(rows))
  rows, weights = rows[weights > 0], weights[weights > 0]
  if weights.sum() < 2:
    raise ValueError(
      f"a Fréchet distance needs two embeddings per set, not {len(rows)}"
    )
  if not np.isfinite(rows).all():
    raise ValueError("Fréchet distance: an embedding is not finite")
  mean = weights @ rows / weights.sum()
  scale = np.sqrt(weights / (weights.sum() - 1))
  return mean, (rows - mean) * scale[:, None]


def _short(rows: np.ndarray) -> np.ndarray:
  """Returns at most d rows with the same covariance."""
  tall = rows.shape[0] > rows.shape[1]
  return np.linalg.qr(rows, mode="r") if tall else rows


def frechet(
  x: embeddings.Features,
  y: embeddings.Features,
  *,
  seed: int = 0,
  draws: int = DRAWS,
) -> intervals.Estimate:
  """Estimates the bias-corrected Fréchet distance to the reference `y`.

  Extras are `plug_in`, `windows` and `reference_clips`.
  """
  num_x, num_y = int(x.clips.max()) + 1, int(y.clips.max()) + 1
  x_counts = intervals.clip_counts(num_x, draws=draws, seed=seed)
  y_counts = intervals.clip_counts(num_y, draws=draws, seed=seed + 1)

  def draw(a, b):
    weights = {"x_weights": a[x.clips], "y_weights": b[y.clips]}
    return frechet_distance(x.vectors, y.vectors, **weights)

  # A draw is a small problem: on a busy machine, BLAS threads that share one
  # take thirty times as long. So one thread per draw, draws side by side.
  with threadpoolctl.threadpool_limits(1), futures.ThreadPoolExecutor() as pool:
    resampled = list(pool.map(draw, x_counts, y_counts))
  return intervals.pivotal(
    frechet_distance(x.vectors, y.vectors),
    np.array(resampled),
    n=num_x,
    windows=len(x.vectors),
    reference_clips=num_y,
  )
