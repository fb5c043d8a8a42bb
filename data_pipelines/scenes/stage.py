"""Input (`Stage`) and output (`Take`) of an action, and helpers for actions."""

from collections.abc import Callable, Iterable
import dataclasses

import numpy as np

from data_pipelines.scenes import physics, render, synthesis

Array = np.ndarray


@dataclasses.dataclass(frozen=True)
class Event:
  """Cause of a sound.

  Attributes:
    time: start of the sound, seconds from the start of the clip.
    kind: what happens, such as `strike` or `word`.
    material: material of the object, or `voice`, `water`, `air`.
    on_screen: whether the picture shows it.
    strength: 0..1; see `loudness`.
  """

  time: float
  kind: str
  material: str
  on_screen: bool = True
  strength: float = 1.0

  @classmethod
  def series(cls, times, strengths, kind: str, material) -> list["Event"]:
    """Returns on-screen events; `material` is one name, or one of each."""
    materials = np.broadcast_to(material, len(times))
    return [
      cls(float(time), kind, str(name), True, float(strength))
      for time, strength, name in zip(times, strengths, materials)
    ]


@dataclasses.dataclass(frozen=True)
class Stage:
  """The clip that an action fills with shapes, sound and events.

  Attributes:
    rng: random numbers; no more and no fewer may be drawn at another frame
      rate or picture size.
    times: [n], times of the frames, seconds.
    seconds: duration of the clip.
    rate: sample rate in Hz.
    samples: length of the sound.
    light: whether the background is bright rather than dark.
    floor: y of the upper edge of the floor, picture widths.
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
    """Colour of outlines, in contrast to the background."""
    return (0.05, 0.05, 0.08) if self.light else (0.95, 0.95, 0.9)

  def choose(self, *names: str) -> synthesis.Material:
    """Draws one of the named materials."""
    return synthesis.MATERIALS[str(self.rng.choice(names))]

  def hits(
    self, low: int, high: int, *, gap: float = 0.32, first: float = 0.3
  ) -> tuple[Array, Array]:
    """Draws irregular times [k] and strengths [k] in 0.5..1 of hits.

    There are `low` to `high` in 4 seconds, at least `gap` seconds apart, the
    earliest at `first` seconds or 30 % of the clip.
    """
    draw = int(self.rng.integers(low, high + 1))
    count = max(1, round(draw * self.seconds / 4))
    first, last = min(first, 0.3 * self.seconds), self.seconds - 0.15
    times = physics.irregular_times(
      self.rng, count, first=first, last=last, gap=gap
    )
    return times, self.rng.uniform(0.5, 1.0, len(times))

  def track(self, times, strengths, sounds: Iterable[Array]) -> Array:
    """Returns a sound [samples] made of k sounds with peaks `strengths`.

    They start at `times` (seconds) and are as loud as `loudness` says; a
    generator of sounds may draw from `rng` as it goes.
    """
    audio = np.zeros(self.samples)
    for time, strength, sound in zip(times, strengths, sounds):
      gain = loudness(strength) / strength
      synthesis.place(audio, sound, time, rate=self.rate, gain=gain)
    return audio

  def struck(
    self,
    hits: Array,
    power: Array,
    material: synthesis.Material,
    size: float,
    *,
    damping: float = 1.0,
  ) -> Array:
    """Synthesises hits on an object; see `track` and `synthesis.strike`."""
    sounds = (
      synthesis.strike(
        self.rng, material, size, strength=p, rate=self.rate, damping=damping
      )
      for p in power
    )
    return self.track(hits, power, sounds)

  def surface(self, material: synthesis.Material) -> render.Surface:
    """Returns a material's surface, its colour varied by up to 12 %."""
    colour = np.asarray(material.colour) * self.rng.uniform(0.88, 1.12, 3)
    colour = tuple(np.clip(colour, 0, 1))
    alpha = 0.8 if material.name == "glass" else 1.0
    return render.Surface(colour, material.name, alpha, self.ink)

  def paint(
    self, low: float = 0.25, high: float = 0.95, *, outline: bool = True
  ) -> render.Surface:
    """Returns a plain surface of a random saturated colour.

    Red, green and blue are drawn from [low, high]; then one is dimmed.
    """
    colour = self.rng.uniform(low, high, 3)
    colour[self.rng.integers(3)] *= 0.4
    return render.Surface(tuple(colour), outline=self.ink if outline else None)


@dataclasses.dataclass(frozen=True)
class Take:
  """Picture, sound and annotation of an action.

  Attributes:
    shapes: from back to front.
    audio: mono [samples]; `make_scene` limits its peak.
    events: causes of the sounds, in any order.
    caption: description of the picture.
    audio_caption: description of the sound.
    tags: kinds of sound, of `speech`, `music` and `effects`.
    words: (word, start, end) of the speech, in seconds.
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
  """An entry of the table of actions.

  Attributes:
    name: label of its scenes.
    play: draws and synthesises the action for a stage.
    discrete: whether its sound is a sequence of separate onsets, which onset
      detection can be measured on.
  """

  name: str
  play: Callable[[Stage], Take]
  discrete: bool


def loudness(strength: float) -> float:
  """Returns the peak amplitude of a sound of strength 0..1."""
  return 0.7 * strength**1.3


def counted(number: int, singular: str, plural: str | None = None) -> str:
  """Writes a number and its noun: 'one hit', 'three hits', '12 hits'."""
  names = "no one two three four five six seven eight nine ten".split()
  word = names[number] if number < len(names) else str(number)
  noun = singular if number == 1 else plural or singular + "s"
  return f"{word} {noun}"
