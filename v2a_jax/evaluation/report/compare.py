"""What a report may say: differences with intervals, and words for them.

Two rows that share clips are compared clip by clip: the mean difference of
their scores, with the percentile bootstrap over clips (Efron and Tibshirani,
"An introduction to the bootstrap", 1993, ch. 13). What has no score of its own
for a clip (a distance between sets) is compared through the two intervals, by
the method of variance estimates recovery (Zou and Donner 2008,
https://doi.org/10.1002/sim.3095),

  low = d - sqrt((a - a_low)^2 + (b_high - b)^2),  d = a - b

which takes the rows for independent and so is on the wide side. Nothing is
said to be better unless the interval of the difference excludes zero.
"""

from collections.abc import Sequence
import dataclasses
import math

import numpy as np

GENERATED = "generated"
SHUFFLED = "shuffled_video"
GROUND_TRUTH = "ground_truth"
# Rows that know nothing of the clip: who is below them shows no skill.
# Metrics of synchronisation begin so.
IN_TIME = ("onset", "av_align")
BLIND = ("silence", "noise")
_PAIRS = 5  # fewer shared clips are not drawn from
_DRAWS = 4000


@dataclasses.dataclass(frozen=True)
class Metric:
  """A column. `decimals` fit the precision of its intervals."""

  id: str
  label: str
  unit: str
  higher_is_better: bool
  about: str = ""
  decimals: int = 3

  def format(self, value: float | None) -> str:
    if value is None or not math.isfinite(value):
      return "n/a"
    text = f"{value:.{self.decimals}f}"
    return text.replace("-", "\N{MINUS SIGN}")

  def interval(self, low: float | None, high: float | None) -> str:
    if low is None or high is None:
      return ""
    return f"[{self.format(low)}, {self.format(high)}]"


@dataclasses.dataclass(frozen=True)
class Difference:
  """`first - second` of one metric, with a 95 % interval.

  `pairs` is the number of shared clips; 0 where intervals were combined.
  """

  metric: Metric
  value: float
  low: float
  high: float
  pairs: int

  @property
  def sign(self) -> int:
    """1: first is better, -1: second is better, 0: cannot be told apart."""
    if not self.low > 0 and not self.high < 0:
      return 0
    return 1 if (self.value > 0) == self.metric.higher_is_better else -1

  def words(self) -> str:
    size = abs(self.value)
    ends = sorted((abs(self.low), abs(self.high)))
    if self.sign == 0:
      size, ends = self.value, (self.low, self.high)
    unit = f" {self.metric.unit}" if self.metric.unit else ""
    how = f"paired, {self.pairs} clips" if self.pairs else "from intervals"
    return (
      f"{self.metric.label} by {self.metric.format(size)}{unit} "
      f"{self.metric.interval(*ends)} ({how})"
    )


def metrics_of(runs: Sequence[dict]) -> list[Metric]:
  """The runs' metrics, in order of appearance, with fitting decimals."""
  described = {}
  for run in runs:
    for name, about in run["metrics"].items():
      described.setdefault(name, about)
  return [
    Metric(
      id=name,
      label=about.get("label", name),
      unit=about.get("unit", ""),
      higher_is_better=bool(about["higher_is_better"]),
      about=about.get("about", ""),
      decimals=_decimals(name, runs),
    )
    for name, about in described.items()
  ]


def _decimals(name: str, runs: Sequence[dict]) -> int:
  """Two figures of the typical half width of the models' intervals."""
  widths = []
  for run in runs:
    for row in run["rows"]:
      entry = row["metrics"].get(name) or {}
      low, high = entry.get("low"), entry.get("high")
      if low is not None and high is not None and high > low:
        widths.append((high - low) / 2)
  if not widths:
    return 3
  return int(np.clip(1 - math.floor(math.log10(np.median(widths))), 0, 3))


def row_of(run: dict, name: str) -> dict | None:
  """A run's row by name."""
  return next((row for row in run["rows"] if row["name"] == name), None)


def difference(
  metric: Metric, first: tuple[dict, str], second: tuple[dict, str]
) -> Difference | None:
  """Compares two rows, each a run and the row's name.

  Returns:
    The difference, paired where five clips or more are shared; None where a
    row or its interval is missing.
  """
  pairs = _shared_scores(metric, first, second)
  if len(pairs) >= _PAIRS:
    return _paired(metric, pairs)
  entries = []
  for run, name in (first, second):
    row = row_of(run, name)
    entry = (row or {"metrics": {}})["metrics"].get(metric.id) or {}
    if any(entry.get(part) is None for part in ("value", "low", "high")):
      return None
    entries.append(entry)
  return _combined(metric, *entries)


def _shared_scores(metric, first, second) -> np.ndarray:
  """Scores [clips, 2] of the clips that both have, in the same set."""
  (run, row), (other, other_row) = first, second
  if _set_of(run) != _set_of(other):
    return np.zeros((0, 2))
  theirs = {clip["id"]: clip for clip in other["clips"]}
  out = []
  for clip in run["clips"]:
    match = theirs.get(clip["id"])
    if match is None:
      continue
    a = clip.get("scores", {}).get(row, {}).get(metric.id)
    b = match.get("scores", {}).get(other_row, {}).get(metric.id)
    if _finite(a) and _finite(b):
      out.append((a, b))
  return np.array(out, float).reshape(-1, 2)


def _finite(x) -> bool:
  return isinstance(x, (int, float)) and math.isfinite(x)


def _set_of(run: dict) -> tuple:
  return run["set"].get("manifest_sha256"), run["set"].get("split")


def _paired(metric: Metric, pairs: np.ndarray) -> Difference:
  change = pairs[:, 0] - pairs[:, 1]
  rng = np.random.default_rng(0)
  drawn = rng.integers(len(change), size=(_DRAWS, len(change)))
  low, high = np.percentile(change[drawn].mean(1), [2.5, 97.5])
  return Difference(
    metric, float(change.mean()), float(low), float(high), len(change)
  )


def _combined(metric: Metric, a: dict, b: dict) -> Difference:
  value = a["value"] - b["value"]
  below = math.hypot(a["value"] - a["low"], b["high"] - b["value"])
  above = math.hypot(a["high"] - a["value"], b["value"] - b["low"])
  return Difference(metric, value, value - below, value + above, 0)


def best_run(metric: Metric, runs: Sequence[dict]) -> int | None:
  """The run whose generated row is the best, beyond its interval.

  Returns:
    Its index; None with fewer than two runs, or where the interval of the
    difference to the runner-up does not exclude zero.
  """
  values = []
  for i, run in enumerate(runs):
    entry = (row_of(run, GENERATED) or {"metrics": {}})["metrics"]
    value = (entry.get(metric.id) or {}).get("value")
    if _finite(value):
      values.append((value, i))
  if len(values) < 2:
    return None
  values.sort(reverse=metric.higher_is_better)
  (_, best), (_, next_best) = values[:2]
  gap = difference(
    metric, (runs[best], GENERATED), (runs[next_best], GENERATED)
  )
  return best if gap is not None and gap.sign > 0 else None


@dataclasses.dataclass(frozen=True)
class Sentence:
  """A line of the verdict: what is said, and by how much.

  `kind` is `better`, `tie` or `worse`; `lead` ends where `parts` begin.
  """

  kind: str
  lead: str
  parts: tuple[str, ...] = ()

  @property
  def text(self) -> str:
    return f"{self.lead} {self.rest}".strip() + "."

  @property
  def rest(self) -> str:
    return _join(self.parts)


def verdict(runs: Sequence[dict], metrics: Sequence[Metric]) -> list[Sentence]:
  """What the intervals allow to be said, run against run, then anchors."""
  out = []
  for i, first in enumerate(runs):
    for second in runs[i + 1 :]:
      out += _between(first, second, metrics)
  for run in runs:
    out += _against_anchors(run, metrics)
  return out


def _between(first, second, metrics) -> list[Sentence]:
  found = [
    difference(m, (first, GENERATED), (second, GENERATED)) for m in metrics
  ]
  known = [gap for gap in found if gap is not None]
  out = []
  for sign, winner, loser in ((1, first, second), (-1, second, first)):
    words = _words(known, sign)
    if words:
      lead = f"{winner['name']} beats {loser['name']} on"
      out.append(Sentence("better", lead, words))
  ties = tuple(gap.metric.label for gap in known if gap.sign == 0)
  pair = f"{first['name']} and {second['name']}"
  if not known:
    out.append(Sentence("tie", f"{pair} share no metric with an interval"))
  elif not out:
    out.append(Sentence("tie", f"{pair} cannot be told apart on any metric"))
  elif ties:
    out.append(Sentence("tie", f"{pair} cannot be told apart on", ties))
  return out


def _words(gaps: Sequence[Difference], sign: int) -> tuple[str, ...]:
  return tuple(gap.words() for gap in gaps if gap.sign == sign)


def _against_anchors(run: dict, metrics: Sequence[Metric]) -> list[Sentence]:
  """Does it use the picture; how near to the truth does it come."""
  name, out = run["name"], []
  if row_of(run, SHUFFLED):
    gaps = [difference(m, (run, GENERATED), (run, SHUFFLED)) for m in metrics]
    known = [gap for gap in gaps if gap is not None]
    better, worse = _words(known, 1), _words(known, -1)
    if better:
      in_time = any(
        g.sign == 1 and g.metric.id.startswith(IN_TIME) for g in known
      )
      found = (
        "follows the picture in time"
        if in_time
        else "hears of the picture, but nothing here shows that it is in time"
      )
      lead = f"{name} {found}: it beats itself with videos shuffled on"
      out.append(Sentence("better" if in_time else "tie", lead, better))
    elif known:
      lead = (
        f"{name} cannot be told from itself with videos shuffled: nothing "
        "here shows that it follows the picture"
      )
      out.append(Sentence("tie", lead))
    if worse:
      lead = f"{name} is worse than itself with videos shuffled on"
      out.append(Sentence("worse", lead, worse))
  for blind in BLIND:
    gaps = [difference(m, (run, GENERATED), (run, blind)) for m in metrics]
    words = _words([gap for gap in gaps if gap is not None], -1)
    if words:
      out.append(Sentence("worse", f"{blind.title()} beats {name} on", words))
  share = _shares(run, metrics)
  if share:
    out.append(Sentence("tie", f"{name} reaches, of the ground truth,", share))
  return out


def _shares(run: dict, metrics: Sequence[Metric]) -> tuple[str, ...]:
  rows = [row_of(run, GENERATED), row_of(run, GROUND_TRUTH)]
  out = []
  for metric in metrics:
    if not metric.higher_is_better or None in rows:
      continue
    ours, truth = (
      (r["metrics"].get(metric.id) or {}).get("value") for r in rows
    )
    if _finite(ours) and _finite(truth) and truth > 0:
      out.append(f"{100 * ours / truth:.0f} % on {metric.label}")
  return tuple(out)


def _join(parts: Sequence[str]) -> str:
  if len(parts) < 2:
    return "".join(parts)
  return ", ".join(parts[:-1]) + " and " + parts[-1]


def limits(runs: Sequence[dict], metrics: Sequence[Metric]) -> list[str]:
  """What a reader should not conclude."""
  out = []
  small = [run for run in runs if run["set"].get("n", 0) < 50]
  for run in small:
    out.append(
      f"{run['name']} was scored on {run['set'].get('n', 0)} clips; under 50, "
      "intervals are rough and distances between sets hardly mean anything."
    )
  if len({_set_of(run) for run in runs}) > 1:
    out.append(
      "The runs were not scored on the same set, so that no clip is paired."
    )
  out.append(
    "One seed of training a run: differences between seeds are not in any "
    "interval."
  )
  count = len(metrics) * len(runs) * (len(runs) - 1) // 2
  if count > 1:
    out.append(
      f"{count} comparisons between runs at 95 % each: about one in twenty "
      "differs by chance alone."
    )
  if any(_set_level(metric, runs) for metric in metrics):
    labels = [m.label for m in metrics if _set_level(m, runs)]
    out.append(
      f"{_join(labels)}: a figure of the whole set, compared through intervals "
      "as if the rows were independent."
    )
  return out


def _set_level(metric: Metric, runs: Sequence[dict]) -> bool:
  return not any(
    metric.id in scores
    for run in runs
    for clip in run["clips"]
    for scores in clip.get("scores", {}).values()
  )
