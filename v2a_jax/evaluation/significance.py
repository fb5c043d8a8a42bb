"""Tests of whether two rows of sounds for the same clips differ.

Under the hypothesis that a clip's two sounds come from equal models, they could
as well be exchanged. So the difference of the rows is compared with what it is
when the sounds of clips are swapped at random: the paired permutation test,
which for means is the test by flips of sign. It holds at any number of clips
and for any distribution; with n clips its least p is 2 / 2^n, so with fewer than
six nothing can be named at 5 %, and with several tests more are needed.

Pitman, "Significance tests which may be applied to samples from any
populations", 1937; Phipson and Smyth, "Permutation p-values should never be
zero", 2010, for the p of drawn swaps.

Several tests are corrected together, by Holm, "A simple sequentially rejective
multiple test procedure", 1979: the chance that any of a family is named by
mistake stays below the level.
"""

from collections.abc import Sequence
import functools
import math

import numpy as np

LEVEL = 0.05
_EXACT = 13  # clips up to which all 2^n swaps are tried
_DRAWS = 20_000
_VALUES = 4_000_000  # swaps drawn at once


def swap_test(first: np.ndarray, second: np.ndarray, *, seed: int = 0) -> float:
  """Tests whether two rows have the same ratio of sums over clips.

  Args:
    first: float [clips, 2], each clip's part of the numerator and of the
      denominator; for a mean of values, value and 1.
    second: of the other row, the same clips in the same order.
    seed: random seed of the swaps, where not all are tried.

  Returns:
    The two-sided p; NaN where the difference is undefined.
  """
  first, second = (np.asarray(x, np.float64) for x in (first, second))
  change, total = second - first, first.sum(0) + second.sum(0)

  def difference(moved):
    """Returns ratio less ratio, from what swaps move [..., 2]."""
    one = first.sum(0) + moved
    with np.errstate(invalid="ignore", divide="ignore"):
      ratios = [sums[..., 0] / sums[..., 1] for sums in (one, total - one)]
    return ratios[0] - ratios[1]

  seen = abs(difference(np.zeros(2)))
  if not np.isfinite(seen):
    return np.nan
  exact = len(first) <= _EXACT
  swaps = _all_swaps(len(first)) if exact else _drawn(len(first), seed)
  # Rounding differs between orders of summing.
  least = seen - 1e-9 * max(1.0, seen)
  count = tried = 0
  for part in swaps:
    drawn = np.abs(difference(part @ change))
    # An undefined difference, as of no onsets at all, counts against naming.
    count += int((~(drawn < least)).sum())
    tried += len(part)
  return count / tried if exact else (count + 1) / (tried + 1)


def clips_needed(tests: int = 1) -> int:
  """Returns the fewest clips with which one of so many tests can be named."""
  return math.ceil(math.log2(2 * max(tests, 1) / LEVEL))


@functools.cache
def _all_swaps(clips: int) -> list[np.ndarray]:
  index = np.arange(2**clips)
  bits = index[:, None] >> np.arange(clips) & 1
  return [bits.astype(np.float64)]


def _drawn(clips: int, seed: int):
  """Draws swaps, in parts that bound the memory."""
  rng = np.random.default_rng(seed)
  size = max(1, min(_DRAWS, _VALUES // clips))
  for start in range(0, _DRAWS, size):
    count = min(size, _DRAWS - start)
    yield rng.integers(0, 2, (count, clips), np.uint8).astype(np.float64)


def holm(p: Sequence[float]) -> np.ndarray:
  """Returns p values corrected for their number; NaN is not counted."""
  p = np.asarray(p, np.float64)
  adjusted = np.full(len(p), np.nan)
  order = np.argsort(p, kind="stable")[: int(np.isfinite(p).sum())]
  factors = np.arange(len(order), 0, -1)
  adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1)
  return adjusted
