"""Error of a sound's level.

Levels are RMS over the clip and all channels, in dB relative to full scale: a
sine of amplitude 1 has -3.01 dBFS.
"""

import numpy as np

from v2a_jax.evaluation.metrics import base

SILENT_DBFS = -60.0
_FLOOR = 1e-6  # -120 dBFS, the level of digital silence


class LevelError(base.ClipMetric):
  """Distance of the RMS level from the true sound's, dB."""

  id = "level_error"
  label = "Level error"
  unit = "dB"
  bounds = (0.0, np.inf)
  direction = "lower"
  role = "sanity"
  about = "Mean distance of the RMS level from that of the true sound."

  def get_state(self, sample: base.Sample) -> float:
    return level_error(sample.waveform, sample.truth.waveform)


def level_dbfs(waveform: np.ndarray) -> float:
  """Returns the RMS level of [samples, channels], at least -120 dBFS."""
  if not waveform.size:
    return 20 * np.log10(_FLOOR)
  rms = np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))
  return float(20 * np.log10(max(rms, _FLOOR)))


def level_error(waveform: np.ndarray, true: np.ndarray) -> float:
  """Returns the distance between two levels in dB, those under -60 as -60."""
  levels = [max(level_dbfs(w), SILENT_DBFS) for w in (waveform, true)]
  return abs(levels[0] - levels[1])
