"""The new sound together with the sound that the video has."""

import numpy as np
from scipy import ndimage

MODES = ("", "mix", "duck")
_FRAME = 0.02  # seconds, of the level that is looked at
_QUIET = 20.0  # dB below the loud parts; above, the original is heard
_SILENT = -55.0  # dBFS; nothing below is heard
_HOLD = 0.3  # seconds for which the new sound stays down around the original
_FADE = 0.2  # seconds to go down and come back


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
  channels = max(new.shape[1], original.shape[1])
  widened = lambda x: np.broadcast_to(x, (len(x), channels))
  below = widened(original[: len(new)]) * 10 ** (original_level / 20)
  below = np.pad(below, ((0, len(new) - len(below)), (0, 0)))
  above = widened(new)
  if mode == "duck":
    down = 1 - 10 ** (-duck / 20)
    above = above * (1 - down * _heard(below, sample_rate))[:, None]
  return (above + below).astype(np.float32)


def _heard(samples: np.ndarray, sample_rate: int) -> np.ndarray:
  """Says when a sound [t channels] is heard: 0 to 1 [t], with fades."""
  hop = max(round(_FRAME * sample_rate), 1)
  power = np.square(samples, dtype=np.float64).mean(axis=1)
  frames = np.pad(power, (0, -len(power) % hop)).reshape(-1, hop).mean(axis=1)
  decibels = 10 * np.log10(frames + 1e-12)
  loud = np.percentile(decibels, 95) if len(decibels) else _SILENT
  heard = decibels > max(loud - _QUIET, _SILENT)
  steps = lambda seconds: 2 * round(seconds / _FRAME) + 1
  held = ndimage.maximum_filter1d(heard.astype(np.float64), steps(_HOLD))
  window = np.hanning(steps(_FADE) + 2)[1:-1]
  faded = ndimage.convolve1d(held, window / window.sum(), mode="nearest")
  centres = (np.arange(len(faded)) + 0.5) * hop
  return np.interp(np.arange(len(samples)), centres, faded)
