"""Curves of what training logged."""

from collections.abc import Mapping, Sequence
from typing import Any

import markupsafe

from v2a_jax.evaluation.report import figures
from v2a_jax.evaluation.schema import is_finite

_MOST = 12  # plots
# Names and prefixes of curves: the losses, their parts, then the machine.
_ORDER = ("train/loss", "eval/loss", "eval_mean/loss", "eval_mean/")
_ORDER += ("train/", "eval/", "perf/", "goodput/")


def plots(
  runs: Sequence[dict], colours: Mapping[str, int]
) -> list[dict[str, Any]]:
  """Draws what training logged, one plot per name with all runs."""
  lines: dict[str, list[figures.Curve]] = {}
  for run in runs:
    points: dict[str, list[tuple[float, float]]] = {}
    for entry in run["curve"]:
      if not is_finite(entry.get("step")):
        continue
      for name, value in entry.items():
        if is_finite(value) and "/" in name:
          points.setdefault(name, []).append((entry["step"], value))
    for name, pairs in points.items():
      curve = figures.Curve.of(run["name"], colours[run["arm"]], pairs)
      lines.setdefault(name, []).append(curve)

  def rank(name):
    for key in (name, name.partition("/")[0] + "/"):
      if key in _ORDER:
        return _ORDER.index(key), name
    return len(_ORDER), name

  return [
    {
      "name": name,
      "svg": markupsafe.Markup(
        figures.curves_svg(f"{name} over training steps", lines[name])
      ),
    }
    for name in sorted(lines, key=rank)[:_MOST]
  ]
