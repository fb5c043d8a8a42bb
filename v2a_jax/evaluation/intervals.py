"""Bootstrap intervals over clips.

What is resampled is always the clip. Windows, onsets and frames of one clip
depend on each other, and resampling them one by one gives intervals that are
too narrow.

There are three forms, for three kinds of statistic:

* a mean of one value per clip, a ratio of sums over clips (micro F1), and the
  difference of two: the studentized bootstrap ("bootstrap-t"). A resample F*
  with standard error s*, by the delta method, gives t* = (F* - F) / s*, and the
  interval is [F - s q(1 - a/2), F - s q(a/2)] with quantiles q of t*. Of
  percentiles, BCa and this, only this covers with 16 clips (docs/evaluation.md).
  Efron and Tibshirani, "An introduction to the bootstrap", 1993, ch. 12.
* a share of clips: Wilson's score interval, "Probable inference, the law of
  succession, and statistical inference", JASA 1927.
* a median: percentiles of resampled medians.

Statistics of the whole set (distances) have their own: metrics/kernel.py and
extrapolation.py.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import functools
from typing import Any

import numpy as np
from scipy import stats

LEVEL = 0.95
DRAWS = 5000
_LEAST_ERROR = 0.2  # of a resample, in errors of the sample
_FEWEST_DRAWS = 1000
_COUNTS = 2_000_000  # numbers in memory at once


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A value with its 95 % interval.

  Attributes:
    value: the estimate; NaN where it is undefined.
    low: lower end of the interval.
    high: upper end of the interval.
    n: number of clips that it rests on.
    extras: further entries for results.json, by name.
    parts: each clip's part in the value of a statistic of the whole set, with
      the value as their mean, float64 [clips]: rows of the same clips can be
      compared by them as by scores of clips. None: not known.
  """

  value: float
  low: float
  high: float
  n: int
  extras: dict[str, Any] = dataclasses.field(default_factory=dict)
  parts: np.ndarray | None = dataclasses.field(
    default=None, compare=False, repr=False
  )

  def within(self, bounds: tuple[float, float]) -> "Estimate":
    """Ends value and interval at the least and the largest that there can be."""
    ends = np.clip([self.value, self.low, self.high], *bounds)
    value, low, high = map(float, ends)
    return dataclasses.replace(self, value=value, low=low, high=high)

  def at_least(self, least: float) -> "Estimate":
    """Moves a value that is lower, with its parts and interval, to `least`."""
    by = max(0.0, least - self.value) if np.isfinite(self.value) else 0.0
    parts = None if self.parts is None else self.parts + by
    ends = (self.value + by, max(least, self.low + by), self.high + by)
    value, low, high = map(float, ends)
    return dataclasses.replace(
      self, value=value, low=low, high=high, parts=parts
    )

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


def ratio(
  numerator: np.ndarray,
  denominator: np.ndarray,
  *,
  seed: int = 0,
  **extras: Any,
) -> Estimate:
  """Estimates the ratio of two sums over clips.

  Args:
    numerator: each clip's part, float [clips].
    denominator: each clip's part, [clips].
    seed: random seed of the bootstrap.
    **extras: further entries of the estimate.

  Returns:
    The estimate; its interval is the value itself where all clips are equal,
    and NaN for fewer than two clips.
  """
  columns = np.stack([numerator, denominator], 1).astype(np.float64)
  return _studentized(columns, seed, extras)


def ratio_difference(
  numerator: np.ndarray,
  denominator: np.ndarray,
  other_numerator: np.ndarray,
  other_denominator: np.ndarray,
  *,
  seed: int = 0,
) -> Estimate:
  """Estimates the ratio of sums less that of another row, same clips."""
  columns = (numerator, denominator, other_numerator, other_denominator)
  columns = np.stack(columns, 1).reshape(-1, 2, 2)
  return weighted_ratios(columns, (1, -1), seed=seed)


def weighted_ratios(
  columns: np.ndarray,
  weights: Sequence[float],
  *,
  seed: int = 0,
  draws: int = DRAWS,
) -> Estimate:
  """Estimates a weighted sum of ratios of sums over the same clips.

  Args:
    columns: numerators and denominators, float [clips, ratios, 2].
    weights: factor of each ratio, [ratios].
    seed: random seed of the bootstrap.
    draws: number of resamples.
  """
  flat = columns.reshape(len(columns), -1).astype(np.float64)
  return _studentized(flat, seed, {}, draws, weights)


def mean(
  values: np.ndarray, *, seed: int = 0, draws: int = DRAWS, **extras: Any
) -> Estimate:
  """Estimates the mean of one value per clip, [clips].

  Undefined values (NaN) are left out and counted in the extra `undefined`.
  """
  defined, extras = _defined(values, extras)
  columns = np.stack([defined, np.ones_like(defined)], 1)
  return _studentized(columns, seed, extras, draws)


def _defined(values, extras) -> tuple[np.ndarray, dict[str, Any]]:
  values = np.asarray(values, np.float64)
  defined = values[np.isfinite(values)]
  if len(defined) < len(values):
    extras = extras | {"undefined": len(values) - len(defined)}
  return defined, extras


def _studentized(
  columns: np.ndarray,
  seed: int,
  extras: dict[str, Any],
  draws: int = DRAWS,
  weights: Sequence[float] = (1,),
) -> Estimate:
  """Estimates a weighted sum of ratios of sums of columns [clips, 2 ratios]."""
  n = len(columns)
  pairs = np.triu_indices(columns.shape[1])
  products = columns[:, pairs[0]] * columns[:, pairs[1]]
  value, error = _with_error(columns.sum(0), products.sum(0), n, weights)
  if n < 2 or not np.isfinite(value):
    return Estimate(float(value), np.nan, np.nan, n, extras)
  if not np.ptp(columns, axis=0).any() or error == 0:
    return Estimate(float(value), float(value), float(value), n, extras)
  parts = []
  for counts in _resamples(n, draws, seed):
    sums = counts @ columns, counts @ products
    drawn, errors = _with_error(*sums, n, weights)
    # A draw of nearly equal clips would have no error and an endless t.
    parts.append((drawn - value) / np.maximum(errors, _LEAST_ERROR * error))
  scores = np.concatenate(parts)
  scores = scores[np.isfinite(scores)]
  if not len(scores):
    return Estimate(float(value), np.nan, np.nan, n, extras)
  tail = (1 - LEVEL) / 2
  upper, lower = np.quantile(scores, [1 - tail, tail])
  low, high = value - error * upper, value - error * lower
  return Estimate(float(value), float(low), float(high), n, extras)


def _resamples(clips: int, draws: int, seed: int) -> Iterator[np.ndarray]:
  """Draws how often each clip is resampled, float64 [some draws, clips].

  Of very many clips, fewer draws are taken: ends of an interval then vary by a
  few percent of its width.
  """
  draws = min(draws, max(_FEWEST_DRAWS, _COUNTS // clips))
  if clips * draws <= _COUNTS:
    yield _counts(clips, draws, seed)
    return
  size = max(1, _COUNTS // clips)
  for part, start in enumerate(range(0, draws, size)):
    rng = np.random.default_rng((seed, part))
    yield _draw(rng, clips, min(size, draws - start))


@functools.lru_cache(maxsize=4)
def _counts(clips: int, draws: int, seed: int) -> np.ndarray:
  """Draws once for all metrics of as many clips."""
  return _draw(np.random.default_rng(seed), clips, draws)


def _draw(rng, clips: int, draws: int) -> np.ndarray:
  even = np.full(clips, 1 / clips)
  return rng.multinomial(clips, even, draws).astype(np.float64)


def _with_error(
  sums, products, n: int, weights: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
  """Returns statistics and standard errors from sums [..., k] over n clips.

  `products` are the sums of products of columns, those of the upper triangle.
  """
  k = sums.shape[-1]
  with np.errstate(invalid="ignore", divide="ignore"):
    ratios = sums[..., 0::2] / sums[..., 1::2]
    slopes = np.stack([1 / sums[..., 1::2], -ratios / sums[..., 1::2]], -1)
    weights = np.asarray(weights, np.float64)
    slopes = (slopes * weights[:, None]).reshape(*sums.shape)
    rows, columns = np.triu_indices(k)
    covariance = products - sums[..., rows] * sums[..., columns] / n
    twice = np.where(rows == columns, 1.0, 2.0)
    variance = twice * slopes[..., rows] * slopes[..., columns] * covariance
    variance = variance.sum(-1) * n / max(n - 1, 1)
  return (ratios * weights).sum(-1), np.sqrt(np.maximum(variance, 0.0))


def share(states: Sequence[bool]) -> Estimate:
  """Estimates the share of clips in which something is so, by Wilson."""
  n, count = len(states), int(np.sum(states))
  if not n:
    return Estimate(np.nan, np.nan, np.nan, 0)
  test = stats.binomtest(count, n)
  interval = test.proportion_ci(LEVEL, method="wilson")
  return Estimate(count / n, float(interval.low), float(interval.high), n)


def median(values: Sequence[float], *, seed: int = 0) -> Estimate:
  """Estimates the median of one value per clip, by percentiles.

  Undefined values (NaN) are left out and counted in the extra `undefined`.
  """
  defined, extras = _defined(values, {})
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
