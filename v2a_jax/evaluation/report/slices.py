"""Scores of parts of the clips: by class, by what is heard, by whether it is in
sight, by duration and motion.

Speech is where there is a transcript, or where it is heard in the true sound;
music where that is heard; effects alone are where neither is. A clip that nothing
has listened to, for want of the weights, is in none of these. What is in sight is
known where events are, as in scenes.

Clips are halved at the median duration, and at the median number of motion
peaks a second, where these differ. Cells of a column are shaded by rank, the best
darkest. Distances between sets are left out: of the few clips of a slice they are
mostly bias. Intervals are not corrected for the number of slices.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np
from scipy import stats

from v2a_jax.evaluation import intervals, training_seeds
from v2a_jax.evaluation.report import arms, compare
from v2a_jax.evaluation.report.columns import Column, quality
from v2a_jax.evaluation.report.differences import models_of, terms
from v2a_jax.evaluation.schema import GENERATED

FEWEST = 4  # clips of a slice
_HEARD = ("with speech", "without speech", "with music", "effects alone")
_SIGHT = ("all in sight", "some out of sight", "nothing in sight")
# What halves the clips, and what the halves are called.
_HALVES = {
  "duration": ("up to {:.3g} s long", "over {:.3g} s long"),
  "motion_rate": (
    "up to {:.2g} motion peaks a second",
    "over {:.2g} motion peaks a second",
  ),
}


@dataclasses.dataclass(frozen=True)
class Cell:
  """A score of a slice.

  Attributes:
    text: its value.
    interval: its interval.
    value: the number; NaN where it is undefined.
    shade: rank among the slices of its column, 0 worst to 1 best.
  """

  text: str
  interval: str
  value: float
  shade: float = 0.0


@dataclasses.dataclass(frozen=True)
class Slice:
  """A part of a run's clips.

  Attributes:
    name: what the clips have in common.
    run: name of the run.
    colour: its index.
    n: number of clips.
    cells: one for each column.
  """

  name: str
  run: str
  colour: int
  n: int
  cells: tuple[Cell, ...]


def slices(
  runs: Sequence[dict], columns: Sequence[Column], *, colours: int
) -> tuple[list[Column], list[Slice]]:
  """Returns the columns that have slices, and the slices of all runs."""
  columns = [
    c for c in quality(columns) if compare.has_clips(c, runs, "scores")
  ]
  found, edges = [], _edges(runs)
  for name in _names(runs, edges) if columns else ():
    for i, run in enumerate(runs):
      clips = [c for c in run["clips"] if name in _slices_of(c, edges)]
      if len(clips) >= FEWEST:
        cells = tuple(_cell(column, run, clips) for column in columns)
        found.append(Slice(name, run["name"], i % colours, len(clips), cells))
  # One slice alone is the whole set again.
  if len({part.name for part in found}) < 2:
    return columns, []
  return columns, _shaded(columns, found)


def _edges(runs: Sequence[dict]) -> dict[str, float]:
  """Returns the medians at which clips are halved, where they differ."""
  clips = {clip["id"]: clip for run in runs for clip in run["clips"]}.values()
  edges = {}
  for key in _HALVES:
    known = [clip[key] for clip in clips if clip.get(key) is not None]
    if known and min(known) < max(known):
      median = float(np.median(known))
      below = [value for value in known if value <= median]
      edges[key] = max(below) if len(below) < len(known) else min(known)
  return edges


def _slices_of(
  clip: Mapping[str, Any], edges: Mapping[str, float]
) -> list[str]:
  names = [*filter(None, [clip.get("label")])]
  heard = clip.get("heard") or {}
  speech = True if clip.get("transcript") else heard.get("speech")
  music = heard.get("music")
  if speech is not None:
    names.append(_HEARD[0] if speech else _HEARD[1])
  if music:
    names.append(_HEARD[2])
  elif (speech, music) == (False, False):
    names.append(_HEARD[3])
  seen, unseen = clip.get("on_screen"), clip.get("off_screen")
  if seen or unseen:
    names.append(_SIGHT[0] if not unseen else _SIGHT[1] if seen else _SIGHT[2])
  for key, edge in edges.items():
    if (value := clip.get(key)) is not None:
      names.append(_HALVES[key][value > edge].format(edge))
  return names


def _names(runs, edges) -> list[str]:
  """Returns the names of slices: classes in order, sounds, sight, halves."""
  names = dict.fromkeys(
    name for run in runs for c in run["clips"] for name in _slices_of(c, edges)
  )
  last = [*_HEARD, *_SIGHT]
  last += [
    name.format(edge) for key, edge in edges.items() for name in _HALVES[key]
  ]
  return sorted(
    names,
    key=lambda name: (name in last, name in last and last.index(name), name),
  )


def _cell(column: Column, run: dict, clips) -> Cell:
  models, ids = models_of(run), [clip["id"] for clip in clips]
  if len(models) > 1:
    arm = arms.arm_of_terms(models, GENERATED, column, ids)
    estimate = arm and training_seeds.estimate([arm])[0]
  else:
    known = [terms(clip, GENERATED, column) for clip in clips]
    pairs = np.array([t for t in known if t is not None]).reshape(-1, 2)
    estimate = intervals.ratio(*pairs.T)
  if estimate is None:
    return Cell(column.format(None), "", np.nan)
  estimate = estimate.within(column.bounds)
  interval = column.format_interval(*map(_plain, (estimate.low, estimate.high)))
  return Cell(column.format(estimate.value), interval, estimate.value)


def _shaded(columns: Sequence[Column], found: list[Slice]) -> list[Slice]:
  """Gives cells their rank among those of their column."""
  rows = [list(part.cells) for part in found]
  for i, column in enumerate(columns):
    sign = 1 if column.higher_is_better else -1
    values = np.array([sign * row[i].value for row in rows], np.float64)
    known = np.isfinite(values)
    order = stats.rankdata(values[known]) - 1
    ranks = iter(order / max(known.sum() - 1, 1))
    for row, finite in zip(rows, known):
      shade = float(next(ranks)) if finite else 0.0
      row[i] = dataclasses.replace(row[i], shade=round(shade, 2))
  return [
    dataclasses.replace(part, cells=tuple(row))
    for part, row in zip(found, rows)
  ]


def _plain(value: float) -> float | None:
  return float(value) if np.isfinite(value) else None
