"""Conversion of decoded frames to upright RGB arrays.

A container may ask players to rotate or mirror the stored picture: by a 3 x 3
"display matrix" in 16.16 fixed point, whose upper left 2 x 2 maps stored
(x, y) to displayed (x', y'):

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
  """One of the eight orientations of a picture: a transpose, then flips."""

  transpose: bool = False
  flip_x: bool = False
  flip_y: bool = False

  @property
  def rotation(self) -> int:
    """Degrees clockwise; in a mirrored picture, those before mirroring."""
    if self.transpose:
      return 90 if self.flip_x else 270
    return 180 if self.flip_y else 0

  def size(self, height: int, width: int) -> tuple[int, int]:
    """Returns (height, width) after the transpose, which is its own inverse."""
    return (width, height) if self.transpose else (height, width)

  def turn(self, frame: np.ndarray) -> np.ndarray:
    """Returns a view of a stored frame [h, w, 3], upright."""
    if self.transpose:
      frame = frame.swapaxes(0, 1)
    if self.flip_x:
      frame = frame[:, ::-1]
    return frame[::-1] if self.flip_y else frame


_ROTATIONS = (  # by 0, 90, 180 and 270 degrees clockwise
  Orientation(),
  Orientation(transpose=True, flip_x=True),
  Orientation(flip_x=True, flip_y=True),
  Orientation(transpose=True, flip_y=True),
)


def orientation(frame: av.VideoFrame) -> Orientation:
  """Reads a frame's display matrix; angles are rounded to multiples of 90."""
  try:
    data = frame.side_data.get("DISPLAYMATRIX")
  except ValueError:  # PyAV does not know the kind of some side data
    return _ROTATIONS[round(-frame.rotation / 90) % 4]
  if data is None:
    return Orientation()
  a, b, _, c, d = np.frombuffer(bytes(data), "<i4")[:5].tolist()
  if abs(b) + abs(c) > abs(a) + abs(d):
    return Orientation(transpose=True, flip_x=c < 0, flip_y=b < 0)
  return Orientation(flip_x=a < 0, flip_y=d < 0)


def square_size(
  frame: av.VideoFrame, aspect: Fraction | None
) -> tuple[int, int]:
  """Returns (height, width) at which the stored pixels are square.

  `aspect` is width / height of a stored pixel; ignored if missing or not in
  [1/16, 16].
  """
  if not aspect or not Fraction(1, 16) <= aspect <= 16:
    return frame.height, frame.width
  return frame.height, max(round(frame.width * aspect), 1)


class Scaler:
  """Converts frames to RGB of one size; keeps swscale's context."""

  def __init__(self, height: int, width: int):
    self._height, self._width = height, width
    self._reformatter = VideoReformatter()

  def __call__(self, frame: av.VideoFrame) -> np.ndarray:
    """Returns uint8 [height, width, 3], area-averaged if the size changes.

    It is a view of FFmpeg's own memory, to be copied once, where it is needed.
    """
    (plane,) = self._reformatter.reformat(
      frame,
      width=self._width,
      height=self._height,
      format="rgb24",
      interpolation=Interpolation.AREA,
      threads=1,
    ).planes
    return np.ndarray(
      (self._height, self._width, 3),
      np.uint8,
      buffer=plane,
      strides=(plane.line_size, 3, 1),
    )
