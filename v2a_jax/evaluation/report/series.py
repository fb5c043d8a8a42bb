"""Scores over what runs of one model differ in: training steps, or a setting.

Checkpoints of one workdir make a series over their steps. Runs of the same
weights that differ in one number of their sampler, such as `num_steps` or
`guidance.video`, make one over that.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import markupsafe

from v2a_jax.evaluation.report import differences, figures
from v2a_jax.evaluation.report.columns import Column, quality
from v2a_jax.evaluation.schema import GENERATED, is_finite

FEWEST = 3  # runs of a series


@dataclasses.dataclass(frozen=True)
class Series:
  """Runs of one model in the order of what they differ in.

  Attributes:
    model: path of the model.
    over: what they differ in, such as `step`.
    runs: (value, run), ascending.
  """

  model: str
  over: str
  runs: Sequence[tuple[float, dict]]


def plots(
  runs: Sequence[dict], columns: Sequence[Column], *, colours: int
) -> list[dict[str, Any]]:
  """Draws metrics of quality over what the runs of a series differ in."""
  found = []
  series = _series(runs)
  for over in dict.fromkeys(of.over for of in series):
    own = [of for of in series if of.over == over]
    for column in quality(columns):
      curves = [
        figures.Curve.of(of.model, i % colours, points)
        for i, of in enumerate(own)
        if len(points := _points(of, column)) >= FEWEST
      ]
      if curves:
        svg = markupsafe.Markup(figures.curves_svg(column.label, curves))
        found.append({"column": column, "over": over, "svg": svg})
  return found


def _series(runs: Sequence[dict]) -> list[Series]:
  by_path: dict[str, list[dict]] = {}
  for run in runs:
    if run["config"]:  # Sounds of other systems have none.
      path = run["checkpoint"].get("path", "")
      by_path.setdefault(path, []).append(run)
  found = []
  for path, own in by_path.items():
    settings = [_numbers(run) for run in own]
    differing = {
      name
      for of in settings
      for name, value in of.items()
      if any(other.get(name) != value for other in settings)
    }
    if len(differing) == 1:
      (over,) = differing
      placed = [(of[over], i) for i, of in enumerate(settings) if over in of]
      found.append(Series(path, over, [(x, own[i]) for x, i in sorted(placed)]))
  return [of for of in found if len(of.runs) >= FEWEST]


def _numbers(run: dict) -> dict[str, float]:
  """Returns the training step and the numbers of the sampler, by name."""
  found = {"step": run["checkpoint"].get("step")}

  def add(settings: Mapping[str, Any], prefix: str = "") -> None:
    for name, value in settings.items():
      if isinstance(value, Mapping):
        add(value, f"{prefix}{name}.")
      else:
        found[prefix + name] = value

  add(run["sampler"])
  return {k: v for k, v in found.items() if is_finite(v)}


def _points(series: Series, column: Column) -> list[tuple[float, float]]:
  """Returns (place, score) of each run in which the metric is defined."""
  entries = (
    (x, differences.entry_of(run, GENERATED, column).get("value"))
    for x, run in series.runs
  )
  return [(x, value) for x, value in entries if is_finite(value)]
