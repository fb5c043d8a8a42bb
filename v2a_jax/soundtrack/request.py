"""A request for soundtracks: the arguments of a `Soundtracker`."""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

import numpy as np

from v2a_jax.basics.settings import SettingError, check, choose
from v2a_jax.basics.text import one_of
from v2a_jax.batch import ABSENT, PRESENCE, PRESENT, UNKNOWN
from v2a_jax.soundtrack.scoring import SCORES

MAX_SEED = 2**32 - 1
# Kinds of layers, and what the model is told is in them.
_ONLY = {"speech": False, "music": False, "effects": False}
LAYERS = {
  "effects": _ONLY | {"effects": True},
  "ambience": _ONLY | {"effects": True},
  "music": _ONLY | {"music": True},
  "speech": _ONLY | {"speech": True},
}
MAX_PROMPTS = 16  # of spans with a prompt of their own; each costs as a clip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
  """A request for soundtracks; the same names as on the command line.

  Attributes:
    prompt: description of the sound; "" leaves it to the picture.
    negative_prompt: description of sound that should be absent.
    transcript: words to be spoken; "" asks for no speech, by the presence flag
      that tagged data without speech carries (`schema.presence`).
    words: spoken words with their times, entries {"word", "start", "end"?} in
      seconds and in spoken order, in place of `transcript`.
    prompts: (start, end, text) triples, spans in seconds that `text` describes
      in place of `prompt`; later ones count where several overlap. A diffusion
      model follows them to a tenth of a second, others window by window.
    speech: whether there is speech; None follows the transcript.
    music: whether there is music; None for either.
    effects: whether there are sound effects; None for either.
    num_candidates: number of soundtracks to make, at most 1,024.
    seed: random seed of the first candidate, 0 to 2^32 - 1; candidate i has
      seed + i.
    duration: seconds of the video to score, from its start; None for all.
    shots: whether cuts in the picture are found, and the sound begins anew at
      each.
    audio: file with sound to keep; the rest of the video's length, and the
      spans in `regenerate`, are generated to fit. "" for none.
    regenerate: (start, end) pairs in seconds, spans of `audio` to replace.
    audio_track: number of the sound track in `audio`, from 0; None for the main
      one.
    layers: (kind, prompt) pairs, kinds of `LAYERS`, each once: parts that are
      made apart by these prompts alone, with no other kind in them, and added;
      stems are kept. Words are spoken in the layer `speech` alone. () makes
      everything at once.
    retries: how many times candidates in which unwanted speech or music is
      heard (`hearing.unwanted`) are made anew, with later seeds.
    like: file with a sound that candidates should be like; "" for none.
    like_strength: how much of a diffusion model's way is gone anew from the
      sound `like`, in (0, 1]: little keeps its course in time, 1 nothing. None
      uses it for the score `like` alone.
    rank_by: scores that rank candidates, of `scoring.SCORES`; by several, by the
      mean of their ranks.
    clap: folder of LAION's CLAP, or `hearing.clap.PUBLISHED`, for the score
      `prompt`; "" for none.
    sampler: other values for fields of the sampler, such as {"num_steps": 50}
      or {"guidance": {"video": 3.0}}.
  """

  prompt: str = ""
  negative_prompt: str = ""
  transcript: str = ""
  words: Any = ()
  prompts: Any = ()
  layers: Any = ()
  speech: bool | None = None
  music: bool | None = None
  effects: bool | None = None
  num_candidates: int = 4
  seed: int = 0
  duration: float | None = None
  shots: bool = False
  audio: str = ""
  regenerate: tuple[tuple[float, float], ...] = ()
  audio_track: int | None = None
  retries: int = 0
  like: str = ""
  like_strength: float | None = None
  rank_by: tuple[str, ...] = ("motion_onset",)
  clap: str = ""
  sampler: Any = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    check(
      self,
      num_candidates="[1, 1024]",
      seed="[0, 4294967295]",
      duration="(0, inf)",
      audio_track="[0, inf)",
      retries="[0, 100]",
      like_strength="(0, 1]",
    )
    yes_or_no = (None, False, True)
    choose(self, speech=yes_or_no, music=yes_or_no, effects=yes_or_no)
    choose(self, shots=(False, True))
    last = self.seed + self.num_candidates * (1 + self.retries) - 1
    if last > MAX_SEED:
      raise SettingError(
        f"seed={self.seed} with {self.num_candidates} candidates and"
        f" {self.retries} retries needs seeds up to {last}, the largest is"
        f" {MAX_SEED}"
      )
    self._check_words()
    self._check_prompts()
    self._check_layers()
    self._check_scores()
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

  def _check_words(self) -> None:
    if self.words and self.transcript:
      raise SettingError("words and transcript are both given: choose one")
    last = 0.0
    for entry in self.words:
      if not (
        isinstance(entry, Mapping)
        and isinstance(entry.get("word"), str)
        and isinstance(entry.get("start"), int | float)
        and isinstance(entry.get("end", 0.0), int | float | None)
      ):
        raise SettingError(
          f"words={entry!r} is not an entry such as"
          ' {"word": "hello", "start": 1.5}'
        )
      if not last <= entry["start"] < math.inf:
        raise SettingError(
          f"words: {entry['word']!r} starts at {entry['start']} s, before the"
          f" one before it, at {last} s"
        )
      last = entry["start"]

  def _check_prompts(self) -> None:
    if len(self.prompts) > MAX_PROMPTS:
      raise SettingError(
        f"prompts: {len(self.prompts)} spans, at most {MAX_PROMPTS}"
      )
    for span in self.prompts:
      if not isinstance(span, tuple | list) or len(span) != 3:
        raise SettingError(
          f"prompts={span!r} is not a start, an end and a text"
        )
      start, end, text = span
      numbers = all(isinstance(x, int | float) for x in (start, end))
      if not (numbers and 0 <= start < end and isinstance(text, str)):
        raise SettingError(
          f"prompts={span!r} is not a span in seconds, start < end, and a text"
        )

  def _check_layers(self) -> None:
    kinds = []
    for layer in self.layers:
      pair = isinstance(layer, tuple | list) and len(layer) == 2
      if not (pair and all(isinstance(part, str) for part in layer)):
        raise SettingError(f"layers={layer!r} is not a kind and a prompt")
      if layer[0] not in LAYERS:
        raise SettingError(f"layers={layer[0]!r} {one_of(LAYERS)}")
      kinds.append(layer[0])
    if len(set(kinds)) < len(kinds):
      raise SettingError(f"layers: {', '.join(kinds)}: each kind once")
    if self.layers and (self.audio or self.like_strength is not None):
      raise SettingError(
        "layers are made from nothing: without audio, regenerate, like_strength"
      )
    if self.layers and (self.prompt or self.prompts):
      raise SettingError("layers have prompts of their own: without prompt")
    if self.spoken and kinds and "speech" not in kinds:
      raise SettingError("words are spoken in the layer speech: add it")

  def layer(self, kind: str, prompt: str) -> "Request":
    """Returns the request for one layer alone."""
    none = {} if kind == "speech" else {"transcript": "", "words": ()}
    return dataclasses.replace(
      self,
      **{"prompt": prompt, "prompts": (), "layers": ()},
      **{"retries": 0, "like": "", "rank_by": ("motion_onset",)},
      **LAYERS[kind],
      **none,
    )

  def alone(self, seed: int) -> "Request":
    """Returns the request for the candidate of a seed alone.

    One has no rank: it is scored by the first of `rank_by`.
    """
    return dataclasses.replace(
      self, num_candidates=1, seed=seed, retries=0, rank_by=self.rank_by[:1]
    )

  def _check_scores(self) -> None:
    if not self.rank_by:
      raise SettingError("rank_by names no score")
    for name in self.rank_by:
      if name not in SCORES:
        raise SettingError(f"rank_by={name!r} {one_of(SCORES)}")
    if len(set(self.rank_by)) < len(self.rank_by):
      raise SettingError(f"rank_by={', '.join(self.rank_by)}: each score once")
    if "like" in self.rank_by and not self.like:
      raise SettingError("rank_by=like needs the sound to be like: like")
    if "prompt" in self.rank_by and not self.prompt:
      raise SettingError("rank_by=prompt needs the words to agree with: prompt")
    if "prompt" in self.rank_by and not self.clap:
      raise SettingError(
        "rank_by=prompt needs the folder of LAION's CLAP (config.json,"
        " model.safetensors, tokenizer.json): clap"
      )
    if self.like_strength is not None and not self.like:
      raise SettingError("like_strength needs the sound to begin from: like")
    if self.retries and not self.unwanted:
      raise SettingError(
        f"retries={self.retries} rejects nothing: speech and music are both"
        " allowed; say no to one"
      )

  @property
  def spoken(self) -> str:
    """The words to be spoken."""
    return self.transcript or " ".join(entry["word"] for entry in self.words)

  @property
  def score_name(self) -> str:
    """Name of what ranks candidates."""
    return "+".join(self.rank_by)

  @property
  def chosen_by(self) -> tuple[str, ...]:
    """Names of the scores that rank or reject candidates."""
    absent = [f"no_{name}" for name in self.unwanted if self.retries]
    return tuple(dict.fromkeys([*self.rank_by, *absent]))

  @property
  def unwanted(self) -> tuple[str, ...]:
    """What is asked to be absent, of speech and music."""
    flags = dict(zip(PRESENCE, self.presence))
    return tuple(k for k in ("speech", "music") if flags[k] == ABSENT)

  @property
  def presence(self) -> np.ndarray:
    """int32 [3], of `PRESENCE`."""
    speech = bool(self.spoken.strip()) if self.speech is None else self.speech
    flags = {"speech": speech, "music": self.music, "effects": self.effects}
    value = {None: UNKNOWN, False: ABSENT, True: PRESENT}
    return np.array([value[flags[name]] for name in PRESENCE], np.int32)
