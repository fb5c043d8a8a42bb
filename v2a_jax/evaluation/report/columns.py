"""The report's columns: metrics as results.json describes them."""

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any

import numpy as np

_DECIMALS = 3  # where no interval says better


@dataclasses.dataclass(frozen=True)
class Column:
  """A metric as a column of the report, as results.json describes it.

  `ratio` has the factors of counts in numerator and denominator, for a ratio of
  sums over clips. `bounds` are the least and largest value that there can be.
  `decimals` are the digits after the point, fit for the width
  of the intervals.
  """

  id: str
  label: str
  unit: str
  higher_is_better: bool | None
  about: str = ""
  judges_timing: bool = False
  role: str = "quality"
  ratio: tuple[tuple[tuple[str, float], ...], ...] = ()
  bounds: tuple[float, float] = (-math.inf, math.inf)
  decimals: int = _DECIMALS

  @property
  def arrow(self) -> str:
    """Arrow that points to better values, or ""."""
    arrows = {True: "\N{UPWARDS ARROW}", False: "\N{DOWNWARDS ARROW}"}
    return arrows.get(self.higher_is_better, "")

  @property
  def direction(self) -> str:
    """Direction in words, or ""."""
    words = {True: "higher is better", False: "lower is better"}
    return words.get(self.higher_is_better, "")

  def format(self, value: float | None) -> str:
    """Formats a value; `n/a` where it is undefined."""
    if value is None or not math.isfinite(value):
      return "n/a"
    text = f"{value:.{self.decimals}f}"
    return text.replace("-", "\N{MINUS SIGN}")

  def format_interval(self, low: float | None, high: float | None) -> str:
    """Formats an interval in brackets; "" where an end is missing."""
    if low is None or high is None:
      return ""
    return f"[{self.format(low)}, {self.format(high)}]"


def models_of(run: dict) -> list[dict]:
  """Returns the runs of an arm; a run that stands alone is its only one."""
  return run.get("models") or [run]


def columns_of(runs: Sequence[dict]) -> list[Column]:
  """Returns the runs' metrics, in order of appearance."""
  described = {}
  for run in runs:
    for id_, entry in run["metrics"].items():
      described.setdefault(id_, entry)
  return [
    Column(
      id=id_,
      label=entry.get("label", id_),
      unit=entry.get("unit", ""),
      higher_is_better=entry["higher_is_better"],
      about=entry.get("about", ""),
      judges_timing=entry.get("judges_timing", False),
      role=entry.get("role", "quality"),
      ratio=tuple(tuple(part.items()) for part in entry.get("ratio", ())),
      bounds=_bounds(entry),
      decimals=_decimals(id_, runs),
    )
    for id_, entry in described.items()
  ]


def _bounds(entry: Mapping[str, Any]) -> tuple[float, float]:
  low, high = entry.get("bounds") or (None, None)
  return (
    -math.inf if low is None else low,
    math.inf if high is None else high,
  )


def compared(columns: Sequence[Column]) -> list[Column]:
  """Returns the metrics in which runs are compared."""
  return [
    c for c in columns if c.higher_is_better is not None and c.role != "shown"
  ]


def quality(columns: Sequence[Column]) -> list[Column]:
  """Returns the metrics in which runs are compared with anchors."""
  return [c for c in compared(columns) if c.role == "quality"]


def _decimals(id_: str, runs: Sequence[dict]) -> int:
  """Returns how many decimals show two digits of the typical half width."""
  widths = []
  for run in runs:
    for row in run["rows"]:
      entry = row["metrics"].get(id_) or {}
      low, high = entry.get("low"), entry.get("high")
      if low is not None and high is not None and high > low:
        widths.append((high - low) / 2)
  if not widths:
    return _DECIMALS
  digits = 1 - math.floor(math.log10(np.median(widths)))
  return int(np.clip(digits, 0, _DECIMALS))
