"""What an action is given (`Stage`) and what it gives back (`Take`)."""

from collections.abc import Callable
import dataclasses

import numpy as np

from data_pipelines.scenes import physics, render, synthesis

Array = np.ndarray


@dataclasses.dataclass(frozen=True)
class Event:
  """A sound's cause: when (s), what kind, of what, seen or not, how strong."""

  time: float
  kind: str
  material: str
  on_screen: bool = True
  strength: float = 1.0


@dataclasses.dataclass(frozen=True)
class Stage:
  """The clip to fill.

  Attributes:
    rng: for what happens (never used for a number that depends on fps or size).
    times: [n] frame times in seconds.
    seconds: length. rate: Hz of the sound. samples: its length.
    light: the background is light. floor: y of the floor's edge.
  """

  rng: np.random.Generator
  times: Array
  seconds: float
  rate: int
  samples: int
  light: bool
  floor: float

  @property
  def ink(self) -> tuple[float, float, float]:
    """An outline that stands out against the background."""
    return (0.05, 0.05, 0.08) if self.light else (0.95, 0.95, 0.9)

  def silence(self) -> Array:
    return np.zeros(self.samples)

  def clock(self) -> Array:
    """The time of every sample [samples]."""
    return np.arange(self.samples) / self.rate

  def choose(self, *names: str) -> synthesis.Material:
    """One of the named materials."""
    return synthesis.MATERIALS[str(self.rng.choice(names))]

  def hits(
    self, low: int, high: int, *, gap: float = 0.32, first: float = 0.3
  ) -> tuple[Array, Array]:
    """Irregular times [k] and strengths [k], `low` to `high` of them in 4 s."""
    draw = int(self.rng.integers(low, high + 1))
    count = max(1, round(draw * self.seconds / 4))
    times = physics.irregular_times(
      self.rng,
      count,
      first=min(first, 0.3 * self.seconds),
      last=self.seconds - 0.15,
      gap=gap,
    )
    return times, self.rng.uniform(0.5, 1.0, len(times))

  def surface(self, material: synthesis.Material) -> render.Look:
    """A material's look, its colour a little different in each scene."""
    colour = np.clip(
      np.asarray(material.colour) * self.rng.uniform(0.88, 1.12, 3), 0, 1
    )
    alpha = 0.8 if material.texture == "glass" else 1.0
    return render.Look(
      tuple(colour), material.texture, alpha=alpha, outline=self.ink
    )

  def paint(
    self, low: float = 0.25, high: float = 0.95, *, outline: bool = True
  ) -> render.Look:
    """A plain surface of a random saturated colour."""
    colour = self.rng.uniform(low, high, 3)
    colour[self.rng.integers(3)] *= 0.4
    return render.Look(tuple(colour), outline=self.ink if outline else None)


@dataclasses.dataclass(frozen=True)
class Take:
  """What an action shows and sounds.

  Attributes:
    shapes: painted in order. audio: [samples], mono, about -3 dBFS at most.
    events: in any order. caption: what is seen. audio_caption: what is heard.
    tags: of 'speech', 'music', 'effects'. words: (word, start, end) spoken.
  """

  shapes: list[render.Shape]
  audio: Array
  events: list[Event]
  caption: str
  audio_caption: str
  tags: tuple[str, ...] = ("effects",)
  words: tuple[tuple[str, float, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Action:
  """An entry of the registry.

  Attributes:
    name: also the label of its scenes. play: fills a stage.
    discrete: its sound is a row of separate onsets (so that onset detection can
      be judged on it).
  """

  name: str
  play: Callable[[Stage], Take]
  discrete: bool


def loudness(strength: float) -> float:
  """Peak amplitude of a sound of a strength in 0..1."""
  return 0.7 * strength**1.3


def counted(number: int, singular: str, plural: str | None = None) -> str:
  """'one hit', 'three hits'."""
  names = "no one two three four five six seven eight nine ten".split()
  word = names[number] if number < len(names) else str(number)
  noun = singular if number == 1 else plural or singular + "s"
  return f"{word} {noun}"


def hits_sound(
  stage: Stage,
  hits: Array,
  power: Array,
  material: synthesis.Material,
  size: float,
  *,
  damping: float = 1.0,
) -> Array:
  """The sound [samples] of hits [k] of strengths [k] on an object."""
  audio = stage.silence()
  for time, strength in zip(hits, power):
    sound = synthesis.strike(
      stage.rng,
      material,
      size,
      strength=strength,
      rate=stage.rate,
      damping=damping,
    )
    gain = loudness(strength) / strength
    synthesis.place(audio, sound, time, rate=stage.rate, gain=gain)
  return audio


def hit_events(
  hits: Array, power: Array, kind: str, material: str
) -> list[Event]:
  """One event on screen for each hit."""
  return [
    Event(float(time), kind, material, True, float(strength))
    for time, strength in zip(hits, power)
  ]
