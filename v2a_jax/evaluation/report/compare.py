"""Comparisons of runs and anchors, with intervals and in words.

Two rows that share clips are compared clip by clip: the mean difference of
their scores, with the percentile bootstrap over clips (Efron and Tibshirani,
"An introduction to the bootstrap", 1993, ch. 13). A metric without scores per
clip (a distance between sets) is compared through the two intervals, by the
method of variance estimates recovery (Zou and Donner 2008,
https://doi.org/10.1002/sim.3095),

  low = d - sqrt((a - a_low)^2 + (b_high - b)^2),  d = a - b

which takes the rows for independent and so gives rather wide intervals. Nothing
is called better unless the interval of the difference excludes zero.
"""

from collections.abc import Sequence
import dataclasses
import math

import numpy as np

from v2a_jax.evaluation.report.columns import Column
from v2a_jax.evaluation.schema import is_finite

GENERATED = "generated"
SHUFFLED = "shuffled_video"
GROUND_TRUTH = "ground_truth"
# Rows without any input: a model that does not beat them shows no skill.
BLIND = ("silence", "noise")
_PAIRS = 5  # fewer shared clips are not resampled
_DRAWS = 4000
_SMALL_SET = 50  # clips


@dataclasses.dataclass(frozen=True)
class Difference:
  """`first - second` in one metric, with a 95 % interval.

  `pairs` is the number of shared clips; 0 where intervals were combined.
  """

  column: Column
  value: float
  low: float
  high: float
  pairs: int

  @property
  def sign(self) -> int:
    """1: first is better, -1: second is better, 0: cannot be told apart."""
    if not self.low > 0 and not self.high < 0:
      return 0
    return 1 if (self.value > 0) == self.column.higher_is_better else -1

  def words(self) -> str:
    """Describes the difference: metric, size, interval, method."""
    size = abs(self.value)
    ends = sorted((abs(self.low), abs(self.high)))
    if self.sign == 0:
      size, ends = self.value, (self.low, self.high)
    unit = f" {self.column.unit}" if self.column.unit else ""
    method = f"paired, {self.pairs} clips" if self.pairs else "from intervals"
    return (
      f"{self.column.label} by {self.column.format(size)}{unit} "
      f"{self.column.format_interval(*ends)} ({method})"
    )


def row_of(run: dict, name: str) -> dict | None:
  """Returns a run's row by name, or None."""
  return next((row for row in run["rows"] if row["name"] == name), None)


def entry_of(run: dict, name: str, column: Column) -> dict:
  """Returns a row's entry for a metric; {} where there is none."""
  row = row_of(run, name)
  return (row and row["metrics"].get(column.id)) or {}


def difference(
  column: Column, first: tuple[dict, str], second: tuple[dict, str]
) -> Difference | None:
  """Compares two rows, each a run and the row's name, in one metric.

  The difference is paired where five clips or more are shared; None where a row
  or its interval is missing.
  """
  pairs = _shared_scores(column, first, second)
  if len(pairs) >= _PAIRS:
    return _paired(column, pairs)
  a, b = (entry_of(*row, column) for row in (first, second))
  parts = ("value", "low", "high")
  if any(entry.get(part) is None for entry in (a, b) for part in parts):
    return None
  value = a["value"] - b["value"]
  below = math.hypot(a["value"] - a["low"], b["high"] - b["value"])
  above = math.hypot(a["high"] - a["value"], b["value"] - b["low"])
  return Difference(column, value, value - below, value + above, 0)


def _shared_scores(column, first, second) -> np.ndarray:
  """Returns scores [clips, 2] of the clips that both have, in the same set."""
  (run, row), (other, other_row) = first, second
  if _set_of(run) != _set_of(other):
    return np.zeros((0, 2))
  others = {clip["id"]: clip for clip in other["clips"]}
  pairs = []
  for clip in run["clips"]:
    match = others.get(clip["id"])
    if match is None:
      continue
    a = clip.get("scores", {}).get(row, {}).get(column.id)
    b = match.get("scores", {}).get(other_row, {}).get(column.id)
    if is_finite(a) and is_finite(b):
      pairs.append((a, b))
  return np.array(pairs, float).reshape(-1, 2)


def _set_of(run: dict) -> tuple:
  return run["set"].get("manifest_sha256"), run["set"].get("split")


def _paired(column: Column, pairs: np.ndarray) -> Difference:
  change = pairs[:, 0] - pairs[:, 1]
  rng = np.random.default_rng(0)
  drawn = rng.integers(len(change), size=(_DRAWS, len(change)))
  low, high = np.percentile(change[drawn].mean(1), [2.5, 97.5])
  return Difference(
    column, float(change.mean()), float(low), float(high), len(change)
  )


def _differences(columns, first, second) -> list[Difference]:
  """Compares two rows in all metrics that have a direction."""
  gaps = (difference(column, first, second) for column in _directed(columns))
  return [gap for gap in gaps if gap is not None]


def _directed(columns: Sequence[Column]) -> list[Column]:
  return [c for c in columns if c.higher_is_better is not None]


def best_run(column: Column, runs: Sequence[dict]) -> int | None:
  """Returns the index of the run whose generated row is the best, or None.

  None with fewer than two runs, for a metric without a direction, or where the
  interval of the difference to the runner-up does not exclude zero.
  """
  values = []
  for i, run in enumerate(runs):
    value = entry_of(run, GENERATED, column).get("value")
    if is_finite(value):
      values.append((value, i))
  if len(values) < 2 or column.higher_is_better is None:
    return None
  values.sort(reverse=column.higher_is_better)
  (_, best), (_, next_best) = values[:2]
  gap = difference(
    column, (runs[best], GENERATED), (runs[next_best], GENERATED)
  )
  return best if gap is not None and gap.sign > 0 else None


@dataclasses.dataclass(frozen=True)
class Sentence:
  """A line of the verdict: a beginning and the parts that it lists.

  `kind` is `better`, `tie` or `worse`.
  """

  kind: str
  lead: str
  parts: tuple[str, ...] = ()

  @property
  def text(self) -> str:
    """The whole sentence."""
    return f"{self.lead} {self.rest}".strip() + "."

  @property
  def rest(self) -> str:
    """The listed parts."""
    return _join(self.parts)


def verdict(runs: Sequence[dict], columns: Sequence[Column]) -> list[Sentence]:
  """Writes what the intervals show: run against run, then against anchors."""
  sentences = []
  for i, first in enumerate(runs):
    for second in runs[i + 1 :]:
      sentences += _between(first, second, columns)
  for run in runs:
    sentences += _against_shuffled(run, columns)
    sentences += _against_blind(run, columns)
    sentences += _against_truth(run, columns)
  return sentences


def _between(first, second, columns) -> list[Sentence]:
  gaps = _differences(columns, (first, GENERATED), (second, GENERATED))
  sentences = []
  for sign, winner, loser in ((1, first, second), (-1, second, first)):
    words = _words(gaps, sign)
    if words:
      lead = f"{winner['name']} beats {loser['name']} on"
      sentences.append(Sentence("better", lead, words))
  ties = tuple(gap.column.label for gap in gaps if gap.sign == 0)
  lead = f"{first['name']} and {second['name']}"
  if not gaps:
    lead = f"{lead} share no metric with an interval"
    return [Sentence("tie", lead)]
  if not sentences:
    return [Sentence("tie", f"{lead} cannot be told apart on any metric")]
  if ties:
    sentences.append(Sentence("tie", f"{lead} cannot be told apart on", ties))
  return sentences


def _words(gaps: Sequence[Difference], sign: int) -> tuple[str, ...]:
  return tuple(gap.words() for gap in gaps if gap.sign == sign)


def _against_shuffled(run: dict, columns) -> list[Sentence]:
  """Writes whether the model uses the video, and whether it is in time."""
  gaps = _differences(columns, (run, GENERATED), (run, SHUFFLED))
  name, sentences = run["name"], []
  better, worse = _words(gaps, 1), _words(gaps, -1)
  if better:
    in_time = any(gap.sign == 1 and gap.column.judges_timing for gap in gaps)
    skill = (
      "follows the video in time"
      if in_time
      else "responds to the video, but no metric here shows that it is in time"
    )
    lead = f"{name} {skill}: it beats itself with videos shuffled on"
    sentences.append(Sentence("better" if in_time else "tie", lead, better))
  elif gaps:
    lead = (
      f"{name} cannot be told from itself with videos shuffled: no metric here"
      " shows that it follows the video"
    )
    sentences.append(Sentence("tie", lead))
  if worse:
    lead = f"{name} is worse than itself with videos shuffled on"
    sentences.append(Sentence("worse", lead, worse))
  return sentences


def _against_blind(run: dict, columns) -> list[Sentence]:
  sentences = []
  for row in BLIND:
    gaps = _differences(columns, (run, GENERATED), (run, row))
    if words := _words(gaps, -1):
      lead = f"{row.title()} beats {run['name']} on"
      sentences.append(Sentence("worse", lead, words))
  return sentences


def _against_truth(run: dict, columns) -> list[Sentence]:
  """Writes which share of the ground truth's score the model reaches."""
  shares = []
  for column in columns:
    value, truth = (
      entry_of(run, row, column).get("value")
      for row in (GENERATED, GROUND_TRUTH)
    )
    comparable = is_finite(value) and is_finite(truth) and truth > 0
    if column.higher_is_better and comparable:
      shares.append(f"{100 * value / truth:.0f} % on {column.label}")
  if not shares:
    return []
  lead = f"{run['name']} reaches, of the ground truth,"
  return [Sentence("tie", lead, tuple(shares))]


def _join(parts: Sequence[str]) -> str:
  if len(parts) < 2:
    return "".join(parts)
  return ", ".join(parts[:-1]) + " and " + parts[-1]


def limits(runs: Sequence[dict], columns: Sequence[Column]) -> list[str]:
  """Writes what a reader should not conclude."""
  sentences = []
  for run in runs:
    clips = run["set"].get("n", 0)
    if clips < _SMALL_SET:
      sentences.append(
        f"{run['name']} was scored on {clips} clips; under {_SMALL_SET},"
        " intervals are rough and distances between sets hardly mean anything."
      )
  if len({_set_of(run) for run in runs}) > 1:
    sentences.append(
      "The runs were not scored on the same set, so no clips are paired."
    )
  sentences.append(
    "One training seed per run: differences between seeds are not in any"
    " interval."
  )
  count = len(_directed(columns)) * len(runs) * (len(runs) - 1) // 2
  if count > 1:
    sentences.append(
      f"{count} comparisons between runs at 95 % each: about one in twenty "
      "differs by chance alone."
    )
  clips = [clip for run in runs for clip in run["clips"]]
  scores = [row for clip in clips for row in clip.get("scores", {}).values()]
  scored = {id_ for row in scores for id_ in row}
  labels = [column.label for column in columns if column.id not in scored]
  if labels:
    sentences.append(
      f"{_join(labels)}: a value of the whole set, compared through intervals "
      "as if the rows were independent."
    )
  return sentences
