"""Scores of parts of the clips: by class, and with and without speech.

Distances between sets have no slices, as few clips say little of them. The
slices are for looking, so their intervals are not corrected for their number.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from v2a_jax.evaluation import intervals
from v2a_jax.evaluation.report import compare
from v2a_jax.evaluation.report.columns import Column, quality
from v2a_jax.evaluation.report.differences import terms
from v2a_jax.evaluation.schema import GENERATED

FEWEST = 4  # clips of a slice


@dataclasses.dataclass(frozen=True)
class Slice:
  """A part of a run's clips.

  Attributes:
    name: what the clips have in common.
    run: name of the run.
    colour: its index.
    n: number of clips.
    cells: value and interval of each column, as text.
  """

  name: str
  run: str
  colour: int
  n: int
  cells: tuple[tuple[str, str], ...]


def slices(
  runs: Sequence[dict], columns: Sequence[Column], *, colours: int
) -> tuple[list[Column], list[Slice]]:
  """Returns the columns that have slices, and the slices of all runs."""
  columns = [
    c for c in quality(columns) if compare.has_clips(c, runs, "scores")
  ]
  found = []
  for name in _names(runs) if columns else ():
    for i, run in enumerate(runs):
      clips = [clip for clip in run["clips"] if name in _slices_of(clip)]
      if len(clips) >= FEWEST:
        cells = tuple(_cell(column, clips) for column in columns)
        found.append(Slice(name, run["name"], i % colours, len(clips), cells))
  # One slice alone is the whole set again.
  return columns, found if len({part.name for part in found}) > 1 else []


def _slices_of(clip: dict[str, Any]) -> list[str]:
  speech = "with speech" if clip.get("transcript") else "without speech"
  return [*filter(None, [clip.get("label")]), speech]


def _names(runs) -> list[str]:
  """Returns the names of slices, classes first and in order."""
  names = {name for run in runs for c in run["clips"] for name in _slices_of(c)}
  last = ("with speech", "without speech")
  return sorted(names, key=lambda name: (name in last, name))


def _cell(column: Column, clips) -> tuple[str, str]:
  known = [terms(clip, GENERATED, column) for clip in clips]
  pairs = np.array([t for t in known if t is not None]).reshape(-1, 2)
  estimate = intervals.ratio(*pairs.T)
  interval = column.format_interval(*map(_plain, (estimate.low, estimate.high)))
  return column.format(estimate.value), interval


def _plain(value: float) -> float | None:
  return float(value) if np.isfinite(value) else None
