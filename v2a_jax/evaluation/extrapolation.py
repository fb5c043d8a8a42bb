"""Biased statistics of sets of clips, extrapolated to endless sets.

A Fréchet distance F(n) of n clips is above that of endless many by nearly c / n.
So with halves of the sets, drawn without replacement,

  F(oo) = 2 F(n) - mean F(n / 2)

which is the line through two sizes where Chong and Forsyth, "Effectively
unbiased FID and inception score", https://arxiv.org/abs/1911.07023, fit one to
fifteen. (Resampling with replacement, as the bootstrap does, leaves out clips
of which others are copies, and the bias is then another.)

The interval comes from the influence of each clip, the derivative of the
statistic when the clip weighs more: with p_i that of the extrapolation, twice
the influence in the whole set less that in halves,

  error^2 = sum of var(p) / n over the sets,  F(oo) ± t error

Efron, "Nonparametric estimates of standard error", 1981 (the infinitesimal
jackknife). F(oo) + p_i is the clip's part in the value: two rows of the same
clips are compared by these parts as by scores of clips.
"""

from collections.abc import Callable, Sequence
import dataclasses

import numpy as np
from scipy import stats

from v2a_jax.evaluation import intervals

SPLITS = 4  # into two halves each
FEWEST = 4  # clips of a set
# Of fewer, the bias that is left is as large as the error, so that an interval
# would hold the truth too seldom (docs/evaluation.md); none is given. The error
# of a distance to the clips' own true sounds is smaller, so that more are needed.
FEWEST_FOR_INTERVAL = 48
FEWEST_OF_OWN = 128

# From the indices of the clips of each set to the value, and the influence of
# each of these clips, whose mean is 0.
Statistic = Callable[..., tuple[float, Sequence[np.ndarray]]]


@dataclasses.dataclass(frozen=True)
class Extrapolated:
  """A statistic of endless sets.

  Attributes:
    value: the extrapolated statistic; NaN for fewer than four clips in a set.
    plug_in: the statistic of the sets as they are.
    influence: of the clips of each set on `value`, float64 [clips] each.
  """

  value: float
  plug_in: float
  influence: tuple[np.ndarray, ...]

  def estimate(
    self, *, fewest: int = FEWEST_FOR_INTERVAL, **extras
  ) -> intervals.Estimate:
    """Returns the estimate, of which the first set has the clips.

    Its interval is undefined for fewer than `fewest` clips in a set.
    """
    sizes = [len(part) for part in self.influence]
    extras = {"plug_in": self.plug_in} | extras
    variance = sum(part.var(ddof=1) / len(part) for part in self.influence)
    t = stats.t.ppf((1 + intervals.LEVEL) / 2, min(sizes) - 1)
    half = float(t * np.sqrt(variance))
    low, high = self.value - half, self.value + half
    if min(sizes) < fewest:
      low = high = np.nan
    parts = self.value + self.influence[0]
    return intervals.Estimate(
      self.value, low, high, sizes[0], extras, parts=parts
    )


def extrapolate(
  statistic: Statistic, *sizes: int, seed: int = 0
) -> Extrapolated:
  """Extrapolates a statistic of sets of clips, of `sizes`, to endless sets."""
  plug_in, whole = statistic(*(np.arange(size) for size in sizes))
  if min(sizes) < FEWEST:
    unknown = tuple(np.full(size, np.nan) for size in sizes)
    return Extrapolated(np.nan, plug_in, unknown)
  rng = np.random.default_rng(seed)
  totals = [np.zeros(size) for size in sizes]
  values = []
  for _ in range(SPLITS):
    orders = [rng.permutation(size) for size in sizes]
    for half in zip(*(np.array_split(order, 2) for order in orders)):
      value, influences = statistic(*half)
      values.append(value)
      for total, clips, influence in zip(totals, half, influences):
        total[clips] += influence
  influence = tuple(
    2 * all_ - total / SPLITS for all_, total in zip(whole, totals)
  )
  return Extrapolated(2 * plug_in - float(np.mean(values)), plug_in, influence)
