"""Scores over what runs of one model differ in: training steps, or a setting.

Checkpoints of one workdir make a series over their steps. Runs of the same
weights that differ in one number of their sampler, such as `num_steps` or
`guidance.video`, make one over that, and where they differ in several, one for
each over the runs that agree in the others. Arms of several training seeds are
series of their means.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
from typing import Any

import markupsafe
import numpy as np

from v2a_jax.evaluation.report import differences, figures
from v2a_jax.evaluation.report.columns import Column, quality
from v2a_jax.evaluation.schema import GENERATED, is_finite

FEWEST = 3  # runs of a series


@dataclasses.dataclass(frozen=True)
class Series:
  """Runs of one model in the order of what they differ in.

  Attributes:
    name: the model, and the other settings in which its runs differ.
    over: what they differ in, such as `step`.
    runs: (value, run), ascending.
  """

  name: str
  over: str
  runs: Sequence[tuple[float, dict]]


def plots(
  runs: Sequence[dict], columns: Sequence[Column], *, colours: int
) -> list[dict[str, Any]]:
  """Draws metrics of quality over what the runs of a series differ in.

  Each plot has its `column`, `over`, `svg` and `legend`, (colour, name).
  """
  found = []
  series = _series(runs)
  for over in dict.fromkeys(of.over for of in series):
    own = [of for of in series if of.over == over]
    for column in quality(columns):
      curves = [
        _curve(of, i % colours, points)
        for i, of in enumerate(own)
        if len(points := _points(of, column)) >= FEWEST
      ]
      if curves:
        title = f"{column.label} over {over}"
        svg = markupsafe.Markup(figures.curves_svg(title, curves))
        legend = [(curve.colour, curve.name) for curve in curves]
        plot = {"column": column, "over": over, "svg": svg, "legend": legend}
        found.append(plot)
  return found


def _series(runs: Sequence[dict]) -> list[Series]:
  by_path: dict[str, list[dict]] = {}
  for run in runs:
    if run["config"]:  # Sounds of other systems have none.
      path = run["checkpoint"].get("path", "")
      by_path.setdefault(path, []).append(run)
  names = _names(by_path)
  return [
    of
    for path, own in by_path.items()
    for of in _of_model(names[path], own)
    if len(of.runs) >= FEWEST
  ]


def _names(by_path: Mapping[str, Sequence[dict]]) -> dict[str, str]:
  """Names models as their configs do, and by their folders where these agree."""
  given = {
    path: str(own[0]["config"].get("name") or path)
    for path, own in by_path.items()
  }
  return {
    path: name if list(given.values()).count(name) == 1 else path
    for path, name in given.items()
  }


def _of_model(name: str, runs: Sequence[dict]) -> Iterator[Series]:
  """Yields a series for each setting and each choice of the others."""
  settings = [_numbers(run) for run in runs]
  differing = {
    key: None
    for of in settings
    for key, value in of.items()
    if any(other.get(key) != value for other in settings)
  }
  for over in differing:
    by_rest: dict[tuple, list[tuple[float, int]]] = {}
    for i, of in enumerate(settings):
      if over in of:
        rest = tuple((k, of.get(k)) for k in differing if k != over)
        by_rest.setdefault(rest, []).append((of[over], i))
    for rest, placed in by_rest.items():
      others = "".join(
        f", {key} {value:g}" for key, value in rest if value is not None
      )
      ordered = [(x, runs[i]) for x, i in sorted(placed)]
      if len({x for x, _ in ordered}) == len(ordered):
        yield Series(name + others, over, ordered)


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


def _points(series: Series, column: Column) -> list[tuple[float, dict]]:
  """Returns (place, entry) of each run in which the metric is defined."""
  entries = (
    (x, differences.entry_of(run, GENERATED, column)) for x, run in series.runs
  )
  return [(x, of) for x, of in entries if is_finite(of.get("value"))]


def _curve(series: Series, colour: int, points) -> figures.Curve:
  y, low, high = (
    np.array([of.get(end) for _, of in points], float)
    for end in ("value", "low", "high")
  )
  x = np.array([x for x, _ in points], float)
  return figures.Curve(series.name, colour, x, y, low, high)
