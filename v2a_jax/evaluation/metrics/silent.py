"""Share of silent clips."""

from v2a_jax.evaluation import intervals
from v2a_jax.evaluation.metrics import base
from v2a_jax.evaluation.metrics.level_error import SILENT_DBFS, level_dbfs


class SilentClips(base.ClipMetric):
  """Share of clips under -60 dBFS."""

  id = "silent"
  label = "Silent clips"
  bounds = (0.0, 1.0)
  direction = "lower"
  role = "sanity"
  about = "Share of clips quieter than -60 dBFS (RMS)."

  def get_state(self, sample: base.Sample) -> bool:
    return level_dbfs(sample.waveform) < SILENT_DBFS

  def compute(self, states, *, seed=0) -> intervals.Estimate:
    return intervals.share(states)
