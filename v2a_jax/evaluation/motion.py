"""Peaks of motion in a video, by optical flow.

They are strict local maxima, of at least 0.1 pixel, of the mean length of
Farneback's optical flow, as in https://github.com/guyyariv/TempoTokens, the
code of AV-Align (see metrics/av_align.py). Frames are taken at 25 Hz, the one
shown at each instant, and at most 128 pixels on the short side.
"""

import cv2
import numpy as np

from v2a_jax.evaluation import looks

FPS = 25.0
SHORT_SIDE = 128
_LEAST_FLOW = 0.1  # pixels per frame


def detect(video: bytes, *, seconds: float) -> np.ndarray:
  """Detects the times of a video's motion peaks, in seconds, ascending.

  Raises:
    MediaError: the video cannot be decoded.
  """
  return looks.read(video, [LOOK], seconds=seconds)[LOOK.name]


def _small(height: int, width: int) -> tuple[int, int]:
  scale = min(1.0, SHORT_SIDE / min(height, width))
  return round(height * scale), round(width * scale)


def flow(frames: np.ndarray, times: np.ndarray) -> np.ndarray:
  """Computes the mean length of the optical flow, pixels per frame, at 25 Hz.

  Args:
    frames: uint8 [n, h, w, 3].
    times: presentation times in seconds, [n], ascending.

  Returns:
    float64 [m]; value i belongs to i / 25 s. Value 0 repeats value 1, which
    is the flow from the first frame to the second.
  """
  if len(frames) < 2:
    return np.zeros(0)
  instants = np.arange(int(times[-1] * FPS + 1e-6) + 1) / FPS
  shown = np.searchsorted(times, instants + 1e-6, side="right") - 1
  grey = _grey(frames)
  lengths = np.zeros(len(instants))
  for i, (before, now) in enumerate(zip(shown, shown[1:]), start=1):
    if max(before, 0) != now:
      lengths[i] = _mean_flow(grey[max(before, 0)], grey[now])
  lengths[0] = lengths[1] if len(lengths) > 1 else 0.0
  return lengths


def _grey(frames: np.ndarray) -> list[np.ndarray]:
  """Converts frames to grey, at most `SHORT_SIDE` on the short side."""
  height, width = frames.shape[1:3]
  scale = min(1.0, SHORT_SIDE / min(height, width))
  size = (round(width * scale), round(height * scale))
  grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
  if scale < 1.0:
    grey = [cv2.resize(g, size, interpolation=cv2.INTER_AREA) for g in grey]
  return grey


def _mean_flow(before: np.ndarray, now: np.ndarray) -> float:
  field = cv2.calcOpticalFlowFarneback(
    *(before, now, None),
    pyr_scale=0.5,
    levels=3,
    winsize=15,
    iterations=3,
    poly_n=5,
    poly_sigma=1.2,
    flags=0,
  )
  return float(np.linalg.norm(field, axis=-1).mean())


def flow_peaks(lengths: np.ndarray) -> np.ndarray:
  """Returns the times of strict local maxima of `flow`, seconds."""
  if len(lengths) < 3:
    return np.zeros(0)
  middle = lengths[1:-1]
  peak = (middle > lengths[:-2]) & (middle > lengths[2:])
  return (np.flatnonzero(peak & (middle >= _LEAST_FLOW)) + 1) / FPS


# More frames than the flow is computed on would only cost time.
LOOK = looks.Look(
  "motion",
  2 * FPS,
  _small,
  lambda video, seconds: flow_peaks(flow(video.frames, video.times)),
)
