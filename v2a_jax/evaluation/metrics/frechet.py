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
clips. So it is extrapolated to endless sets (extrapolation.py), with the
plug-in value, which papers print, beside it. When a window a of the first set,
less its mean, weighs more, F changes by

  |a|^2 - tr S_x + 2 a (m_x - m_y) - (n (U s U')_aa - sum s)

with the singular value decomposition A B' = U s V'; so one decomposition gives
the distance and the influence of every clip of both sets.
"""

import dataclasses

import numpy as np
import threadpoolctl

from v2a_jax.evaluation import intervals
from v2a_jax.evaluation.extrapolation import (
  FEWEST_FOR_INTERVAL,
  FEWEST_OF_OWN,
  Extrapolated,
  extrapolate,
)
from v2a_jax.evaluation.metrics import base
from v2a_jax.hearing import embeddings

_LARGE = 2000  # windows from which a decomposition pays for threads


@dataclasses.dataclass(frozen=True)
class FrechetDistance(base.OnEmbedding, base.SetMetric):
  """Fréchet distance to true sounds of other clips."""

  stem, name = "fad", "FAD"
  variant = "frechet_extrapolated"
  direction = "lower"
  bounds = (0.0, np.inf)
  needs_reference = True
  has_own = True

  @property
  def about(self) -> str:
    return (
      "Fréchet distance between the row's sounds and true sounds of other clips,"
      f" on {self.embedding.about}. Extrapolated to endless sets, which leaves"
      " some bias with few clips: read it against the ground truth row."
      " `plug_in` is the uncorrected value that papers print. Only distances on"
      " the same embedding can be compared."
    )

  def weakness(self, clips: int) -> str:
    dim = self.embedding.dim
    if clips >= dim:
      return ""
    return (
      f"{clips} clips are fewer than the {dim} dimensions of the embedding:"
      " some of the bias of few clips is left"
    )

  def compute(self, features, *, reference, seed=0) -> intervals.Estimate:
    return frechet(features, reference, seed=seed)

  def compute_own(self, features, *, truth, seed=0) -> intervals.Estimate:
    return frechet(features, truth, seed=seed, own=True).at_least(0)


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
  """Returns the squared Fréchet distance, not bias-corrected, in float64.

  Args:
    x: embeddings [n, d].
    y: embeddings [m, d].

  Raises:
    ValueError: a set has fewer than two rows, or values that are not finite.
  """
  mean_x, rows_x = _centred(x)
  mean_y, rows_y = _centred(y)
  cross = np.linalg.svd(_short(rows_x) @ _short(rows_y).T, compute_uv=False)
  return _distance(mean_x - mean_y, rows_x, rows_y, cross)


def _distance(apart, rows_x, rows_y, cross) -> float:
  spread = np.square(rows_x).sum() + np.square(rows_y).sum()
  return float(max(0.0, np.square(apart).sum() + spread - 2 * cross.sum()))


def _centred(rows) -> tuple[np.ndarray, np.ndarray]:
  """Returns the mean [d] and rows A [n, d]; A' A is the covariance (n - 1)."""
  rows = np.asarray(rows, np.float64)
  if len(rows) < 2:
    raise ValueError(
      f"a Fréchet distance needs two embeddings per set, not {len(rows)}"
    )
  if not np.isfinite(rows).all():
    raise ValueError("Fréchet distance: an embedding is not finite")
  mean = rows.mean(axis=0)
  return mean, (rows - mean) / np.sqrt(len(rows) - 1)


def _short(rows: np.ndarray) -> np.ndarray:
  """Returns at most d rows with the same covariance."""
  tall = rows.shape[0] > rows.shape[1]
  return np.linalg.qr(rows, mode="r") if tall else rows


def with_influence(
  x: np.ndarray, y: np.ndarray
) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
  """Returns the distance, and the influence of each row of both sets.

  Arguments and errors are those of `frechet_distance`.
  """
  mean_x, rows_x = _centred(x)
  mean_y, rows_y = _centred(y)
  apart = mean_x - mean_y
  left, short_x = _factors(rows_x)
  right, short_y = _factors(rows_y)
  u, cross, vt = np.linalg.svd(short_x @ short_y.T, full_matrices=False)
  return _distance(apart, rows_x, rows_y, cross), (
    _influence(rows_x, apart, left @ u if left is not None else u, cross),
    _influence(
      rows_y, -apart, right @ vt.T if right is not None else vt.T, cross
    ),
  )


def _factors(rows: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
  """Returns Q and R of tall rows; None and the rows of others."""
  tall = rows.shape[0] > rows.shape[1]
  return tuple(np.linalg.qr(rows)) if tall else (None, rows)


def _influence(rows, apart, vectors, cross) -> np.ndarray:
  n = len(rows)
  lengths = (n - 1) * np.square(rows).sum(axis=1)
  shift = 2 * np.sqrt(n - 1) * rows @ apart
  shared = n * (np.square(vectors) @ cross)
  return lengths - lengths.mean() + shift - (shared - cross.sum())


def extrapolated(
  x: embeddings.Features,
  y: embeddings.Features,
  *,
  seed: int = 0,
  own: bool = False,
) -> Extrapolated:
  """Extrapolates the distance to endless sets of clips.

  With `own`, both are of the same clips, which are drawn together.
  """
  windows = [_by_clip(x), _by_clip(y)]

  def statistic(*chosen):
    rows = [
      np.concatenate([of[i] for i in clips])
      for of, clips in zip(windows, chosen)
    ]
    value, influences = with_influence(*rows)
    parts = []
    for of, clips, influence in zip(windows, chosen, influences):
      sizes = [len(of[i]) for i in clips]
      starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
      total = np.add.reduceat(influence, starts)
      parts.append(total * len(clips) / len(influence))
    return value, parts

  def of_clips(chosen):
    value, parts = statistic(chosen, chosen)
    return value, [sum(parts)]

  # On a busy machine, BLAS threads that share one take thirty times as long.
  limit = 1 if len(x.vectors) < _LARGE else None
  with threadpoolctl.threadpool_limits(limit):
    if own:
      return extrapolate(of_clips, len(windows[0]), seed=seed)
    return extrapolate(statistic, *map(len, windows), seed=seed)


def _by_clip(features: embeddings.Features) -> list[np.ndarray]:
  count = int(features.clips.max()) + 1
  return [features.vectors[features.clips == i] for i in range(count)]


def frechet(
  x: embeddings.Features,
  y: embeddings.Features,
  *,
  seed: int = 0,
  own: bool = False,
) -> intervals.Estimate:
  """Estimates the distance of endless sets like `x` and the reference `y`.

  With `own`, `y` has the true sounds of the clips of `x`.

  Extras are `plug_in`, `windows` and `reference_clips`.
  """
  return extrapolated(x, y, seed=seed, own=own).estimate(
    fewest=FEWEST_OF_OWN if own else FEWEST_FOR_INTERVAL,
    windows=len(x.vectors),
    reference_clips=int(y.clips.max()) + 1,
  )
