"""What a soak test counts, and its table."""

import collections
from collections.abc import Callable, Iterable
import dataclasses
import sys
import time


@dataclasses.dataclass
class Tally:
  """Outcomes of many rounds of one thing.

  Attributes:
    name: what was done, for the table.
    wanted: what may come out, for the table.
    outcomes: number of rounds by outcome.
    faults: what must not happen and did, one line each.
    slowest: seconds of the slowest round.
  """

  name: str
  wanted: str
  outcomes: collections.Counter = dataclasses.field(
    default_factory=collections.Counter
  )
  faults: list[str] = dataclasses.field(default_factory=list)
  slowest: float = 0.0

  @property
  def rounds(self) -> int:
    return sum(self.outcomes.values())

  def row(self) -> str:
    """Returns a row of the table."""
    came = ", ".join(f"{n} {what}" for what, n in self.outcomes.most_common())
    return (
      f"| {self.name} | {self.rounds} | {came} | {self.wanted} |"
      f" {len(self.faults)} | {self.slowest:.1f} s |"
    )


HEADER = (
  "| what | rounds | what came out | what must hold | faults | slowest |\n"
  "|---|---|---|---|---|---|"
)


def repeat(
  tally: Tally,
  tasks: Iterable,
  round_of: Callable[..., str],
  *,
  slowest: float = 30.0,
) -> Tally:
  """Runs rounds; an AssertionError in one is a fault, as is a slow one.

  Args:
    tally: is filled.
    tasks: argument of each round.
    round_of: does a round; returns its outcome in a word or two.
    slowest: seconds after which a round counts as a hang.

  Raises:
    AssertionError: there were faults; the first are listed.
  """
  for number, task in enumerate(tasks):
    start = time.monotonic()
    try:
      outcome = round_of(task)
    except AssertionError as error:
      outcome = "fault"
      tally.faults.append(f"round {number}: {error}")
    seconds = time.monotonic() - start
    tally.slowest = max(tally.slowest, seconds)
    if seconds > slowest:
      tally.faults.append(f"round {number}: took {seconds:.0f} s")
    tally.outcomes[outcome] += 1
    if sys.stderr.isatty():
      print(f"\r\x1b[2K{tally.name}: {number + 1}", end="", file=sys.stderr)
  assert not tally.faults, f"{tally.name}: " + "\n".join(tally.faults[:10])
  return tally
