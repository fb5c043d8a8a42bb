"""How sure a figure is: bootstrap intervals over clips.

What is drawn again is always the clip. Windows, onsets and frames of one clip
depend on each other, and drawing them one by one gives intervals that are too
narrow.

Three forms, for three kinds of figure:

* a mean of one value a clip, and a ratio of sums over clips (micro F1): the
  bias-corrected and accelerated bootstrap, by `scipy.stats.bootstrap`.
  Efron, "Better bootstrap confidence intervals", JASA 1987.
* a biased figure of the whole set (Fréchet distance, inception score): the
  pivotal (basic) bootstrap. A resample F* is biased against F as F is against
  the truth, so the truth is near 2F - mean(F*), and the interval is
  [2F - q(1 - a/2), 2F - q(a/2)]. The percentile interval adds the bias a
  second time and can miss the truth always.
  Davison and Hinkley, "Bootstrap Methods and their Application", ch. 2 and 5.
* an unbiased figure of the whole set (kernel distance): percentiles.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import numpy as np
from scipy import stats

LEVEL = 0.95
DRAWS = 5000


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A figure with its interval.

  Attributes:
    value: the figure; NaN where it is undefined.
    low: lower end of the 95 % interval.
    high: upper end.
    n: clips that it rests on.
    extras: what else results.json should say about it, by name.
  """

  value: float
  low: float
  high: float
  n: int
  extras: dict[str, Any] = dataclasses.field(default_factory=dict)

  def to_json(self) -> dict[str, Any]:
    """Plain numbers; what is not finite becomes None, as JSON has no NaN."""
    entry = {"value": self.value, "low": self.low, "high": self.high}
    entry = {"n": self.n} | entry | self.extras
    return {name: _plain(value) for name, value in entry.items()}


def _plain(value: Any) -> Any:
  if isinstance(value, (int, np.integer)):
    return int(value)
  if isinstance(value, (float, np.floating)):
    return float(value) if np.isfinite(value) else None
  return value


def of_sums(
  statistic: Callable[..., np.ndarray],
  *columns: np.ndarray,
  seed: int = 0,
  draws: int = DRAWS,
  level: float = LEVEL,
  **extras: Any,
) -> Estimate:
  """A function of column sums, such as `tp / n`, over clips.

  Args:
    statistic: takes one array of sums a column, returns an array of that shape;
      NaN where it is undefined.
    *columns: float [clips] each.
    seed: of the draws.
    draws: how many.
    level: of the interval.
    **extras: go into the estimate.

  Returns:
    The estimate; its interval is the value itself where every clip says the
    same, and NaN for fewer than two clips.
  """
  columns = tuple(np.asarray(c, np.float64) for c in columns)
  n = len(columns[0])

  def of_axis(*parts, axis):
    with np.errstate(invalid="ignore", divide="ignore"):
      return statistic(*(part.sum(axis=axis) for part in parts))

  if n < 2:
    value = float(of_axis(*columns, axis=0)) if n else np.nan
    return Estimate(value, np.nan, np.nan, n, extras)
  value = float(of_axis(*columns, axis=0))
  if all(np.ptp(column) == 0 for column in columns):
    return Estimate(value, value, value, n, extras)
  with np.errstate(all="ignore"):
    low, high = _bca(of_axis, columns, seed, draws, level)
  return Estimate(value, low, high, n, extras)


def _bca(statistic, columns, seed, draws, level) -> tuple[float, float]:
  """The BCa interval, or percentiles where the acceleration is undefined."""
  settings = dict(
    paired=True,
    vectorized=True,
    n_resamples=draws,
    confidence_level=level,
    axis=0,
  )
  for method in ("BCa", "percentile"):
    result = _quietly(
      stats.bootstrap,
      columns,
      statistic,
      method=method,
      rng=np.random.default_rng(seed),
      **settings,
    ).confidence_interval
    if np.isfinite([result.low, result.high]).all():
      return float(result.low), float(result.high)
  return np.nan, np.nan


def _quietly(function, *args, **settings):
  import warnings  # SciPy warns of the degenerate case that is handled here.

  with warnings.catch_warnings():
    warnings.simplefilter("ignore", stats.DegenerateDataWarning)
    return function(*args, **settings)


def mean(values: np.ndarray, *, seed: int = 0, **extras: Any) -> Estimate:
  """The mean of one value a clip, [clips].

  Clips where the value is undefined (NaN) are left out and counted in the
  extra `undefined`.
  """
  values = np.asarray(values, np.float64)
  kept = values[np.isfinite(values)]
  if len(kept) < len(values):
    extras["undefined"] = len(values) - len(kept)
  return of_sums(np.divide, kept, np.ones_like(kept), seed=seed, **extras)


def pivotal(
  value: float,
  resampled: np.ndarray,
  *,
  n: int,
  level: float = LEVEL,
  **extras: Any,
) -> Estimate:
  """Bias-corrected estimate and pivotal interval of a set's figure.

  Args:
    value: the figure of the set as it is ("plug-in"); kept as the extra
      `plug_in`, because that is what papers print.
    resampled: [draws], the figure of sets with clips drawn again.
    n: clips.
    level: of the interval.
    **extras: go into the estimate.
  """
  tail = (1 - level) / 2
  upper, lower = np.quantile(resampled, [1 - tail, tail])
  return Estimate(
    float(2 * value - resampled.mean()),
    float(2 * value - upper),
    float(2 * value - lower),
    n,
    {"plug_in": float(value)} | extras,
  )


def clip_counts(num_clips: int, *, draws: int, seed: int) -> np.ndarray:
  """How often each clip is drawn: int [draws, clips], rows sum to clips."""
  rng = np.random.default_rng(seed)
  return rng.multinomial(num_clips, np.full(num_clips, 1 / num_clips), draws)
