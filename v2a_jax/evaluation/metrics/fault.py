"""Share of clips with a fault that the true sound does not have.

Where the true sound has it too, it is no fault: a system that left it out would
else be better than the truth.
"""

import abc

from v2a_jax.evaluation import intervals
from v2a_jax.evaluation.metrics import base


class Fault(base.ClipMetric):
  """Share of the clips, of those whose true sound is without the fault."""

  direction = "lower"
  bounds = (0.0, 1.0)
  role = "sanity"

  @abc.abstractmethod
  def has_fault(self, sample: base.Sample) -> bool:
    """Says whether a sound has the fault."""

  def get_state(self, sample: base.Sample) -> bool | None:
    return None if self.has_fault(sample.truth) else self.has_fault(sample)

  def value(self, state: bool | None) -> float:
    return float("nan") if state is None else float(state)

  def compute(self, states, *, seed=0) -> intervals.Estimate:
    return intervals.share([state for state in states if state is not None])
