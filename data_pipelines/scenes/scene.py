"""Scenes: an endless, deterministic supply of clips whose truth is known.

  make_scene(seed) draws an action, plays it, adds what is not the point of the
  scene (a silent thing that moves, a quiet sound from off screen), and renders.

Everything is drawn from the seed, in streams of their own for the action, the
surroundings and the background noise; so the events of a scene are the same at
any frame rate, picture size or sample rate.
"""

import dataclasses

import numpy as np

from data_pipelines.scenes import impacts, motions, people, render, surroundings
from data_pipelines.scenes.stage import Action, Event, Stage, Take

Array = np.ndarray

ACTIONS: dict[str, Action] = {
  action.name: action
  for action in (
    Action("strike", impacts.strike, discrete=True),
    Action("drum", impacts.drum, discrete=True),
    Action("bounce", impacts.bounce, discrete=True),
    Action("collide", impacts.collide, discrete=True),
    Action("clap", people.clap, discrete=True),
    Action("walk", people.walk, discrete=True),
    Action("drip", impacts.drip, discrete=True),
    Action("roll", motions.roll, discrete=True),
    Action("spin", motions.spin, discrete=True),
    Action("saw", motions.saw, discrete=True),
    Action("shake", motions.shake, discrete=True),
    Action("pluck", motions.pluck, discrete=True),
    Action("pour", motions.pour, discrete=False),
    Action("talk", people.talk, discrete=False),
  )
}

# A face speaks in every sixth scene; the others share the rest equally.
_TALK_SHARE = 1 / 6
PEAK = 10 ** (-1.5 / 20)
_FLOOR_DBFS = (-72.0, -62.0)


@dataclasses.dataclass(frozen=True)
class Scene:
  """A clip and the truth about it.

  Attributes:
    frames: uint8 [n, h, w, 3]. frame_times: float32 [n], seconds, i / fps.
    audio: float32 [t, 1], peak at most -1 dBFS. sample_rate: Hz. fps: Hz.
    events: in order of time. caption: what is seen, audio_caption: heard.
    transcript: the words, '' without speech. words: (word, start, end).
    tags: of 'speech', 'music', 'effects'. label: the action. seed: of it all.
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
    return len(self.audio) / self.sample_rate


def make_scene(
  seed: int,
  *,
  seconds: float = 4.0,
  fps: float = 25,
  size: int = 64,
  sample_rate: int = 16000,
  action: str | None = None,
) -> Scene:
  """Render the scene of a seed.

  Args:
    seed: any non-negative integer; the same seed gives the same bytes.
    seconds: length, at least 2. fps: frames a second. size: pixels, square.
    sample_rate: Hz. action: a name of `ACTIONS`; by default the seed decides.

  Raises:
    ValueError: for an unknown action or a clip shorter than 2 s.
  """
  if action is not None and action not in ACTIONS:
    raise ValueError(
      f"scenes: no action {action!r}; choose from {', '.join(ACTIONS)}"
    )
  if seconds < 2:
    raise ValueError(f"scenes: seconds is {seconds}; a scene needs at least 2")
  streams = np.random.SeedSequence([seed, 0x5CE7E]).spawn(4)
  plan, play, around, noise = (np.random.default_rng(s) for s in streams)
  light = bool(plan.random() < 0.5)
  floor = float(plan.uniform(0.82, 0.88))
  drawn = _draw_action(plan)
  name = action or drawn
  frames, samples = round(seconds * fps), round(seconds * sample_rate)
  times = np.arange(frames) / fps
  stage = Stage(play, times, seconds, sample_rate, samples, light, floor)
  take = ACTIONS[name].play(stage)
  stage = dataclasses.replace(stage, rng=around)
  wall = render.backdrop(around, size, light=light, floor=floor)
  take = surroundings.add(stage, take)
  return Scene(
    frames=render.render(take.shapes, wall, frames=frames),
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


def _draw_action(rng: np.random.Generator) -> str:
  others = [name for name in ACTIONS if name != "talk"]
  speaks, pick = rng.random() < _TALK_SHARE, str(rng.choice(others))
  return "talk" if speaks else pick


def _finish(rng: np.random.Generator, audio: Array) -> Array:
  """Add a noise floor and keep the peak under `PEAK`: float32 [t, 1]."""
  level = 10 ** (rng.uniform(*_FLOOR_DBFS) / 20)
  audio = audio + level * rng.standard_normal(len(audio))
  audio = audio * min(1.0, PEAK / np.abs(audio).max())
  return audio.astype(np.float32)[:, None]


__all__ = ["ACTIONS", "Action", "Event", "Scene", "Take", "make_scene"]
