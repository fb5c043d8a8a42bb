"""Bootstrap intervals over clips.

What is resampled is always the clip. Windows, onsets and frames of one clip
depend on each other, and resampling them one by one gives intervals that are
too narrow.

There are three forms, for three kinds of statistic:

* a mean of one value per clip, and a ratio of sums over clips (micro F1): the
  bias-corrected and accelerated bootstrap, by `scipy.stats.bootstrap`.
  Efron, "Better bootstrap confidence intervals", JASA 1987.
* a biased statistic of the whole set (Fréchet distance, inception score): the
  pivotal (basic) bootstrap. A resample F* is biased against F as F is against
  the truth, so the truth is near 2F - mean(F*), and the interval is
  [2F - q(1 - a/2), 2F - q(a/2)]. The percentile interval adds the bias a
  second time and may never cover the truth.
  Davison and Hinkley, "Bootstrap Methods and their Application", ch. 2 and 5.
* an unbiased statistic of the whole set (kernel distance): percentiles.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any
import warnings

import numpy as np
from scipy import stats

LEVEL = 0.95
DRAWS = 5000


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A value with its 95 % interval.

  Attributes:
    value: the estimate; NaN where it is undefined.
    low: lower end of the interval.
    high: upper end of the interval.
    n: number of clips that it rests on.
    extras: further entries for results.json, by name.
  """

  value: float
  low: float
  high: float
  n: int
  extras: dict[str, Any] = dataclasses.field(default_factory=dict)

  def to_json(self) -> dict[str, Any]:
    """Returns plain numbers; what is not finite is None, as JSON has no NaN."""
    entry = {"value": self.value, "low": self.low, "high": self.high}
    entry = {"n": self.n} | entry | self.extras
    return {name: _plain(value) for name, value in entry.items()}


def _plain(value: Any) -> Any:
  if isinstance(value, (int, np.integer)):
    return int(value)
  if isinstance(value, (float, np.floating)):
    return float(value) if np.isfinite(value) else None
  return value


def statistic_of_sums(
  statistic: Callable[..., np.ndarray],
  *columns: np.ndarray,
  seed: int = 0,
  draws: int = DRAWS,
  level: float = LEVEL,
  **extras: Any,
) -> Estimate:
  """Estimates a function of column sums over clips, such as `tp / n`.

  Args:
    statistic: takes one array of sums per column, returns an array of that
      shape; NaN where it is undefined.
    *columns: float [clips] each.
    seed: random seed of the bootstrap.
    draws: number of bootstrap resamples.
    **extras: further entries of the estimate.

  Returns:
    The estimate; its interval is the value itself where all clips are equal,
    and NaN for fewer than two clips.
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
  """Returns the BCa interval; percentiles if the acceleration is undefined."""
  for method in ("BCa", "percentile"):
    with warnings.catch_warnings():
      # The degenerate case is what percentiles are for.
      warnings.simplefilter("ignore", stats.DegenerateDataWarning)
      interval = stats.bootstrap(
        columns,
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=draws,
        confidence_level=level,
        axis=0,
        method=method,
        rng=np.random.default_rng(seed),
      ).confidence_interval
    if np.isfinite([interval.low, interval.high]).all():
      return float(interval.low), float(interval.high)
  return np.nan, np.nan


def mean(values: np.ndarray, *, seed: int = 0, **extras: Any) -> Estimate:
  """Estimates the mean of one value per clip, [clips].

  Undefined values (NaN) are left out and counted in the extra `undefined`.
  """
  values = np.asarray(values, np.float64)
  defined = values[np.isfinite(values)]
  if len(defined) < len(values):
    extras["undefined"] = len(values) - len(defined)
  return statistic_of_sums(
    np.divide, defined, np.ones_like(defined), seed=seed, **extras
  )


def median(values: Sequence[float], *, seed: int = 0) -> Estimate:
  """Estimates the median of one value per clip, by percentiles.

  Undefined values (NaN) are left out and counted in the extra `undefined`.
  """
  values = np.asarray(values, np.float64)
  defined = values[np.isfinite(values)]
  extras = {}
  if len(defined) < len(values):
    extras["undefined"] = len(values) - len(defined)
  n = len(defined)
  if n < 2:
    value = float(defined[0]) if n else np.nan
    return Estimate(value, np.nan, np.nan, n, extras)
  drawn = np.random.default_rng(seed).integers(n, size=(DRAWS, n))
  medians = np.median(defined[drawn], axis=1)
  low, high = np.quantile(medians, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
  return Estimate(float(np.median(defined)), float(low), float(high), n, extras)


def with_extras(estimate: Estimate, extras: Mapping[str, Any]) -> Estimate:
  """Adds further entries to an estimate."""
  return dataclasses.replace(estimate, extras=estimate.extras | extras)


def pivotal(
  value: float,
  resampled: np.ndarray,
  *,
  n: int,
  level: float = LEVEL,
  **extras: Any,
) -> Estimate:
  """Estimates a biased statistic of a set of `n` clips, bias-corrected.

  `value` is the statistic of the set as it is, which papers print and the extra
  `plug_in` keeps. `resampled` has that of sets with resampled clips.
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
  """Draws how often each clip is resampled, int [draws, clips]."""
  rng = np.random.default_rng(seed)
  return rng.multinomial(num_clips, np.full(num_clips, 1 / num_clips), draws)
