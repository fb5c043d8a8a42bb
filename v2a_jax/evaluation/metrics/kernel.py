"""Kernel distance between two sets of embeddings (KAD).

100 x the squared maximum mean discrepancy under a Gaussian kernel

  k(a, b) = exp(-|a - b|^2 / (2 s^2 + 1e-8))
  KAD = 100 (mean k(x, x') + mean k(y, y') - 2 mean k(x, y))

whose bandwidth s is the reference's median pairwise distance. Chung et al.,
"KAD: no more FAD!", https://arxiv.org/abs/2502.15602. Pairs (x, x') from one
clip are left out, as they depend on each other; the estimate is then unbiased.

It is a U-statistic of clips, and its variance has the usual two orders

  var = z_x / n + z_y / m + 2 e_xx / n(n-1) + 2 e_yy / m(m-1) + 4 e_xy / nm

with e the variance of the kernel of two clips beside their own effects, and z
that of a clip's effect, from which the part that e adds to a mean over few
clips is taken: without this the interval of equal sets is twice too wide.
Serfling, "Approximation theorems of mathematical statistics", 1980, ch. 5;
for kernels Bounliphone et al., https://arxiv.org/abs/1511.04581.

To the clips' own true sounds it is a U-statistic of one set of clips, each with
both of its sounds: the mean over pairs of clips of

  h(i, j) = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i)

with the mean kernel of the clips' windows for k. Its variance is 4 z / n
+ 2 e / n(n-1), so that the true sounds themselves are at 0 with no error.

The kernel is summed in blocks of windows, so memory grows with their number and
not with its square.
"""

import dataclasses

import numpy as np
from scipy import stats
from scipy.spatial import distance

from v2a_jax.evaluation import intervals
from v2a_jax.evaluation.metrics import base
from v2a_jax.hearing import embeddings

_SCALE = 100.0
_BANDWIDTH_ROWS = 2000
_KADTK_ROWS = 10_000
_BLOCK = 1024  # windows


@dataclasses.dataclass(frozen=True)
class KernelDistance(base.OnEmbedding, base.SetMetric):
  """Kernel distance to true sounds of other clips."""

  stem, name = "kad", "KAD"
  variant = "mmd2_between_clips"
  direction = "lower"
  about = (
    "100 x squared kernel distance between the same sets as FAD, bandwidth from"
    " the reference's median distance, pairs within a clip left out. Unbiased,"
    " so it can be slightly negative."
  )
  needs_reference = True
  has_own = True

  def compute(self, features, *, reference, seed=0) -> intervals.Estimate:
    return kernel_distance(features, reference)

  def compute_own(self, features, *, truth, seed=0) -> intervals.Estimate:
    found = kernel_distance(features, truth, own=True).at_least(0)
    # Of many clips it held the truth too seldom (docs/evaluation.md).
    return dataclasses.replace(found, low=np.nan, high=np.nan)


@dataclasses.dataclass(frozen=True)
class KadtkDistance(base.OnEmbedding, base.SetMetric):
  """Kernel distance as kadtk computes it, to be held against published ones."""

  stem, name = "kad_kadtk", "KAD as kadtk"
  variant = "kadtk_1.1"
  direction = "lower"
  role = "shown"
  about = (
    "KAD as the toolkit kadtk computes it: bandwidth from the row's own median"
    " distance, pairs of windows within a clip included."
  )
  needs_reference = True
  has_own = True

  def compute(self, features, *, reference, seed=0) -> intervals.Estimate:
    value = kadtk_distance(features.vectors, reference.vectors)
    clips = int(features.clips.max()) + 1
    return intervals.Estimate(value, np.nan, np.nan, clips)

  def compute_own(self, features, *, truth, seed=0) -> intervals.Estimate:
    return self.compute(features, reference=truth)


def kadtk_distance(x: np.ndarray, y: np.ndarray) -> float:
  """Returns 100 x the squared discrepancy of windows x [n, d] and y [m, d].

  `calc_kernel_audio_distance(y, x)` of https://github.com/YoonjinXD/kadtk 1.1,
  whose bandwidth is the lower median distance of the set that is judged; of
  every k-th window here where there are more than 10,000.
  """
  step = -(-len(x) // _KADTK_ROWS)
  distances = distance.pdist(x[::step])
  middle = (len(distances) - 1) // 2
  bandwidth = np.partition(distances, middle)[middle]
  gamma = 1.0 / (2.0 * bandwidth**2 + 1e-8)
  x, y = (
    embeddings.Features(v, np.arange(len(v)), np.zeros((len(v), 0)))
    for v in (x, y)
  )
  within = _pairs(x, x, gamma, apart=True).value
  within += _pairs(y, y, gamma, apart=True).value
  return _SCALE * (within - 2 * _pairs(x, y, gamma, apart=False).value)


def median_distance(rows: np.ndarray) -> float:
  """Returns the median distance of pairs of rows, of every k-th if many."""
  step = -(-len(rows) // _BANDWIDTH_ROWS)
  return float(np.median(distance.pdist(rows[::step])))


def kernel_distance(
  x: embeddings.Features, y: embeddings.Features, *, own: bool = False
) -> intervals.Estimate:
  """Estimates the kernel distance to the reference `y`.

  With `own`, `y` has the true sounds of the clips of `x`. The value may be
  negative; the extra is `reference_clips`.
  """
  found = _own_distance(x, y) if own else _distance(x, y)
  n, m = int(x.clips.max()) + 1, int(y.clips.max()) + 1
  # Few clips of one set hardly tell their own variance.
  law = stats.t(max(n - 1, 1)) if own else stats.norm
  half = law.ppf((1 + intervals.LEVEL) / 2) * found.error
  return intervals.Estimate(
    *(found.value, found.value - half, found.value + half, n),
    {"reference_clips": m},
    parts=found.parts,
  )


@dataclasses.dataclass(frozen=True)
class _Found:
  value: float
  error: float  # standard error
  parts: np.ndarray  # of each clip in the value, [clips]


@dataclasses.dataclass(frozen=True)
class _Pairs:
  """Means over pairs of clips of two sets, or of one set with itself.

  Attributes:
    value: mean kernel.
    rows: effect of each clip of the first set, [clips]; mean 0.
    columns: of the second.
    rest: variance of a pair beside the effects of its clips.
  """

  value: float
  rows: np.ndarray
  columns: np.ndarray
  rest: float


def _own_distance(x: embeddings.Features, y: embeddings.Features) -> _Found:
  # One set of clips, in which windows of true sounds have negative weights.
  gamma = _gamma(y)
  weights = [sign / np.bincount(of.clips) for sign, of in ((1, x), (-1, y))]
  weights = np.concatenate([w[of.clips] for w, of in zip(weights, (x, y))])
  vectors = np.concatenate([x.vectors, y.vectors])
  clips = np.concatenate([x.clips, y.clips])
  blocks = _blocks(embeddings.Features(vectors, clips, x.logits))
  n = int(x.clips.max()) + 1
  rows, squared = np.zeros(n), 0.0
  for i, a in enumerate(blocks):
    for b in blocks[i:]:
      apart = distance.cdist(a.vectors, b.vectors, "sqeuclidean")
      pairs = np.exp(-gamma * apart) * weights[a.rows, None] * weights[b.rows]
      pairs = np.add.reduceat(pairs, a.starts, axis=0)
      pairs = np.add.reduceat(pairs, b.starts, axis=1)
      if a is b:
        np.fill_diagonal(pairs, 0.0)
      else:
        rows[b.clips] += pairs.sum(0)
        squared += (pairs**2).sum()
      rows[a.clips] += pairs.sum(1)
      squared += (pairs**2).sum()
  if n < 2:
    return _Found(np.nan, np.nan, np.full(n, np.nan))
  value = rows.sum() / (n * (n - 1))
  effects = rows / (n - 1) - value
  spread = squared / (n * (n - 1)) - value**2
  rest = max(spread - 2 * (effects**2).mean(), 0.0)
  own = max(effects.var(ddof=1) - rest / (n - 1), 0.0)
  error = np.sqrt(4 * own / n + 2 * rest / (n * (n - 1)))
  parts = _SCALE * (value + 2 * effects)
  return _Found(_SCALE * value, float(_SCALE * error), parts)


def _gamma(y: embeddings.Features) -> float:
  return 1.0 / (2.0 * median_distance(y.vectors) ** 2 + 1e-8)


def _distance(x: embeddings.Features, y: embeddings.Features) -> _Found:
  gamma = _gamma(y)
  xx, yy = (_pairs(of, of, gamma, apart=True) for of in (x, y))
  xy = _pairs(x, y, gamma, apart=False)
  n, m = len(xx.rows), len(yy.rows)
  effects = [2 * (xx.rows - xy.rows), 2 * (yy.rows - xy.columns)]
  noise = [
    4 * (xx.rest / max(n - 1, 1) + xy.rest / m),
    4 * (yy.rest / max(m - 1, 1) + xy.rest / n),
  ]
  variance = 2 * xx.rest / (n * max(n - 1, 1)) + 4 * xy.rest / (n * m)
  variance += 2 * yy.rest / (m * max(m - 1, 1))
  for effect, added in zip(effects, noise):
    spread = effect.var(ddof=1) if len(effect) > 1 else np.nan
    variance += np.maximum(spread - added, 0) / len(effect)
  value = _SCALE * (xx.value + yy.value - 2 * xy.value)
  error = float(_SCALE * np.sqrt(variance))
  return _Found(value, error, value + _SCALE * effects[0])


def _pairs(
  x: embeddings.Features, y: embeddings.Features, gamma, *, apart: bool
) -> _Pairs:
  """Averages the kernel over pairs of windows, only of different clips if asked."""
  left, right = _blocks(x), _blocks(y)
  rows = np.concatenate([np.zeros(len(block.sizes)) for block in left])
  columns = np.concatenate([np.zeros(len(block.sizes)) for block in right])
  row_pairs, column_pairs = np.zeros_like(rows), np.zeros_like(columns)
  moments = np.zeros(3)  # sums of kernel^2, kernel x pairs, pairs^2
  for a in left:
    for b in right:
      squares = distance.cdist(a.vectors, b.vectors, "sqeuclidean")
      total = np.add.reduceat(np.exp(-gamma * squares), a.starts, axis=0)
      total = np.add.reduceat(total, b.starts, axis=1)
      pairs = np.outer(a.sizes, b.sizes).astype(np.float64)
      if apart:
        differ = a.clips[:, None] != b.clips
        total, pairs = total * differ, pairs * differ
      rows[a.clips] += total.sum(1)
      columns[b.clips] += total.sum(0)
      row_pairs[a.clips] += pairs.sum(1)
      column_pairs[b.clips] += pairs.sum(0)
      moments += [(total**2).sum(), (total * pairs).sum(), (pairs**2).sum()]
  count = len(rows) * (len(columns) - apart)
  with np.errstate(invalid="ignore", divide="ignore"):
    value, mean_pairs = rows.sum() / row_pairs.sum(), row_pairs.sum() / count
    scale = mean_pairs * count
    rows = (rows - value * row_pairs) * len(rows) / scale
    columns = (columns - value * column_pairs) * len(columns) / scale
    spread = moments @ [1, -2 * value, value**2] / (mean_pairs**2 * count)
    left_over = 1 - 1 / len(rows) - 1 / len(columns)
    rest = (spread - (rows**2).mean() - (columns**2).mean()) / left_over
  return _Pairs(float(value), rows, columns, max(float(rest), 0.0))


@dataclasses.dataclass(frozen=True)
class _Block:
  """Windows of a few whole clips.

  Attributes:
    vectors: float [windows, d].
    rows: indices of the windows in the features, [windows].
    clips: indices of the clips, [clips].
    starts: index of each clip's first window, [clips].
    sizes: number of each clip's windows, [clips].
  """

  vectors: np.ndarray
  rows: np.ndarray
  clips: np.ndarray
  starts: np.ndarray
  sizes: np.ndarray


def _blocks(features: embeddings.Features) -> list[_Block]:
  """Cuts windows, ordered by clip, into blocks of about `_BLOCK`."""
  order = np.argsort(features.clips, kind="stable")
  sizes = np.bincount(features.clips)
  ends = np.cumsum(sizes)
  blocks, first = [], 0
  while first < len(sizes):
    start = ends[first] - sizes[first]
    last = int(np.searchsorted(ends, start + _BLOCK, side="right"))
    last = max(last, first + 1)
    clips, rows = np.arange(first, last), order[start : ends[last - 1]]
    blocks.append(
      _Block(
        features.vectors[rows],
        rows,
        clips,
        ends[clips] - sizes[clips] - start,
        sizes[clips],
      )
    )
    first = last
  return blocks
