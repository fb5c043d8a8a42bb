"""Differences of two rows in one metric, with their interval and their p.

Rows that share clips are compared clip by clip, as the table computes them: a
ratio of counts from the counts of clips, a mean from their scores, a distance
between sets from the part that each clip has in it (extrapolation.py). The p is
that of the permutation test (significance.py). Rows of other sets, and metrics
of sets without parts, are compared through the two intervals, by the method of
variance estimates recovery (Zou and Donner 2008,
https://doi.org/10.1002/sim.3095),

  low = d - sqrt((a - a_low)^2 + (b_high - b)^2),  d = a - b

which takes the rows for independent and so gives rather wide intervals.
"""

from collections.abc import Sequence
import dataclasses
import math

import numpy as np
from scipy import stats

from v2a_jax.evaluation import intervals, significance
from v2a_jax.evaluation.report import comparable
from v2a_jax.evaluation.report.columns import Column
from v2a_jax.evaluation.schema import is_finite

Row = tuple[dict, str]  # a run and the name of its row


@dataclasses.dataclass(frozen=True)
class Difference:
  """`first - second` in one metric, with a 95 % interval.

  `pairs` is the number of shared clips; 0 where intervals were combined. `p` is
  that of equal rows; `corrected` adjusts it for the number of comparisons.
  """

  column: Column
  value: float
  low: float
  high: float
  pairs: int
  p: float

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
  pairs = _shared(column, first, second)
  if len(pairs) >= 2:
    return _paired(column, pairs)
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


def corrected(gaps: Sequence[Difference]) -> list[Difference]:
  """Corrects the p of comparisons for their number, by Holm."""
  adjusted = significance.holm([gap.p for gap in gaps])
  return [
    dataclasses.replace(gap, p=float(p)) for gap, p in zip(gaps, adjusted)
  ]


def _shared(column, first: Row, second: Row) -> np.ndarray:
  """Returns numerator and denominator of both rows, [shared clips, 4]."""
  (run, row), (other, other_row) = first, second
  if set_of(run) != set_of(other):
    return np.zeros((0, 4))
  others = {clip["id"]: clip for clip in other["clips"]}
  pairs = [
    (terms(clip, row, column), terms(others[clip["id"]], other_row, column))
    for clip in run["clips"]
    if clip["id"] in others
  ]
  known = [(*a, *b) for a, b in pairs if a is not None and b is not None]
  return np.array(known, float).reshape(-1, 4)


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


def _paired(column: Column, pairs: np.ndarray) -> Difference | None:
  estimate = intervals.ratio_difference(*pairs.T)
  if not is_finite(estimate.value):
    return None
  p = significance.swap_test(pairs[:, :2], pairs[:, 2:])
  return Difference(
    column, estimate.value, estimate.low, estimate.high, len(pairs), p
  )


def in_words(gaps: Sequence[Difference], sign: int) -> tuple[str, ...]:
  """Returns the differences of a sign, 1 for better, in words."""
  return tuple(gap.words() for gap in gaps if gap.sign == sign)
