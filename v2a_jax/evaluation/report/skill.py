"""Whether a run follows its video, and what can tell.

A run is compared with itself with videos shuffled. That it is in time is
concluded only from a metric that tells, in these very results, the true sound
from noise, from a metronome and from itself 120 ms late.
"""

from collections.abc import Sequence
import dataclasses

from v2a_jax.evaluation import significance
from v2a_jax.evaluation.report.columns import Column, quality
from v2a_jax.evaluation.report.differences import (
  Difference,
  difference,
  in_words,
  of_pairs,
  row_of,
  too_few,
)
from v2a_jax.evaluation.report.sentence import Sentence, join
from v2a_jax.evaluation.schema import GENERATED, GROUND_TRUTH, SHUFFLED

# What a judge of timing has to tell from the true sound.
OUT_OF_TIME = ("shifted", "metronome", "noise")


@dataclasses.dataclass(frozen=True)
class Skill:
  """Whether a run follows its video.

  Attributes:
    run: the run.
    gaps: differences to itself with videos shuffled, corrected.
    judges: metrics from which "in time" may be concluded.
    suspects: the other metrics of timing.
    few: what there is to say where the clips are too few for any difference.
  """

  run: dict
  gaps: tuple[Difference, ...]
  judges: tuple[Column, ...]
  suspects: tuple[Column, ...]
  few: str = ""

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
    why = f" ({self.few})" if self.few else ""
    return f"is not shown to follow the video{why}" if self.gaps else ""

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
    if self.run["set"].get("n", 0) < (least := significance.clips_needed()):
      few = f"fewer than {least} clips cannot be tested at 5 %"
      return Sentence("tie", f"{lead}{few}")
    labels = join([c.label for c in self.suspects]) or "no metric"
    rivals = "noise, a metronome and a shift of 120 ms"
    return Sentence(
      "tie", f"{lead}{labels} does not tell the true sound from {rivals}"
    )

  def against_shuffled(self) -> list[Sentence]:
    """Writes the differences to the run with videos shuffled."""
    name, sentences = self.run["name"], []
    better, worse = in_words(self.gaps, 1), in_words(self.gaps, -1)
    if better:
      lead = f"{name} {self.clause}: it beats itself with videos shuffled on"
      kind = "better" if self.in_time else "tie"
      sentences.append(Sentence(kind, lead, better))
    elif self.gaps:
      lead = f"{name} cannot be told from itself with videos shuffled: " + (
        self.few or "no metric here shows that it follows the video"
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
  pairs = [((run, GENERATED), (run, SHUFFLED)) for run in runs]
  gaps = of_pairs(quality(columns), pairs)
  few = too_few([gap for own in gaps for gap in own])
  timing = [c for c in quality(columns) if c.judges_timing]
  skills = []
  for run, own in zip(runs, gaps):
    judges = tuple(c for c in timing if tells_time(run, c))
    suspects = tuple(c for c in timing if c not in judges)
    skills.append(Skill(run, own, judges, suspects, few))
  return skills


def tells_time(run: dict, column: Column) -> bool:
  """Returns whether a metric tells the true sound from all out of time.

  It must from each, so that the chance of a mistake is that of one test.
  """
  for row in OUT_OF_TIME:
    gap = difference(column, (run, GROUND_TRUTH), (run, row))
    if gap is None or gap.sign != 1:
      return False
  return True
