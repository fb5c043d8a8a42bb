"""From decoded frames to upright RGB arrays.

A container may ask for the stored picture to be turned or mirrored before it
is shown: a 3 x 3 "display matrix" in 16.16 fixed point, of which the upper
left 2 x 2 maps stored (x, y) to shown (x', y'):

  x' = a x + c y,   y' = b x + d y,   matrix = [a b u; c d v; tx ty w]

ISO/IEC 14496-12, 8.2.2 (the `tkhd` box).
"""

import dataclasses
from fractions import Fraction

import av
from av.video.reformatter import Interpolation, VideoReformatter
import numpy as np


@dataclasses.dataclass(frozen=True)
class Orientation:
  """One of the eight ways to lay a picture: transpose, then mirror."""

  transpose: bool = False
  flip_x: bool = False
  flip_y: bool = False

  @property
  def rotation(self) -> int:
    """Degrees clockwise; of a mirrored picture, the turn before mirroring."""
    if self.transpose:
      return 90 if self.flip_x else 270
    return 180 if self.flip_y else 0

  def size(self, height: int, width: int) -> tuple[int, int]:
    return (width, height) if self.transpose else (height, width)

  def apply(self, frames: np.ndarray) -> np.ndarray:
    """Turns [n, h, w, 3] upright."""
    if self.transpose:
      frames = frames.swapaxes(1, 2)
    if self.flip_x:
      frames = frames[:, :, ::-1]
    if self.flip_y:
      frames = frames[:, ::-1]
    return np.ascontiguousarray(frames)


_TURNS = (  # by quarter turns clockwise
  Orientation(),
  Orientation(transpose=True, flip_x=True),
  Orientation(flip_x=True, flip_y=True),
  Orientation(transpose=True, flip_y=True),
)


def orientation(frame: av.VideoFrame) -> Orientation:
  """Reads the display matrix; turns of other angles go to the nearest 90."""
  try:
    data = frame.side_data.get("DISPLAYMATRIX")
  except ValueError:  # side data of a kind that PyAV has no name for yet
    return _TURNS[round(-frame.rotation / 90) % 4]
  if data is None:
    return Orientation()
  a, b, _, c, d = np.frombuffer(bytes(data), "<i4")[:5].tolist()
  if abs(b) + abs(c) > abs(a) + abs(d):
    return Orientation(transpose=True, flip_x=c < 0, flip_y=b < 0)
  return Orientation(flip_x=a < 0, flip_y=d < 0)


def square_size(
  frame: av.VideoFrame, aspect: Fraction | None
) -> tuple[int, int]:
  """(height, width) of the stored picture once its pixels are square."""
  if not aspect or aspect <= 0 or not Fraction(1, 16) <= aspect <= 16:
    return frame.height, frame.width
  return frame.height, max(round(frame.width * aspect), 1)


class Scaler:
  """Turns frames into RGB of one size; keeps the swscale context between."""

  def __init__(self, height: int, width: int):
    self._height, self._width = height, width
    self._reformatter = VideoReformatter()

  def __call__(self, frame: av.VideoFrame) -> np.ndarray:
    """Returns uint8 [h, w, 3]; area-averaged when the size changes."""
    return self._reformatter.reformat(
      frame,
      width=self._width,
      height=self._height,
      format="rgb24",
      interpolation=Interpolation.AREA,
      threads=1,
    ).to_ndarray()
