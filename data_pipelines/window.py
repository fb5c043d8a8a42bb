"""The shape of an example: a window of a record, sampled and cut to size."""

import dataclasses
import math

from v2a_jax.basics.settings import check

CROPS = ("random", "start")
# Intervals of the numbers of a `Window`; see `settings.check`.
RANGES = dict(
  seconds="(0, inf)",
  fps="(0, inf)",
  frame_size="[1, inf)",
  sample_rate="[1, inf)",
  channels="[1, 2]",
  prompt_length="[1, inf)",
  transcript_length="[1, inf)",
  features="[0, inf)",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
  """The shape of an example.

  Attributes:
    seconds: length of the window in seconds.
    fps: most frames a second; video of a lower rate keeps its own.
    frame_size: (height, width) in pixels to which frames are resized, whatever
      their aspect ratio.
    sample_rate: sample rate in Hz.
    channels: number of audio channels, 1 or 2.
    prompt_length: number of token ids of the caption.
    transcript_length: number of token ids of the spoken words.
    caption_fields: fields of the record that may serve as the prompt, in order
      of preference.
    features: size of a frame's cached features; 0 leaves them out.
    frames: whether frames are decoded.
    sound: whether sound is decoded.
  """

  seconds: float
  fps: float
  frame_size: tuple[int, int]
  sample_rate: int
  channels: int
  prompt_length: int
  transcript_length: int
  caption_fields: tuple[str, ...]
  features: int = 0
  frames: bool = True
  sound: bool = True

  def __post_init__(self):
    check(self, **RANGES)

  @property
  def num_frames(self) -> int:
    """Number of frames, those that are masked included."""
    return math.ceil(self.fps * self.seconds - 1e-6)

  @property
  def num_samples(self) -> int:
    """Number of audio samples."""
    return round(self.seconds * self.sample_rate)
