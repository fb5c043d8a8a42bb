"""Intervals and tests over training seeds as well as clips.

An arm that is trained with S seeds has S models, all judged on the same n clips.
Its score is the mean of their scores F_s, and the interval holds the score that
it would have with other seeds on other clips. Clips and seeds are crossed, and
each has its part:

* Of clips with these seeds: the bootstrap-t of intervals.py, which resamples
  clips for all models together. It also holds what is neither of the clip nor of
  the seed, i: the mean square of the interaction, over n S.
* Of seeds on these clips: b, the variance of the F_s over S, less i, which is in
  it too, but not under 0. Its half width is t(d) sqrt(b - i). For one arm d is
  S - 1, so t is 4.3 with 3 seeds; between arms it is what Welch gives.

The two half widths are added as squares, each side by its own (Zou and Donner,
"Construction of confidence intervals about functions of parameters", 2008,
https://doi.org/10.1002/sim.3095). Resampling 3 seeds instead would give two
thirds of their variance, and normal quantiles for it: too narrow. How often the
truth is held is in docs/evaluation.md.

The p of a comparison is that of their common error, the root of c^2 + b - i,
with Satterthwaite's degrees of freedom from n - 1 for c and S - 1 for b, i not
taken off: many comparisons are tested at small levels, where an interval of a few
seeds, turned into a p, names too many differences.

Welch, "The generalization of Student's problem when several different
population variances are involved", 1947; Satterthwaite, "An approximate
distribution of estimates of variance components", 1946; Owen, "The pigeonhole
bootstrap", 2007, on crossed factors; Bouthillier et al., "Accounting for variance
in machine learning benchmarks", 2021, https://arxiv.org/abs/2103.03098, on why
seeds belong in a comparison.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np
from scipy import special, stats

from v2a_jax.evaluation import intervals, significance
from v2a_jax.evaluation.intervals import Estimate

_TAIL = (1 + intervals.LEVEL) / 2
_ROUNDING = 1e-9  # what sums of equal scores may differ by


@dataclasses.dataclass(frozen=True)
class Arm:
  """What the models of one arm have in a score or a comparison.

  Attributes:
    terms: parts of clips in ratios of sums, float [seeds, clips, ratios, 2],
      numerators and denominators; for a mean, value and 1.
    signs: factor of each ratio, [ratios].
  """

  terms: np.ndarray
  signs: Sequence[float] = (1,)

  @property
  def columns(self) -> np.ndarray:
    """The terms of all models, [clips, seeds x ratios, 2]."""
    return self.terms.swapaxes(0, 1).reshape(self.terms.shape[1], -1, 2)

  @property
  def weights(self) -> np.ndarray:
    """Factor of each ratio of `columns` in the mean of the models."""
    return np.tile(self.signs, len(self.terms)) / len(self.terms)

  @property
  def values(self) -> np.ndarray:
    """Value of each model, [seeds]."""
    sums = self.terms.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
      return (sums[..., 0] / sums[..., 1]) @ np.asarray(self.signs, float)

  @property
  def parts(self) -> np.ndarray:
    """What each clip adds to its model's value, [seeds, clips]; sums are 0."""
    sums = self.terms.sum(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
      ratios = sums[..., 0] / sums[..., 1]
      parts = (self.terms[..., 0] - ratios * self.terms[..., 1]) / sums[..., 1]
    return parts @ np.asarray(self.signs, float)


@dataclasses.dataclass(frozen=True)
class Between:
  """How far the models of an arm are apart.

  Attributes:
    seeds: number of models.
    variance: of their values; NaN for one.
    by_clips: the part of it that is chance of clips.
  """

  seeds: int
  variance: float = np.nan
  by_clips: float = 0.0


def between(values: np.ndarray, parts: np.ndarray | None = None) -> Between:
  """Measures how far values of models [seeds] are apart.

  Without `Arm.parts` nothing counts as chance of clips.
  """
  seeds = len(values)
  if seeds < 2:
    return Between(seeds)
  by_clips = 0.0
  if parts is not None:
    rest, n = parts - parts.mean(0), parts.shape[1]
    by_clips = float((rest**2).sum() / (seeds - 1) * n / max(n - 1, 1))
  return Between(seeds, float(values.var(ddof=1)), by_clips)


def estimate(
  arms: Sequence[Arm], *, seed: int = 0, draws: int = intervals.DRAWS
) -> tuple[Estimate, float]:
  """Estimates the sum of the arms' means, whose signs make it a difference.

  Args:
    arms: arms with the same clips in the same order, one of several seeds at
      least. One of a single seed is taken to vary as the others do.
    seed: random seed of the bootstrap.
    draws: number of resamples of the clips.

  Returns:
    The estimate, and the two-sided p of a sum of 0: 1 where there are fewer
    clips than can be tested.
  """
  columns = np.concatenate([arm.columns for arm in arms], 1)
  weights = np.concatenate([arm.weights for arm in arms])
  clips = intervals.weighted_ratios(columns, weights, seed=seed, draws=draws)
  wide, p = widened(clips, [between(arm.values, arm.parts) for arm in arms])
  return wide, p if clips.n >= significance.clips_needed() else 1.0


def mean(models: Sequence[Estimate], parts: np.ndarray | None) -> Estimate:
  """Estimates the mean of models from their own intervals over clips.

  Args:
    models: estimates of the models of an arm, by any statistic.
    parts: `Arm.parts`, by which clips' chance is less in the mean than in each
      model; None: it is taken to be the same.
  """
  values = np.array([model.value for model in models])
  ends = [(m.value - m.low, m.high - m.value) for m in models]
  variances = np.square(ends).mean(0)
  if parts is not None:
    own, common = parts.var(1).mean(), parts.mean(0).var()
    scale = stats.t.ppf(_TAIL, max(models[0].n - 1, 1)) ** 2 * parts.shape[1]
    if own:
      less = np.minimum(scale * own, variances)
      variances -= less * (1 - common / own)
  value = float(values.mean())
  below, above = np.sqrt(variances)
  n, extras = models[0].n, {"seeds": len(models)}
  clips = Estimate(value, value - below, value + above, n, extras)
  return widened(clips, [between(values, parts)])[0]


def widened(clips: Estimate, arms: Sequence[Between]) -> tuple[Estimate, float]:
  """Widens an interval over clips by what seeds add.

  Args:
    clips: a sum of means of arms, with its interval over clips.
    arms: how far the models of each arm are apart.

  Returns:
    The estimate, and the two-sided p of 0.
  """
  known = [arm for arm in arms if arm.seeds > 1]
  for_one = Between(
    min(arm.seeds for arm in known),
    float(np.mean([arm.variance for arm in known])),
    float(np.mean([arm.by_clips for arm in known])),
  )
  variance = total = spread = 0.0
  for arm in arms:
    own = arm if arm.seeds > 1 else for_one
    variance += max(own.variance - own.by_clips, 0.0) / arm.seeds
    total += own.variance / arm.seeds
    spread += (own.variance / arm.seeds) ** 2 / (own.seeds - 1)
  # Equal models have no variance, and any number of degrees of freedom.
  freedom = total**2 / spread if spread else 1.0
  width = float(stats.t.ppf(_TAIL, freedom) * np.sqrt(variance))
  below, above = clips.value - clips.low, clips.high - clips.value
  wide = dataclasses.replace(
    clips,
    low=float(clips.value - np.hypot(below, width)),
    high=float(clips.value + np.hypot(above, width)),
  )
  degrees = max(clips.n - 1, 1)
  towards_zero = below if clips.value > 0 else above
  of_clips = (towards_zero / stats.t.ppf(_TAIL, degrees)) ** 2
  error = np.sqrt(of_clips + variance)
  if abs(clips.value) < _ROUNDING:
    return wide, 1.0
  if not error > 0:  # NaN, or all scores are equal.
    return wide, float(0 * error)
  freedom = error**4 / (of_clips**2 / degrees + spread)
  return wide, 2 * float(special.stdtr(freedom, -abs(clips.value) / error))
