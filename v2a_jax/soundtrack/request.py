"""What can be asked of a soundtrack: the arguments of a `Soundtracker`."""

import dataclasses
from typing import Any

import numpy as np

from v2a_jax.batch import ABSENT, PRESENCE, PRESENT, UNKNOWN


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
  """What is asked of a soundtrack; the same names as on the command line.

  Attributes:
    prompt: what should be heard; "" leaves it to the picture.
    negative_prompt: what should not be heard.
    transcript: what should be said; "" asks for no speech, by the presence
      flag that tagged data without speech carries (`schema.presence`).
    speech: True, False, or None to follow the transcript.
    music: True, False or None for either.
    effects: True, False or None for either.
    num_candidates: soundtracks to make.
    seed: of the first candidate; candidate i has seed + i.
    duration: seconds of the video to score, from its start; None for all.
    audio: a file with sound to keep; what is missing to the video's length,
      and what `regenerate` names, is made to fit. "" starts from nothing.
    regenerate: (start, end) pairs in seconds, of `audio` to be made anew.
    sampler: overrides of the sampler's fields, such as {"num_steps": 50} or
      {"guidance": {"video": 3.0}}.
  """

  prompt: str = ""
  negative_prompt: str = ""
  transcript: str = ""
  speech: bool | None = None
  music: bool | None = None
  effects: bool | None = None
  num_candidates: int = 4
  seed: int = 0
  duration: float | None = None
  audio: str = ""
  regenerate: tuple[tuple[float, float], ...] = ()
  sampler: Any = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if self.num_candidates < 1:
      raise ValueError(
        f"num_candidates is {self.num_candidates}; ask for at least 1"
      )
    if self.duration is not None and self.duration <= 0:
      raise ValueError(f"duration is {self.duration} s; it must be positive")
    if self.regenerate and not self.audio:
      raise ValueError("regenerate: name the sound it is a part of, as audio")
    for start, end in self.regenerate:
      if not 0 <= start < end:
        raise ValueError(
          f"regenerate: {start} to {end} s is no span; give start < end"
        )

  @property
  def presence(self) -> np.ndarray:
    """int32 [3], of `PRESENCE`."""
    speech = (
      bool(self.transcript.strip()) if self.speech is None else self.speech
    )
    flags = {"speech": speech, "music": self.music, "effects": self.effects}
    value = {None: UNKNOWN, False: ABSENT, True: PRESENT}
    return np.array([value[flags[name]] for name in PRESENCE], np.int32)
