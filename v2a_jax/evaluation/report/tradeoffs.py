"""Quality over cost, with the Pareto front: runs that no other run equals or
beats in quality at less cost.

Costs are what results.json has: the time that a clip takes, the number of
parameters, the time of training. Times share a plot only where they were taken
on one kind of machine at one precision, and scores only where they may be
compared. The front joins values as they are: whether two of them differ, the
verdict says.
"""

from collections.abc import Iterator, Sequence
import json
from typing import Any

import markupsafe
import numpy as np

from v2a_jax.evaluation.report import differences, figures
from v2a_jax.evaluation.report.columns import Column, quality
from v2a_jax.evaluation.schema import GENERATED, is_finite

FRONT = "front"  # in place of a run's colour


def plots(
  runs: Sequence[dict], columns: Sequence[Column], *, colours: int
) -> list[dict[str, Any]]:
  """Draws metrics of quality over each cost in which runs differ.

  Each plot has its `column`, `over`, `svg` and `legend`, (colour, name).
  """
  costs = [costs_of(run) for run in runs]
  found = []
  for over in dict.fromkeys(name for of in costs for name in of):
    for column in quality(columns):
      for places in _comparable(runs, column):
        points = [
          (costs[i][over], entry, i)
          for i in places
          if over in costs[i]
          and is_finite((entry := _entry(runs[i], column)).get("value"))
        ]
        if len({cost for cost, *_ in points}) > 1:
          found.append(_plot(runs, column, over, points, colours))
  return found


def costs_of(run: dict) -> dict[str, float]:
  """Returns what a run costs, by the name of the cost with its unit."""
  cost, found = run.get("cost") or {}, {}
  if is_finite(cost.get("seconds_per_clip")):
    number = f"{cost['devices']} × " if cost["devices"] > 1 else ""
    found[
      f"seconds to make a clip of {cost['clip_seconds']:g} s,"
      f" {number}{cost['device']}, {cost['precision']}"
    ] = cost["seconds_per_clip"]
  if is_finite(cost.get("parameters")):
    found["parameters"] = cost["parameters"]
  if is_finite(seconds := run["checkpoint"].get("train_seconds")):
    found["hours of training"] = seconds / 3600
  return found


def front(
  points: Sequence[tuple[float, float]], *, higher_is_better: bool
) -> list[int]:
  """Returns indices of the Pareto front of (cost, value), by ascending cost."""
  sign = 1 if higher_is_better else -1
  order = sorted(
    range(len(points)), key=lambda i: (points[i][0], -sign * points[i][1])
  )
  kept, best = [], -np.inf
  for i in order:
    if (value := sign * points[i][1]) > best:
      kept.append(i)
      best = value
  return kept


def _entry(run: dict, column: Column) -> dict:
  return differences.entry_of(run, GENERATED, column)


def _comparable(runs: Sequence[dict], column: Column) -> Iterator[list[int]]:
  """Yields the places of runs whose values rest on the same."""
  places: dict[str, list[int]] = {}
  for i, run in enumerate(runs):
    about = run["metrics"].get(column.id, {})
    key = json.dumps([run["identity"], about.get("identity")], sort_keys=True)
    places.setdefault(key, []).append(i)
  yield from places.values()


def _plot(runs, column: Column, over: str, points, colours: int):
  number = lambda value: np.nan if value is None else float(value)
  curves = []
  for cost, entry, i in points:
    value, low, high = (
      np.array([number(entry.get(end))]) for end in ("value", "low", "high")
    )
    curves.append(
      figures.Curve(
        runs[i]["name"], i % colours, np.array([cost]), value, low, high
      )
    )
  pairs = [(cost, entry["value"]) for cost, entry, _ in points]
  best = front(pairs, higher_is_better=column.higher_is_better)
  if len(best) > 1:
    x, y = np.array([pairs[i] for i in best], float).T
    curves.insert(0, figures.Curve("not beaten in both", FRONT, x, y))
  svg = figures.curves_svg(f"{column.label} over {over}", curves)
  return {
    "column": column,
    "over": over,
    "svg": markupsafe.Markup(svg),
    "legend": [(curve.colour, curve.name) for curve in curves],
  }
