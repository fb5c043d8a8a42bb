"""What can be measured of a picture without a network.

Frames are looked at eight times a second, in grey, 64 pixels wide and high.

  still    share of the time in which no part of the picture changes: the mean
           of none of 8 x 8 blocks by more than 2 of 255 levels. Codecs change
           a still picture by less, a small thing that moves by more
  motion   mean change of a pixel from one of these frames to the next, in
           levels of 255, cuts left out
  shots    number of shots: cuts change the picture by over 25 levels, and five
           times as much as the frames around them
"""

import numpy as np

FPS, SIDE = 8.0, 64
_BLOCKS = 8
_STILL, _CUT, _CUT_RATIO = 2.0, 25.0, 5.0
_LUMA = np.array((0.299, 0.587, 0.114), np.float32)  # ITU-R BT.601


def grey(frames: np.ndarray) -> np.ndarray:
  """Converts frames, uint8 [n h w 3], to grey, float32 [n h w] in 0..255."""
  return frames.astype(np.float32) @ _LUMA


def measure(frames: np.ndarray) -> dict[str, float]:
  """Measures grey frames, float [n SIDE SIDE], at `FPS`."""
  if len(frames) < 2:
    return {"still": 1.0, "motion": 0.0, "shots": float(len(frames))}
  size = SIDE // _BLOCKS
  blocks = frames.reshape(-1, _BLOCKS, size, _BLOCKS, size).mean((2, 4))
  moved = np.abs(np.diff(blocks, axis=0)).max((1, 2))
  changed = np.abs(np.diff(frames, axis=0)).mean((1, 2))
  around = (
    np.pad(changed, 2, mode="reflect")
    if len(changed) > 2
    else (np.pad(changed, 2))
  )
  beside = np.stack([around[i : i + len(changed)] for i in (0, 1, 3, 4)])
  cuts = (changed > _CUT) & (changed > _CUT_RATIO * np.median(beside, axis=0))
  within = changed[~cuts]
  return {
    "still": float((moved < _STILL).mean()),
    "motion": float(within.mean()) if len(within) else 0.0,
    "shots": float(1 + cuts.sum()),
  }
