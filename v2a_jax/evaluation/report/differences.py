"""Differences of two rows in one metric, with their interval and their p.

Rows that share clips are compared clip by clip, as the table computes them: a
ratio of counts from the counts of clips, a mean from their scores, a distance
between sets from the part that each clip has in it (extrapolation.py). The p is
that of the permutation test (significance.py); of arms with several training
seeds, that of training_seeds.py. Rows of other sets, and metrics
of sets without parts, are compared through the two intervals, by the method of
variance estimates recovery (Zou and Donner 2008,
https://doi.org/10.1002/sim.3095),

  low = d - sqrt((a - a_low)^2 + (b_high - b)^2),  d = a - b

which takes the rows for independent and so gives rather wide intervals.
"""

from collections.abc import Sequence
import dataclasses
import itertools
import math

import numpy as np
from scipy import stats

from v2a_jax.evaluation import intervals, significance, training_seeds
from v2a_jax.evaluation.report import comparable
from v2a_jax.evaluation.report.columns import Column, models_of
from v2a_jax.evaluation.schema import is_finite
from v2a_jax.evaluation.training_seeds import Arm

Row = tuple[dict, str]  # a run and the name of its row


@dataclasses.dataclass(frozen=True)
class Difference:
  """`first - second` in one metric, with a 95 % interval.

  `pairs` is the number of shared clips; 0 where intervals were combined. `p` is
  that of equal rows; `corrected` adjusts it for the number of comparisons.
  `seeds` are the numbers of training seeds, where the p is over these too.
  """

  column: Column
  value: float
  low: float
  high: float
  pairs: int
  p: float
  seeds: tuple[int, ...] = ()

  @property
  def sign(self) -> int:
    """1: first is better, -1: second is better, 0: cannot be told apart."""
    if not self.p <= significance.LEVEL or self.value == 0:
      return 0
    return 1 if (self.value > 0) == self.column.higher_is_better else -1

  def words(self) -> str:
    """Describes the difference: metric, size, interval, method."""
    value, ends = self.value, (self.low, self.high)
    if self.sign and value < 0:
      value, ends = -value, (-self.high, -self.low)
    unit = f" {self.column.unit}" if self.column.unit else ""
    method = f"paired, {self.pairs} clips" if self.pairs else "from intervals"
    if self.seeds:
      seeds = " and ".join(map(str, dict.fromkeys(self.seeds)))
      method += f", {seeds} seeds"
    return (
      f"{self.column.label} by {self.column.format(value)}{unit} "
      f"{self.column.format_interval(*ends)} ({method}, p {_rounded(self.p)})"
    )


def _rounded(p: float) -> str:
  return f"= {p:.2g}" if p >= 0.001 else "< 0.001"


def row_of(run: dict, name: str) -> dict | None:
  """Returns a run's row by name, or None."""
  return next((row for row in run["rows"] if row["name"] == name), None)


def entry_of(run: dict, name: str, column: Column) -> dict:
  """Returns a row's entry for a metric; {} where there is none."""
  row = row_of(run, name)
  return (row and row["metrics"].get(column.id)) or {}


def set_of(run: dict) -> tuple:
  """Returns what runs on the same set have in common."""
  return run["set"].get("manifest_sha256"), run["set"].get("split")


def difference(column: Column, first: Row, second: Row) -> Difference | None:
  """Compares two rows, each a run and the row's name, in one metric.

  None where a row or its interval is missing, or where runs may not be compared.
  """
  if comparable.reasons(column, first[0], second[0]):
    return None
  compared = _arms(column, first, second)
  if compared and compared[0].terms.shape[1] >= 2:
    return _paired(column, compared)
  a, b = (entry_of(*row, column) for row in (first, second))
  parts = ("value", "low", "high")
  if any(entry.get(part) is None for entry in (a, b) for part in parts):
    return None
  value = a["value"] - b["value"]
  below = math.hypot(a["value"] - a["low"], b["high"] - b["value"])
  above = math.hypot(a["high"] - a["value"], b["value"] - b["low"])
  towards_zero = below if value > 0 else above
  z = abs(value) / towards_zero if towards_zero else math.inf * abs(value)
  p = 2 * float(stats.norm.sf(z * stats.norm.ppf(0.975))) if value else 1.0
  return Difference(column, value, value - below, value + above, 0, p)


def differences(
  columns: Sequence[Column], first: Row, second: Row
) -> list[Difference]:
  """Compares two rows in several metrics, as far as they can be."""
  gaps = (difference(column, first, second) for column in columns)
  return [gap for gap in gaps if gap is not None]


def of_pairs(
  columns: Sequence[Column], pairs: Sequence[tuple[Row, Row]]
) -> list[tuple[Difference, ...]]:
  """Compares pairs of rows, all of them together corrected by Holm."""
  found = [differences(columns, *pair) for pair in pairs]
  gaps = iter(corrected([gap for own in found for gap in own]))
  return [tuple(itertools.islice(gaps, len(own))) for own in found]


def corrected(gaps: Sequence[Difference]) -> list[Difference]:
  """Corrects the p of comparisons for their number, by Holm."""
  adjusted = significance.holm([gap.p for gap in gaps])
  return [
    dataclasses.replace(gap, p=float(p)) for gap, p in zip(gaps, adjusted)
  ]


def _arms(column: Column, first: Row, second: Row) -> list[Arm]:
  """Returns what is compared, on the clips that all models have.

  Two settings of sampling of the same models are one arm of pairs. Two rows of
  one arm are compared as its models are, which are then pooled.
  """
  if set_of(first[0]) != set_of(second[0]):
    return []
  rows = [[(run, row) for run in models_of(of)] for of, row in (first, second)]
  by_clip = [
    {c["id"]: t for c in run["clips"] if (t := terms(c, row, column))}
    for run, row in (*rows[0], *rows[1])
  ]
  ids = [id_ for id_ in by_clip[0] if all(id_ in of for of in by_clip)]
  found = np.array([[of[id_] for id_ in ids] for of in by_clip], float)
  found = found.reshape(len(by_clip), len(ids), 1, 2)
  one, other = found[: len(rows[0])], found[len(rows[0]) :]
  if first[0] is second[0]:
    pooled = np.concatenate([one, other], 2).mean(0, keepdims=True)
    return [Arm(pooled, (1, -1))]
  if _same_models(first[0], second[0]):
    return [Arm(np.concatenate([one, other], 2), (1, -1))]
  return [Arm(one), Arm(other, (-1,))]


def _same_models(first: dict, second: dict) -> bool:
  """Says whether arms are of the same trainings, seed by seed."""
  paths, others = (
    [run["checkpoint"].get("path") for run in models_of(arm)]
    for arm in (first, second)
  )
  return paths == others and len({*paths}) == len(paths) > 1


def terms(clip: dict, row: str, column: Column) -> tuple | None:
  """Returns the clip's part of numerator and denominator, or None."""
  counts = clip.get("counts", {}).get(row, {}).get(column.id)
  if column.ratio and counts:
    return tuple(
      sum(factor * counts[name] for name, factor in part)
      for part in column.ratio
    )
  for kind in ("scores", "parts"):
    value = clip.get(kind, {}).get(row, {}).get(column.id)
    if is_finite(value):
      return value, 1.0
  return None


def _paired(column: Column, arms: Sequence[Arm]) -> Difference | None:
  seeds = tuple(len(arm.terms) for arm in arms)
  if max(seeds) > 1:
    estimate, p = training_seeds.estimate(arms)
  else:
    seeds = ()
    pairs = np.concatenate([arm.terms[0] for arm in arms], 1)
    estimate = intervals.weighted_ratios(pairs, (1, -1))
    p = significance.swap_test(pairs[:, 0], pairs[:, 1])
  if not is_finite(estimate.value):
    return None
  ends = estimate.value, estimate.low, estimate.high
  return Difference(column, *ends, estimate.n, p, seeds)


def too_few(gaps: Sequence[Difference]) -> str:
  """Says that no difference of a family could be named, and how many clips could.

  "" where one could: with clips enough, or by a test that is not over them alone.
  """
  tests = [gap for gap in gaps if is_finite(gap.p)]
  if not tests or any(gap.seeds or not gap.pairs for gap in tests):
    return ""
  clips = max(gap.pairs for gap in tests)
  needed = significance.clips_needed(len(tests))
  if clips >= needed:
    return ""
  compared = f"{len(tests)} comparisons" if len(tests) > 1 else "one comparison"
  return f"{clips} clips are too few: with {compared} {needed} are needed"


def in_words(gaps: Sequence[Difference], sign: int) -> tuple[str, ...]:
  """Returns the differences of a sign, 1 for better, in words."""
  return tuple(gap.words() for gap in gaps if gap.sign == sign)
