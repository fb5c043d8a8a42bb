"""How scores change over training, where several checkpoints of a run are judged."""

from collections.abc import Sequence
from typing import Any

import markupsafe

from v2a_jax.evaluation.report import differences, figures
from v2a_jax.evaluation.report.columns import Column, quality
from v2a_jax.evaluation.schema import GENERATED, is_finite

FEWEST = 3  # checkpoints of a run


def plots(
  runs: Sequence[dict], columns: Sequence[Column], *, colours: int
) -> list[dict[str, Any]]:
  """Draws the metrics of quality over training steps: labels and figures."""
  by_path: dict[str, list[dict]] = {}
  for run in runs:
    if is_finite(run["checkpoint"].get("step")):
      path = run["checkpoint"].get("path", "")
      by_path.setdefault(path, []).append(run)
  trained = {p: of for p, of in by_path.items() if len(of) >= FEWEST}
  found = []
  for column in quality(columns) if trained else ():
    curves = [
      figures.Curve.of(path, i % colours, points)
      for i, (path, of) in enumerate(trained.items())
      if len(points := _points(of, column)) >= FEWEST
    ]
    if curves:
      svg = markupsafe.Markup(figures.curves_svg(column.label, curves))
      found.append({"column": column, "svg": svg})
  return found


def _points(runs, column: Column) -> list[tuple[float, float]]:
  """Returns (step, value) of each run in which the metric is defined."""
  found = []
  for run in runs:
    value = differences.entry_of(run, GENERATED, column).get("value")
    if is_finite(value):
      found.append((run["checkpoint"]["step"], value))
  return found
