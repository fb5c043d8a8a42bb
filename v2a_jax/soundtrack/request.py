"""A request for soundtracks: the arguments of a `Soundtracker`."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from v2a_jax.basics.settings import SettingError, check, choose
from v2a_jax.batch import ABSENT, PRESENCE, PRESENT, UNKNOWN

MAX_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
  """A request for soundtracks; the same names as on the command line.

  Attributes:
    prompt: description of the sound; "" leaves it to the picture.
    negative_prompt: description of sound that should be absent.
    transcript: words to be spoken; "" asks for no speech, by the presence flag
      that tagged data without speech carries (`schema.presence`).
    speech: whether there is speech; None follows the transcript.
    music: whether there is music; None for either.
    effects: whether there are sound effects; None for either.
    num_candidates: number of soundtracks to make, at most 1,024.
    seed: random seed of the first candidate, 0 to 2^32 - 1; candidate i has
      seed + i.
    duration: seconds of the video to score, from its start; None for all.
    audio: file with sound to keep; the rest of the video's length, and the
      spans in `regenerate`, are generated to fit. "" for none.
    regenerate: (start, end) pairs in seconds, spans of `audio` to replace.
    audio_track: number of the sound track in `audio`, from 0; None for the main
      one.
    sampler: other values for fields of the sampler, such as {"num_steps": 50}
      or {"guidance": {"video": 3.0}}.
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
  audio_track: int | None = None
  sampler: Any = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    check(
      self,
      num_candidates="[1, 1024]",
      seed="[0, 4294967295]",
      duration="(0, inf)",
      audio_track="[0, inf)",
    )
    yes_or_no = (None, False, True)
    choose(self, speech=yes_or_no, music=yes_or_no, effects=yes_or_no)
    last = self.seed + self.num_candidates - 1
    if last > MAX_SEED:
      raise SettingError(
        f"seed={self.seed} with {self.num_candidates} candidates needs seeds up"
        f" to {last}, the largest is {MAX_SEED}"
      )
    if self.regenerate and not self.audio:
      raise SettingError(
        "regenerate needs the sound that it is a part of: audio"
      )
    if self.audio_track is not None and not self.audio:
      raise SettingError(
        f"audio_track={self.audio_track} is a track of the sound to keep: it"
        " needs audio, or regenerate for the video's own"
      )
    check(self, regenerate="[0, inf)")
    for span in self.regenerate:
      if not isinstance(span, tuple | list) or len(span) != 2:
        raise SettingError(f"regenerate={span!r} is not a pair of seconds")
      start, end = span
      if not start < end:
        raise SettingError(
          f"regenerate={start}-{end} is not a span in seconds: start < end"
        )
    if not (isinstance(self.sampler, Mapping) or callable(self.sampler)):
      raise SettingError(f"sampler={self.sampler!r} is not a section")

  @property
  def presence(self) -> np.ndarray:
    """int32 [3], of `PRESENCE`."""
    speech = (
      bool(self.transcript.strip()) if self.speech is None else self.speech
    )
    flags = {"speech": speech, "music": self.music, "effects": self.effects}
    value = {None: UNKNOWN, False: ABSENT, True: PRESENT}
    return np.array([value[flags[name]] for name in PRESENCE], np.int32)
