"""Share of silent clips."""

from v2a_jax.evaluation.metrics import base
from v2a_jax.evaluation.metrics.fault import Fault
from v2a_jax.evaluation.metrics.level_error import SILENT_DBFS, level_dbfs


class SilentClips(Fault):
  """Share of clips under -60 dBFS."""

  id = "silent"
  variant = "silent_where_truth_is_not"
  label = "Silent clips"
  chosen_by = ("quality",)
  about = (
    "Share of the clips quieter than -60 dBFS (RMS), of those whose true sound is"
    " not."
  )

  def has_fault(self, sample: base.Sample) -> bool:
    return level_dbfs(sample.waveform) < SILENT_DBFS
