"""What can be measured of a sound without a network.

loudness   integrated loudness, LUFS (ITU-R BS.1770-4); at least -70
peak       largest sample, dBFS; at least -120
silence    share of the time, in blocks of 50 ms, under -60 dBFS (RMS)
clipping   share of the samples that pile up at a level: by how much the
           histogram of sizes rises above what it had at lower levels, from a
           fifth of the peak on. The larger, the rarer, unless a sound was cut
           off, also if it was made quieter and coded after that. 0 for a
           steady tone, whose samples pile up by nature
bandwidth  highest frequency within 60 dB of the strongest, Hz
cutoff     frequency at which the spectrum breaks off, by 30 dB or more within
           a third of an octave and for good, Hz; none where it fades. Sound
           that was recorded or coded at a lower rate has one.
"""

import numpy as np
from scipy import signal

from v2a_jax.media.levels import bandwidth, loudness

_BLOCK_SECONDS = 0.05
_SILENT = 1e-3  # RMS, -60 dBFS
_FLOOR = 1e-6
_BINS, _LOWEST_BIN = 50, 10
_TONE = 0.999  # share of the power in one line
_FRAME = 2048
# The cliff: its least height, and the highest level of what is above it.
_CLIFF_DB, _ABOVE_DB = 30.0, 15.0
_LOWEST_CLIFF_HZ, _HIGHEST_SHARE = 1000.0, 0.9  # of half the sample rate


def measure(waveform: np.ndarray, sample_rate: int) -> dict[str, float | None]:
  """Measures a sound, float [samples, channels] in [-1, 1]."""
  peak = float(np.abs(waveform).max(initial=0.0))
  return {
    "loudness": loudness(waveform, sample_rate),
    "peak": 20 * float(np.log10(max(peak, _FLOOR))),
    "silence": silence(waveform, sample_rate),
    "clipping": clipping(waveform),
    "bandwidth": bandwidth(waveform, sample_rate) if len(waveform) else None,
    "cutoff": cutoff(waveform, sample_rate),
  }


def silence(waveform: np.ndarray, sample_rate: int) -> float:
  """Returns the share of blocks of 50 ms that are silent; 1 for no samples."""
  size = max(round(_BLOCK_SECONDS * sample_rate), 1)
  power = np.square(waveform, dtype=np.float64).mean(axis=1)
  if not len(power):
    return 1.0
  starts = np.arange(0, len(power), size)
  counts = np.minimum(len(power) - starts, size)
  levels = np.add.reduceat(power, starts) / counts
  return float((levels < _SILENT**2).mean())


def clipping(waveform: np.ndarray) -> float:
  """Returns the share of samples that pile up at a level."""
  size = np.abs(waveform).ravel()
  peak = size.max(initial=0.0)
  if peak < _SILENT:
    return 0.0
  counts, _ = np.histogram(size, bins=_BINS, range=(0, peak))
  rise = counts - np.minimum.accumulate(counts)
  # Four standard deviations of a count are chance.
  rise = np.maximum(rise - 4 * np.sqrt(counts + 1), 0)[_LOWEST_BIN:].sum()
  return float(rise / size.size) if rise and not _is_tone(waveform) else 0.0


def _is_tone(waveform: np.ndarray) -> bool:
  """Says whether nearly all of a sound is in one line of its spectrum."""
  if len(waveform) < _FRAME:
    return False
  _, density = signal.welch(waveform.mean(axis=1), nperseg=_FRAME)
  top = int(density.argmax())
  return density[max(top - 3, 0) : top + 4].sum() > _TONE * density.sum()


def cutoff(waveform: np.ndarray, sample_rate: int) -> float | None:
  """Returns the frequency in Hz at which the spectrum breaks off, or None."""
  if len(waveform) < _FRAME or np.abs(waveform).max() < _SILENT:
    return None
  mono = waveform.mean(axis=1, dtype=np.float64)
  hz, density = signal.welch(mono, sample_rate, nperseg=_FRAME)
  level = 10 * np.log10(density + 1e-20)
  level = signal.medfilt(level, 9)
  highest = _HIGHEST_SHARE * sample_rate / 2
  best, found = _CLIFF_DB, None
  for at in np.flatnonzero((hz >= _LOWEST_CLIFF_HZ) & (hz <= highest)):
    low, high = np.searchsorted(hz, (hz[at] / 1.12, hz[at] * 1.12))
    width = at - low
    if not width or high + width > len(level):
      continue
    below = np.median(level[low:at])
    height = below - np.median(level[high : high + width])
    if height > best and level[high:].max() < below - _ABOVE_DB:
      best, found = height, float(hz[at])
  return found
