"""Cuts between the shots of a video.

Every frame is compared with the one before it by the mean change of hue,
saturation and brightness, and a cut is a change that also stands out from those
around it. These are the measure and the rule of PySceneDetect's ContentDetector
and AdaptiveDetector (https://www.scenedetect.com, BSD-3-Clause), written anew:
hue is an angle, which the package compares as a number, and nothing is rounded to
8 bits. On joined clips the package finds three times as many cuts that are not
there (`benchmarks/cuts.py`).
"""

from collections.abc import Sequence

import numpy as np

_LEAST = 15.0  # change of the mean of hue, saturation and brightness
_RATIO = 3.0  # of a cut's change to the mean of those around it
_AROUND = 2  # frames before and after
SHORTEST = 0.6  # seconds, of a shot


def content(frames: np.ndarray) -> np.ndarray:
  """Measures how much each frame differs from the one before it.

  Args:
    frames: uint8 [n h w 3], of any small size.

  Returns:
    float32 [n - 1], 0 to 255.
  """
  pixels = _hsv(frames)
  change = np.abs(np.diff(pixels, axis=0))
  # Hue is an angle of 180 steps.
  change[..., 0] = np.minimum(change[..., 0], 180 - change[..., 0])
  return change.mean(axis=(1, 2, 3))


def cuts(
  contents: Sequence[float], times: Sequence[float], end: float
) -> list[float]:
  """Finds the times of the first frames of shots, but for the first shot.

  Args:
    contents: change of each frame, [n - 1]; see `content`.
    times: time of each frame in seconds, [n].
    end: length of the video in seconds.
  """
  contents, found, last = np.asarray(contents, np.float64), [], 0.0
  for i in np.flatnonzero(contents >= _LEAST):
    around = [*contents[max(i - _AROUND, 0) : i], *contents[i + 1 :][:_AROUND]]
    time = float(times[i + 1])
    stands_out = not around or contents[i] >= _RATIO * max(
      np.mean(around), 1e-3
    )
    long = time - last >= SHORTEST and end - time >= SHORTEST
    if stands_out and long:
      found.append(time)
      last = time
  return found


def _hsv(frames: np.ndarray) -> np.ndarray:
  """Returns hue 0 to 180, saturation and value 0 to 255, float32."""
  rgb = frames.astype(np.float32)
  value, low = rgb.max(axis=-1), rgb.min(axis=-1)
  span = value - low
  safe = np.maximum(span, 1e-6)
  r, g, b = np.moveaxis(rgb, -1, 0)
  hue = np.where(
    value == r,
    (g - b) / safe,
    np.where(value == g, 2 + (b - r) / safe, 4 + (r - g) / safe),
  )
  hue = np.where(span > 0, hue % 6 * 30, 0)
  return np.stack([hue, 255 * span / np.maximum(value, 1e-6), value], axis=-1)
