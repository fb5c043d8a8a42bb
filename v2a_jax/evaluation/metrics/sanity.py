"""Plain faults of a sound, one number a clip.

Levels are RMS over the clip and all channels, in dB relative to full scale (a
sample of 1 throughout is 0 dBFS).
"""

import numpy as np

SILENT_DBFS = -60.0
_CLIPPED_SAMPLE = 0.999
_CLIPPED_SHARE = 1e-3
_FLOOR = 1e-6  # -120 dBFS, the level of digital silence


def level_dbfs(waveform: np.ndarray) -> float:
  """RMS level of [samples, channels]; -120 for digital silence."""
  if not waveform.size:
    return 20 * np.log10(_FLOOR)
  rms = np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))
  return float(20 * np.log10(max(rms, _FLOOR)))


def is_silent(waveform: np.ndarray) -> bool:
  """Whether it is quieter than -60 dBFS."""
  return level_dbfs(waveform) < SILENT_DBFS


def is_clipped(waveform: np.ndarray) -> bool:
  """Whether more than one sample in a thousand is at full scale."""
  if not waveform.size:
    return False
  return bool(np.mean(np.abs(waveform) >= _CLIPPED_SAMPLE) > _CLIPPED_SHARE)


def level_error(waveform: np.ndarray, true: np.ndarray) -> float:
  """Distance of its level from that of the true sound, dB.

  Levels below -60 dBFS count as -60, so that the depth of silence is no error.
  """
  levels = [max(level_dbfs(w), SILENT_DBFS) for w in (waveform, true)]
  return abs(levels[0] - levels[1])


def duration_error(waveform: np.ndarray, sample_rate: int, seconds: float):
  """Distance of its length from the one asked for, seconds."""
  return abs(len(waveform) / sample_rate - seconds)
