"""Error of a sound's length."""

import numpy as np

from v2a_jax.evaluation.metrics import base


class DurationError(base.ClipMetric):
  """Distance of the length from the true sound's, seconds."""

  id = "duration_error"
  label = "Duration error"
  unit = "s"
  bounds = (0.0, np.inf)
  direction = "lower"
  role = "sanity"
  about = "Mean distance of the sound's length from the length asked for."

  def get_state(self, sample: base.Sample) -> float:
    rate = sample.sample_rate
    asked = len(sample.truth.waveform) / rate
    if sample.delivered_seconds is not None:
      return abs(sample.delivered_seconds - asked)
    return abs(len(sample.waveform) / rate - asked)
