"""The new sound together with the sound that the video has."""

import numpy as np
from scipy import ndimage

from v2a_jax.basics import scratch

MODES = ("", "mix", "duck")
_FRAME = 0.02  # seconds, of the level that is looked at
_QUIET = 20.0  # dB below the loud parts; above, the original is heard
_SILENT = -55.0  # dBFS; nothing below is heard
_HOLD = 0.3  # seconds for which the new sound stays down around the original
_FADE = 0.2  # seconds to go down and come back
_PIECE = 10  # seconds that are mixed at a time


def mix(
  new: np.ndarray,
  original: np.ndarray,
  sample_rate: int,
  *,
  mode: str,
  original_level: float = 0.0,
  duck: float = 12.0,
) -> np.ndarray:
  """Adds the original sound to a new one.

  Args:
    new: float32 [t channels].
    original: float32 [any channels]; trimmed, or followed by silence.
    sample_rate: sample rate of both in Hz.
    mode: "mix" for the sum, "duck" to turn the new sound down while the
      original is heard.
    original_level: change of the original's level in dB.
    duck: how far the new sound is turned down, in dB.

  Returns:
    float32 [t channels], of as many channels as the wider one has; a single
    channel is heard in all others at its own level.
  """
  out = scratch.empty((len(new), max(new.shape[1], original.shape[1])))
  original, level = original[: len(new)], 10 ** (original_level / 20)
  if mode == "duck":
    down = 1 - 10 ** (-duck / 20)
    heard = _heard(original, len(new), sample_rate, level)
  for begin in range(0, len(new), size := _PIECE * sample_rate):
    above, below = (x[begin : begin + size] for x in (new, original))
    if mode == "duck":
      times = np.arange(begin, begin + len(above))
      above = above * (1 - down * np.interp(times, *heard))[:, None]
    mixed = np.array(np.broadcast_to(above, (len(above), out.shape[1])))
    mixed[: len(below)] += below * level
    out[begin : begin + size] = mixed
  return out


def _heard(
  samples: np.ndarray, total: int, sample_rate: int, level: float
) -> tuple[np.ndarray, np.ndarray]:
  """Says when a sound is heard, with fades.

  Args:
    samples: the sound [t channels]; after it there is silence.
    total: number of samples with that silence.
    sample_rate: sample rate in Hz.
    level: factor of the samples.

  Returns:
    (samples, 0 to 1), places and how much is heard there.
  """
  hop = max(round(_FRAME * sample_rate), 1)
  power = np.zeros(-(-total // hop))
  for begin in range(0, len(samples), size := _PIECE * 50 * hop):
    part = samples[begin : begin + size] * level
    part = np.square(part, dtype=np.float64).mean(axis=1)
    part = np.pad(part, (0, -len(part) % hop)).reshape(-1, hop).mean(axis=1)
    power[begin // hop :][: len(part)] = part
  decibels = 10 * np.log10(power + 1e-12)
  loud = np.percentile(decibels, 95) if len(decibels) else _SILENT
  heard = decibels > max(loud - _QUIET, _SILENT)
  steps = lambda seconds: 2 * round(seconds / _FRAME) + 1
  held = ndimage.maximum_filter1d(heard.astype(np.float64), steps(_HOLD))
  window = np.hanning(steps(_FADE) + 2)[1:-1]
  faded = ndimage.convolve1d(held, window / window.sum(), mode="nearest")
  return (np.arange(len(faded)) + 0.5) * hop, faded
