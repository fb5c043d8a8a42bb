"""Which checkpoints of a run are kept, and which of them is the best."""

from collections.abc import Mapping
import dataclasses
import logging
import math
from typing import Any

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retention:
  """Rules of keeping; a checkpoint stays if one of them keeps it.

  Attributes:
    newest: number of newest checkpoints.
    period: steps that are multiples of it, for good; 0 for none.
    best: number of best checkpoints by `metric`.
    metric: validation row that checkpoints are ranked by.
    mode: `min` if lower is better, `max` if higher is.
  """

  newest: int = 3
  period: int = 0
  best: int = 0
  metric: str = "eval_mean/loss"
  mode: str = "min"

  def score(self, row: Mapping[str, float] | None) -> dict[str, Any] | None:
    """Returns what a checkpoint is ranked by, JSON-able.

    Args:
      row: validation results of its very step; None or empty if there are none.

    Returns:
      None if it is not ranked: it is never among the best, and stays only as
      long as the other rules keep it.
    """
    if not row:
      return None
    value = row.get(self.metric, math.nan)
    if math.isfinite(value):
      return {"metric": self.metric, "value": float(value), "mode": self.mode}
    if self.best:
      _log.warning(
        "config.keep_best_metric=%r has no finite value among the validation"
        " results (%s): this checkpoint cannot be among the best",
        self.metric,
        ", ".join(sorted(row)),
      )
    return None

  def kept(self, scores: Mapping[int, Mapping[str, Any] | None]) -> set[int]:
    """Returns the steps that stay.

    Args:
      scores: score by step, of all checkpoints that there are.
    """
    steps = sorted(scores, reverse=True)
    periodic = [s for s in steps if self.period and s % self.period == 0]
    return {*steps[: self.newest], *periodic, *ranked(scores)[: self.best]}


def ranked(scores: Mapping[int, Mapping[str, Any] | None]) -> list[int]:
  """Returns the steps with a score, best first, the newer of two equals first.

  Where a run has changed its metric, the one of its newest score counts.
  """
  known = {step: score for step, score in scores.items() if score}
  if not known:
    return []
  rule = known[max(known)]
  sign = -1 if rule["mode"] == "max" else 1
  same = [s for s in known if known[s]["metric"] == rule["metric"]]
  return sorted(same, key=lambda s: (sign * known[s]["value"], -s))
