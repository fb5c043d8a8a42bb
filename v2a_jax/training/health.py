"""Whether a run is well: updates that were skipped, losses that jump.

A step is bad if its loss or gradient is not finite, or its loss is far above
those before. A bad step may be one bad batch; many in a row mean that the
weights are ruined, and the run goes back to weights that are known to be good:
those that a later step found a good loss with.
"""

import collections
import logging
import math
import statistics

import numpy as np

# Losses that a new one is compared with, and how many are enough to do so.
_REMEMBERED, _ENOUGH = 100, 20
_NAMED_EXAMPLES = 32

_log = logging.getLogger(__name__)


class NonFiniteError(Exception):
  """Too many updates in a row failed, and going back has not helped."""


class Health:
  """Judges the steps of a run, in their order.

  All processes see the same metrics and come to the same judgement.

  Attributes:
    good: largest number of steps after which the weights were still good, as
      far as is known.
    bad: (step, loss, gradient norm) of the newest bad steps in a row.
    failed: the step at which there were too many in a row, or None.
  """

  def __init__(self, start: int, *, limit: int, spike_factor: float):
    """Begins after `start` steps.

    Args:
      start: number of steps done; their weights are good if it is 0.
      limit: number of consecutive bad steps that is too many.
      spike_factor: a loss is bad from so many times the median of the last 100
        above it; 0 for never.
    """
    self._limit, self._factor = limit, spike_factor
    self.good = start - 1 if start else 0
    self._losses = collections.deque(maxlen=_REMEMBERED)
    self.bad: list[tuple[int, float, float]] = []
    self.failed: int | None = None

  @property
  def suspect(self) -> bool:
    """Whether the newest weights may be ruined."""
    return bool(self.bad)

  def observe(
    self,
    step: int,
    loss: float,
    norm: float,
    examples: np.ndarray | None = None,
  ) -> None:
    """Judges a step that is done, and logs it if it is bad.

    Args:
      step: its number, from 1.
      loss: its loss.
      norm: norm of its gradient.
      examples: numbers of the records in its batch, as far as this process
        loaded them.
    """
    fault = self._fault(loss, norm)
    if fault is None:
      self._losses.append(loss)
      self.bad.clear()
      self.good = max(self.good, step - 1)
      return
    self.bad.append((step, loss, norm))
    _log.warning(
      "step %d: loss %.4g, gradient norm %.4g: %s%s",
      step,
      loss,
      norm,
      fault,
      _records(examples),
    )
    if len(self.bad) >= self._limit and self.failed is None:
      self.failed = step

  def _fault(self, loss: float, norm: float) -> str | None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
      return "the update is skipped"
    if not self._factor or len(self._losses) < _ENOUGH:
      return None
    usual = statistics.median(self._losses)
    if loss <= usual + self._factor * abs(usual):
      return None
    return f"the loss jumped from {usual:.4g}"

  def restart(self, step: int) -> None:
    """Goes on from the good weights after `step` steps."""
    self.good, self.failed = step, None
    self.bad.clear()

  def accept(self) -> None:
    """Takes losses that stay high for the usual ones from now on."""
    self._losses.clear()
    self.bad.clear()
    self.failed = None

  @property
  def finite(self) -> bool:
    """Whether the newest bad steps are high losses only."""
    return all(math.isfinite(x) for bad in self.bad for x in bad)

  def describe(self) -> str:
    """Returns one line on the newest bad steps."""
    (first, *_), (last, loss, norm) = self.bad[0], self.bad[-1]
    return (
      f"steps {first} to {last}: loss {loss}, gradient norm {norm};"
      f" {len(self.bad)} bad steps in a row"
    )


def _records(examples: np.ndarray | None) -> str:
  if examples is None:
    return ""
  numbers = np.asarray(examples).ravel().tolist()
  listed = ", ".join(map(str, numbers[:_NAMED_EXAMPLES]))
  more = len(numbers) - _NAMED_EXAMPLES
  return f"; records {listed}{f' and {more} more' if more > 0 else ''}"
