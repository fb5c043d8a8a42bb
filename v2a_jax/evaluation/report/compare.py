"""The verdict: what is known of the runs, in words.

A difference is named where the permutation test finds it at 5 %, corrected by
Holm for the number of comparisons of its question: run against run (all pairs,
all metrics), each run against itself with videos shuffled, and each run against
sounds that know nothing of the clip. That a sound is in time is concluded only
from a metric that tells, in these very results, the true sound from noise, from
a metronome and from itself 120 ms late.
"""

from collections.abc import Sequence
import dataclasses
import itertools

from v2a_jax.evaluation import significance
from v2a_jax.evaluation.report import comparable
from v2a_jax.evaluation.report.columns import Column
from v2a_jax.evaluation.report.differences import (
  Difference,
  corrected,
  difference,
  differences,
  entry_of,
  row_of,
  set_of,
)
from v2a_jax.evaluation.schema import is_finite

__all__ = ["row_of"]  # also for the other parts of the report

GENERATED = "generated"
SHUFFLED = "shuffled_video"
GROUND_TRUTH = "ground_truth"
# Rows without any input: a model that does not beat them shows no skill.
BLIND = ("silence", "noise", "metronome")
# What a judge of timing has to tell from the true sound.
OUT_OF_TIME = ("shifted", "metronome", "noise")
_SMALL_SET = 50  # clips


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
    return join(self.parts)


def join(parts: Sequence[str]) -> str:
  """Lists parts as a sentence does."""
  if len(parts) < 2:
    return "".join(parts)
  return ", ".join(parts[:-1]) + " and " + parts[-1]


def verdict(runs: Sequence[dict], columns: Sequence[Column]) -> list[Sentence]:
  """Writes what is known and what is not, first in one sentence."""
  between = compare_runs(runs, columns)
  skills = judge_skills(runs, columns)
  sentences = [skill.sentence() for skill in skills]
  refused = [
    Sentence("worse", lead, labels)
    for lead, labels in comparable.not_compared(runs, _comparable(columns))
  ]
  sentences += refused
  if len(runs) == 2 and (between or not refused):
    sentences += _pair(*runs, list(between.values()))
  elif len(runs) > 2:
    sentences += _ranking(runs, columns, between)
  for skill in skills:
    sentences += skill.against_shuffled()
  sentences += _against_blind(runs, columns)
  for skill in skills:
    sentences += _against_truth(skill)
  sentences += _not_measured(runs)
  if not any(run["rows"][1:] for run in runs) and len(runs) < 2:
    return sentences
  return [_headline(runs, skills, between), *sentences]


# Run against run.

Between = dict[tuple[int, int, str], Difference]


def _comparable(columns: Sequence[Column]) -> list[Column]:
  """Returns the metrics in which runs are compared."""
  return [
    c for c in columns if c.higher_is_better is not None and c.role != "shown"
  ]


def quality(columns: Sequence[Column]) -> list[Column]:
  """Returns the metrics in which runs are compared with anchors."""
  return [c for c in _comparable(columns) if c.role == "quality"]


def compare_runs(runs: Sequence[dict], columns: Sequence[Column]) -> Between:
  """Compares all pairs of runs in all metrics, corrected for their number."""
  found = {
    (i, j, column.id): gap
    for column in _comparable(columns)
    for i, j in itertools.combinations(range(len(runs)), 2)
    if (gap := difference(column, (runs[i], GENERATED), (runs[j], GENERATED)))
  }
  return dict(zip(found, corrected(list(found.values()))))


def best_runs(
  columns: Sequence[Column], runs: Sequence[dict]
) -> dict[str, int]:
  """Returns the index of the best run, by metric, where it is told apart.

  It is, where it beats the next best by the test of the verdict.
  """
  between, best = compare_runs(runs, columns), {}
  for column in _comparable(columns):
    ranked = _ranked(column, runs)
    if len(ranked) < 2:
      continue
    first, second = ranked[:2]
    if beats(between, column, first, second):
      best[column.id] = first
  return best


def _ranked(column: Column, runs: Sequence[dict]) -> list[int]:
  """Returns indices of runs, the best first.

  Those without a value are left out, and those that may not be compared.
  """
  values = [entry_of(run, GENERATED, column).get("value") for run in runs]
  known = [i for i, value in enumerate(values) if is_finite(value)]
  known.sort(key=values.__getitem__, reverse=column.higher_is_better)
  return comparable.alike(column, runs, known)


def beats(between: Between, column: Column, one: int, other: int) -> bool:
  """Returns whether a run is better than another in a metric."""
  gap = between.get((min(one, other), max(one, other), column.id))
  return gap is not None and gap.sign == (1 if one < other else -1)


def _pair(first: dict, second: dict, gaps: Sequence[Difference]):
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


def _ranking(runs, columns, between: Between) -> list[Sentence]:
  """Writes an order of the runs for each metric that tells some apart."""
  sentences, ties = [], []
  for column in _comparable(columns):
    ranked = _ranked(column, runs)
    beaten = {
      i: sum(beats(between, column, i, j) for j in ranked if j != i)
      for i in ranked
    }
    if not any(beaten.values()):
      ties.append(column.label)
      continue
    values = {i: entry_of(runs[i], GENERATED, column)["value"] for i in ranked}
    parts = [
      f"{runs[i]['name']} ({column.format(values[i])}"
      + (f", beats {beaten[i]})" if beaten[i] else ")")
      for i in ranked
    ]
    lead = f"{column.label}, best first:"
    sentences.append(Sentence("better", lead, tuple(parts)))
  if ties:
    lead = "No run can be told from another on"
    sentences.append(Sentence("tie", lead, tuple(ties)))
  return sentences


# Does a run follow its video?


@dataclasses.dataclass(frozen=True)
class Skill:
  """Whether a run follows its video.

  Attributes:
    run: the run.
    gaps: differences to itself with videos shuffled, corrected.
    judges: metrics from which "in time" may be concluded.
    suspects: the other metrics of timing.
  """

  run: dict
  gaps: tuple[Difference, ...]
  judges: tuple[Column, ...]
  suspects: tuple[Column, ...]

  @property
  def responds(self) -> bool:
    """Whether it is better than with videos shuffled, in any metric."""
    return any(gap.sign == 1 for gap in self.gaps)

  @property
  def in_time(self) -> bool:
    """Whether it is, in a metric that judges timing."""
    return any(g.sign == 1 and g.column in self.judges for g in self.gaps)

  @property
  def clause(self) -> str:
    """The answer without a subject, or "" where it was not asked."""
    if self.in_time:
      return "follows the video in time"
    if self.responds:
      return (
        "responds to the video, but no metric here shows that it is in time"
      )
    return "is not shown to follow the video" if self.gaps else ""

  def sentence(self) -> Sentence:
    """Writes which metrics judge timing here."""
    name = self.run["name"]
    if self.judges:
      lead = f"Timing of {name} is judged by"
      return Sentence("tie", lead, tuple(c.label for c in self.judges))
    lead = f"Nothing measured here can tell whether {name} is in time: "
    missing = [r for r in OUT_OF_TIME if not row_of(self.run, r)]
    if not row_of(self.run, GROUND_TRUTH):
      missing.insert(0, GROUND_TRUTH)
    if missing:
      return Sentence("tie", f"{lead}it has no row {join(missing)}")
    if self.run["set"].get("n", 0) < significance.FEWEST:
      few = f"fewer than {significance.FEWEST} clips"
      return Sentence("tie", f"{lead}{few} cannot be tested at 5 %")
    labels = join([c.label for c in self.suspects]) or "no metric"
    rivals = "noise, a metronome and a shift of 120 ms"
    return Sentence(
      "tie", f"{lead}{labels} does not tell the true sound from {rivals}"
    )

  def against_shuffled(self) -> list[Sentence]:
    """Writes the differences to the run with videos shuffled."""
    name, sentences = self.run["name"], []
    better, worse = _words(self.gaps, 1), _words(self.gaps, -1)
    if better:
      lead = f"{name} {self.clause}: it beats itself with videos shuffled on"
      kind = "better" if self.in_time else "tie"
      sentences.append(Sentence(kind, lead, better))
    elif self.gaps:
      lead = (
        f"{name} cannot be told from itself with videos shuffled: no metric"
        " here shows that it follows the video"
      )
      sentences.append(Sentence("tie", lead))
    if worse:
      lead = f"{name} is worse than itself with videos shuffled on"
      sentences.append(Sentence("worse", lead, worse))
    return sentences


def judge_skills(
  runs: Sequence[dict], columns: Sequence[Column]
) -> list[Skill]:
  """Compares each run with itself with videos shuffled."""
  found = [
    (i, gap)
    for i, run in enumerate(runs)
    for gap in differences(quality(columns), (run, GENERATED), (run, SHUFFLED))
  ]
  gaps = corrected([gap for _, gap in found])
  timing = [c for c in quality(columns) if c.judges_timing]
  skills = []
  for i, run in enumerate(runs):
    own = tuple(gap for (j, _), gap in zip(found, gaps) if j == i)
    judges = tuple(c for c in timing if tells_time(run, c))
    suspects = tuple(c for c in timing if c not in judges)
    skills.append(Skill(run, own, judges, suspects))
  return skills


def tells_time(run: dict, column: Column) -> bool:
  """Returns whether a metric tells the true sound from all out of time."""
  for row in OUT_OF_TIME:
    gap = difference(column, (run, GROUND_TRUTH), (run, row))
    if gap is None or gap.sign != 1:
      return False
  return True


def _against_blind(runs, columns) -> list[Sentence]:
  rows = [(run, row) for run in runs for row in BLIND]
  found = [
    (i, gap)
    for i, (run, row) in enumerate(rows)
    for gap in differences(quality(columns), (run, GENERATED), (run, row))
  ]
  gaps = corrected([gap for _, gap in found])
  sentences = []
  for i, (run, row) in enumerate(rows):
    own = [gap for (j, _), gap in zip(found, gaps) if j == i]
    if words := _words(own, -1):
      lead = f"{row.title()} beats {run['name']} on"
      sentences.append(Sentence("worse", lead, words))
  return sentences


def _against_truth(skill: Skill) -> list[Sentence]:
  """Writes how far the run comes from chance to the ground truth."""
  shares = []
  for column in skill.judges:
    value, truth, chance = (
      entry_of(skill.run, row, column).get("value")
      for row in (GENERATED, GROUND_TRUTH, SHUFFLED)
    )
    if all(map(is_finite, (value, truth, chance))) and truth != chance:
      share = 100 * (value - chance) / (truth - chance)
      shares.append(f"{share:.0f} % on {column.label}")
  if not shares:
    return []
  lead = (
    f"Of the way from videos shuffled to the ground truth, {skill.run['name']}"
    " comes"
  )
  return [Sentence("tie", lead, tuple(shares))]


# What is not known, and the whole in short.


def _not_measured(runs) -> list[Sentence]:
  """Writes which metrics are missing, and why."""
  reasons: dict[str, list[str]] = {}
  for run in runs:
    for id_, reason in run.get("skipped", {}).items():
      ids = reasons.setdefault(reason, [])
      if id_ not in ids:
        ids.append(id_)
  return [
    Sentence("worse", f"Not measured: {join(ids)}: {reason.rstrip('.')}")
    for reason, ids in reasons.items()
  ]


def _headline(runs, skills: Sequence[Skill], between: Between) -> Sentence:
  """Writes in one sentence what is known, what is not, and why."""
  clauses = []
  for clause in dict.fromkeys(s.clause for s in skills if s.clause):
    names = [s.run["name"] for s in skills if s.clause == clause]
    clauses.append(
      f"{join(names)} {clause}"
      if len(names) == 1
      else (f"each of {join(names)} {clause}")
    )
  if any(s.clause and not s.judges for s in skills):
    clauses.append("nothing measured here can tell whether sounds are in time")
  if not any(s.clause for s in skills):
    clauses.append(
      "whether a run follows its video was not measured, without a row of"
      " shuffled videos"
    )
  if len(runs) > 1:
    clauses.append(_told_apart(runs, between))
  missing = dict.fromkeys(id_ for run in runs for id_ in run.get("skipped", {}))
  if missing:
    clauses.append(f"{join(list(missing))} were not measured (why: below)")
  known = [skill.in_time for skill in skills]
  kind = "better" if all(known) else "tie" if any(known) else "worse"
  return Sentence(kind, f"In short: {'; '.join(clauses)}")


def _told_apart(runs, between: Between) -> str:
  pairs = list(itertools.combinations(range(len(runs)), 2))
  apart = {(i, j) for (i, j, _), gap in between.items() if gap.sign}
  if len(runs) > 2:
    return f"{len(apart) or 'none'} of {len(pairs)} pairs of runs differ"
  names = join([run["name"] for run in runs])
  if not between:
    return f"{names} cannot be compared"
  if not apart:
    return f"{names} cannot be told apart"
  count = sum(gap.sign != 0 for gap in between.values())
  return f"{names} differ on {count} of {len(between)} metrics"


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
    sentences += [f"{run['name']}: {note}." for note in run.get("notes", ())]
  if len({set_of(run) for run in runs}) > 1:
    sentences.append(
      "The runs were not scored on the same set, so no clips are paired."
    )
  sentences.append(
    "One training seed per run: differences between seeds are not in any"
    " interval."
  )
  count = len(_comparable(columns)) * len(runs) * (len(runs) - 1) // 2
  if count > 1:
    sentences.append(
      f"{count} comparisons between runs were corrected together: where runs"
      " are equal, one report in twenty names any difference. Intervals are of"
      " one difference each."
    )
  unpaired = [
    c.label
    for c in columns
    if not has_clips(c, runs, "scores", "counts", "parts")
  ]
  if unpaired:
    sentences.append(
      f"{join(unpaired)}: a value of the whole set, compared through intervals "
      "as if the rows were independent."
    )
  return sentences


def has_clips(column: Column, runs, *kinds: str) -> bool:
  """Returns whether clips have values of a metric, of any of the kinds."""
  return any(
    column.id in row
    for run in runs
    for clip in run["clips"]
    for kind in kinds
    for row in clip.get(kind, {}).values()
  )
