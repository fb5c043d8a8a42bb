"""The verdict: what is known of the runs, in words.

A difference is named where the permutation test over clips, or between arms of
several training seeds the test over seeds and clips (training_seeds.py), finds
it at 5 %, corrected by Holm for the number of comparisons of its question: run
against run (all pairs, all metrics), each run against itself with videos
shuffled (skill.py), and each run against sounds that know nothing of the clip.
Of an arm the last two are said of its models as they are, over clips.
"""

from collections.abc import Sequence
import itertools

from scipy import stats

from v2a_jax.evaluation import intervals
from v2a_jax.evaluation.report import comparable, degradation
from v2a_jax.evaluation.report.columns import Column, compared, quality
from v2a_jax.evaluation.report.differences import (
  Difference,
  corrected,
  difference,
  entry_of,
  in_words,
  models_of,
  of_pairs,
  set_of,
  too_few,
)
from v2a_jax.evaluation.report.sentence import Sentence, join
from v2a_jax.evaluation.report.skill import Skill, judge_skills
from v2a_jax.evaluation.schema import (
  GENERATED,
  GROUND_TRUTH,
  SHUFFLED,
  is_finite,
)

# Rows without any input: a model that does not beat them shows no skill.
BLIND = ("silence", "noise", "metronome")
_SMALL_SET = 50  # clips


def verdict(runs: Sequence[dict], columns: Sequence[Column]) -> list[Sentence]:
  """Writes what is known and what is not, first in one sentence."""
  between = compare_runs(runs, columns)
  skills = judge_skills(runs, columns)
  sentences = [skill.sentence() for skill in skills]
  refused = [
    Sentence("worse", lead, labels)
    for lead, labels in comparable.not_compared(runs, compared(columns))
  ]
  sentences += refused
  if len(runs) == 2 and (between or not refused):
    sentences += _pair(*runs, list(between.values()))
  elif len(runs) > 2:
    sentences += _ranking(runs, columns, between)
  for skill in skills:
    sentences += skill.against_shuffled()
  sentences += _against_blind(runs, columns)
  sentences += degradation.against_worse_pictures(runs, columns)
  for skill in skills:
    sentences += _against_truth(skill)
  sentences += _not_measured(runs)
  if not any(run["rows"][1:] for run in runs) and len(runs) < 2:
    return sentences
  return [_headline(runs, skills, between), *sentences]


# Run against run.

Between = dict[tuple[int, int, str], Difference]


def compare_runs(runs: Sequence[dict], columns: Sequence[Column]) -> Between:
  """Compares all pairs of runs in all metrics, corrected for their number."""
  found = {
    (i, j, column.id): gap
    for column in compared(columns)
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
  for column in compared(columns):
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
    words = in_words(gaps, sign)
    if words:
      lead = f"{winner['name']} beats {loser['name']} on"
      sentences.append(Sentence("better", lead, words))
  ties = tuple(gap.column.label for gap in gaps if gap.sign == 0)
  lead = f"{first['name']} and {second['name']}"
  if not gaps:
    lead = f"{lead} share no metric with an interval"
    return [Sentence("tie", lead)]
  if not sentences:
    lead = f"{lead} cannot be told apart on any metric"
    few = too_few(gaps)
    return [Sentence("tie", f"{lead}: {few}" if few else lead)]
  if ties:
    sentences.append(Sentence("tie", f"{lead} cannot be told apart on", ties))
  return sentences


def _ranking(runs, columns, between: Between) -> list[Sentence]:
  """Writes an order of the runs for each metric that tells some apart."""
  sentences, ties = [], []
  for column in compared(columns):
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


def _against_blind(runs, columns) -> list[Sentence]:
  rows = [(run, row) for run in runs for row in BLIND]
  pairs = [((run, GENERATED), (run, row)) for run, row in rows]
  gaps = of_pairs(quality(columns), pairs)
  sentences = []
  for (run, row), own in zip(rows, gaps):
    if words := in_words(own, -1):
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
  few = too_few(list(between.values()))
  why = f" ({few})" if few else ""
  if len(runs) > 2:
    return f"{len(apart) or 'none'} of {len(pairs)} pairs of runs differ{why}"
  names = join([run["name"] for run in runs])
  if not between:
    return f"{names} cannot be compared"
  if not apart:
    return f"{names} cannot be told apart{why}"
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
    without = run.get("unmatched", {}).get("without_output", {})
    if count := without.get("count"):
      sentences.append(
        f"{run['name']} has no sound for {count} clips of the set, which are not"
        " judged."
      )
    sentences += [f"{run['name']}: {note}." for note in run.get("notes", ())]
  if len({set_of(run) for run in runs}) > 1:
    sentences.append(
      "The runs were not scored on the same set, so no clips are paired."
    )
  sentences += _of_seeds(runs)
  count = len(compared(columns)) * len(runs) * (len(runs) - 1) // 2
  if count > 1:
    sentences.append(
      f"{count} comparisons between runs were corrected together: where runs"
      " are equal, one report in twenty names any difference. Intervals are of"
      " one difference each."
    )
  unpaired = [
    c.label
    for c in compared(columns)
    if not has_clips(c, runs, "scores", "counts", "parts")
  ]
  if unpaired:
    sentences.append(
      f"{join(unpaired)}: a value of the whole set, compared through intervals "
      "as if the rows were independent."
    )
  return sentences


def _of_seeds(runs: Sequence[dict]) -> list[str]:
  """Writes what intervals and tests say of other training seeds."""
  sentences = []
  counts = [len(models_of(run)) for run in runs]
  for count in sorted({count for count in counts if count > 1}):
    names = [run["name"] for run, own in zip(runs, counts) if own == count]
    t = stats.t.ppf((1 + intervals.LEVEL) / 2, count - 1)
    sentences.append(
      f"{join(names)}: mean of {count} training seeds. Intervals of the table and"
      " tests between arms are over clips and seeds: they say what other seeds on"
      " other clips would give. How far seeds are apart is hardly known from"
      f" {count}, so their part of an interval is {t:.1f} standard errors to each"
      " side, and only large differences are named."
    )
  names = [run["name"] for run, own in zip(runs, counts) if own == 1]
  if len(names) == len(runs):
    sentences.append(
      "One training seed per run: differences between seeds are not in any"
      " interval."
    )
  elif names:
    sentences.append(
      f"{join(names)}: one training seed, so its own interval is over clips"
      " alone; compared with an arm of several seeds it is taken to vary as that"
      " does."
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
