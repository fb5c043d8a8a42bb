"""Time codes of SMPTE ST 12-1: hours, minutes, seconds and frames of a day.

At 29.97 and 59.94 frames a second, drop-frame code (a semicolon before the
frames) leaves out the first 2 or 4 numbers of every minute but each tenth, so
that it keeps up with the clock.
"""

import dataclasses
from fractions import Fraction
import re

_FORM = re.compile(r"(\d{1,2}):(\d{2}):(\d{2})([:;.])(\d{2,3})")
_MAX_DENOMINATOR = 1001  # of frame rates, such as 30000/1001


@dataclasses.dataclass(frozen=True)
class Timecode:
  """A place in a day of frames.

  Attributes:
    frames: number of frames since 00:00:00:00.
    rate: frames a second.
    drop: whether it is written as drop-frame code.
  """

  frames: int
  rate: Fraction
  drop: bool = False

  @classmethod
  def parse(cls, text: str, fps: float) -> "Timecode":
    """Reads a code such as 01:00:00:00 of a video with `fps` frames a second.

    Raises:
      ValueError: it is no time code, or has frames that a second has not.
    """
    rate = frame_rate(fps)
    found = _FORM.fullmatch(text.strip())
    if not found:
      raise ValueError(f"{text!r} is no time code such as 01:00:00:00")
    hours, minutes, seconds, frames = (int(found[i]) for i in (1, 2, 3, 5))
    whole = round(rate)
    drop = found[4] != ":" and whole % 30 == 0 and rate.denominator != 1
    if frames >= whole or minutes > 59 or seconds > 59:
      raise ValueError(f"{text!r} is no time code of {float(rate):g} frames/s")
    count = ((hours * 60 + minutes) * 60 + seconds) * whole + frames
    if drop:
      passed = hours * 60 + minutes
      count -= (whole // 15) * (passed - passed // 10)
    return cls(count, rate, drop)

  @property
  def seconds(self) -> Fraction:
    """Seconds of real time since 00:00:00:00."""
    return self.frames / self.rate

  def plus(self, frames: int) -> "Timecode":
    """Returns the code so many frames later."""
    return dataclasses.replace(self, frames=self.frames + frames)

  def __str__(self) -> str:
    whole, count = round(self.rate), self.frames
    if self.drop:
      left_out = whole // 15
      tens, rest = divmod(count, whole * 600 - 9 * left_out)
      count += 9 * left_out * tens
      if rest >= whole * 60:
        later = (rest - whole * 60) // (whole * 60 - left_out) + 1
        count += left_out * later
    minutes, frames = divmod(count, whole * 60)
    hours, minutes = divmod(minutes, 60)
    seconds, frames = divmod(frames, whole)
    mark = ";" if self.drop else ":"
    return f"{hours % 24:02d}:{minutes:02d}:{seconds:02d}{mark}{frames:02d}"


def frame_rate(fps: float) -> Fraction:
  """Returns the exact rate of a measured one: 30000/1001 of 29.97003."""
  return Fraction(fps).limit_denominator(_MAX_DENOMINATOR)
