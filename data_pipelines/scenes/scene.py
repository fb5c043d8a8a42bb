"""Scenes: procedural clips with known event times, captions and words.

  make_scene(seed) draws an action, plays it, adds distractors (an object that
  moves silently, a quiet sound from off screen) and renders picture and sound.

Everything is drawn from the seed, in separate streams for the choice of the
action, the action, its surroundings and the background noise. A scene has the
same events, words and sound at any frame rate and picture size. Another sample
rate consumes other amounts of noise and may change what is drawn after it: the
second ball of `bounce`, colours, and the strength of off-screen sounds.
"""

import dataclasses

import numpy as np

from data_pipelines.scenes import (
  distractors,
  impacts,
  motions,
  people,
  render,
  unseen,
)
from data_pipelines.scenes.stage import Action, Event, Stage
from v2a_jax.basics import settings, text

Array = np.ndarray

_PLAYS = (
  impacts.strike, impacts.drum, impacts.bounce, impacts.collide, people.clap,
  people.walk, impacts.drip, motions.roll, motions.spin, motions.saw,
  motions.shake, motions.pluck, motions.pour, people.talk,
)  # fmt: skip
_LASTING = (motions.pour, people.talk)
ACTIONS = {
  play.__name__: Action(play.__name__, play, discrete=play not in _LASTING)
  for play in _PLAYS
}
# Played if asked for, or in a share of the scenes that is given.
ORDER = Action("order", unseen.order, discrete=True)
# Share of the scenes with a talking face; the other actions are equally likely.
_TALK_SHARE = 1 / 6
PEAK = 10 ** (-1.5 / 20)
_FLOOR_DBFS = (-72.0, -62.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Format:
  """Duration and resolution of a clip; see `make_scene`."""

  seconds: float
  fps: float
  size: int
  sample_rate: int

  def __post_init__(self):
    settings.check(self, seconds="[2, inf)", fps="[0.5, inf)")
    settings.check(self, size="[1, inf)", sample_rate="[8000, inf)")


@dataclasses.dataclass(frozen=True)
class Scene:
  """A clip with its annotation.

  Attributes:
    frames: uint8 [n, h, w, 3].
    frame_times: float32 [n], i / fps in seconds.
    audio: float32 [t, 1], peak at most -1.5 dBFS.
    sample_rate: sample rate in Hz.
    fps: frames per second.
    events: causes of the sounds, in order of time.
    caption: description of the picture.
    audio_caption: description of the sound.
    transcript: words of the speech, "" without speech.
    words: (word, start, end) of the speech, in seconds.
    tags: kinds of sound, of `speech`, `music` and `effects`, sorted.
    label: name of the action.
    seed: seed of the scene.
  """

  frames: Array
  frame_times: Array
  audio: Array
  sample_rate: int
  fps: float
  events: list[Event]
  caption: str
  audio_caption: str
  transcript: str
  words: list[tuple[str, float, float]]
  tags: list[str]
  label: str
  seed: int

  @property
  def seconds(self) -> float:
    """Duration of the sound in seconds."""
    return len(self.audio) / self.sample_rate


def make_scene(
  seed: int,
  *,
  seconds: float = 4.0,
  fps: float = 25,
  size: int = 64,
  sample_rate: int = 16000,
  action: str | None = None,
  ordered: float = 0.0,
) -> Scene:
  """Renders the scene of a seed; the same seed gives the same arrays.

  Args:
    seed: non-negative integer.
    seconds: duration, at least 2.
    fps: frames per second, at least 0.5.
    size: width and height in pixels.
    sample_rate: sample rate in Hz, at least 8000.
    action: name in `ACTIONS`, or `order`; by default the seed decides.
    ordered: probability in [0, 1] of `order`: two sounds out of sight, whose
      order only the captions tell.

  Raises:
    ValueError: the action is unknown or a number out of range.
  """
  actions = {**ACTIONS, ORDER.name: ORDER}
  if action is not None and action not in actions:
    near = text.did_you_mean(action, actions)
    raise ValueError(f"action={action!r} {text.one_of(actions)}{near}")
  _Format(seconds=seconds, fps=fps, size=size, sample_rate=sample_rate)
  streams = np.random.SeedSequence([seed, 0x5CE7E]).spawn(5)
  plan, play, around, noise, kind = (np.random.default_rng(s) for s in streams)
  light = bool(plan.random() < 0.5)
  floor = float(plan.uniform(0.82, 0.88))
  talks = plan.random() < _TALK_SHARE
  other = str(plan.choice([name for name in ACTIONS if name != "talk"]))
  name = action or ("talk" if talks else other)
  if not action and kind.random() < ordered:
    name = ORDER.name
  times = np.arange(round(seconds * fps)) / fps
  samples = round(seconds * sample_rate)
  stage = Stage(play, times, seconds, sample_rate, samples, light, floor)
  take = actions[name].play(stage)
  stage = dataclasses.replace(stage, rng=around)
  wall = render.backdrop(around, size, light=light, floor=floor)
  take = distractors.add(stage, take)
  return Scene(
    frames=render.render(take.shapes, wall, frames=len(times)),
    frame_times=times.astype(np.float32),
    audio=_finish(noise, take.audio),
    sample_rate=sample_rate,
    fps=fps,
    events=sorted(take.events, key=lambda event: event.time),
    caption=take.caption,
    audio_caption=take.audio_caption,
    transcript=" ".join(word for word, _, _ in take.words),
    words=list(take.words),
    tags=sorted(take.tags),
    label=name,
    seed=seed,
  )


def _finish(rng: np.random.Generator, audio: Array) -> Array:
  """Adds a noise floor and limits the peak to `PEAK`: float32 [t, 1]."""
  level = 10 ** (rng.uniform(*_FLOOR_DBFS) / 20)
  audio = audio + level * rng.standard_normal(len(audio))
  audio = audio * min(1.0, PEAK / np.abs(audio).max())
  return audio.astype(np.float32)[:, None]
