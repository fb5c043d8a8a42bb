"""Input (`Stage`) and output (`Take`) of an action, and helpers for actions."""

from collections.abc import Callable
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

  def silence(self) -> Array:
    """Returns zeros [samples] to add sounds to."""
    return np.zeros(self.samples)

  def sample_times(self) -> Array:
    """Returns the time of every sample [samples] in seconds."""
    return np.arange(self.samples) / self.rate

  def choose(self, *names: str) -> synthesis.Material:
    """Draws one of the named materials."""
    return synthesis.MATERIALS[str(self.rng.choice(names))]

  def hits(
    self, low: int, high: int, *, gap: float = 0.32, first: float = 0.3
  ) -> tuple[Array, Array]:
    """Draws irregular times [k] and strengths [k] in 0.5..1 of hits.

    Args:
      low: smallest number of hits in 4 seconds.
      high: largest number of hits in 4 seconds.
      gap: smallest distance of two hits, seconds.
      first: earliest hit in seconds; at most 30 % into the clip.
    """
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

  def surface(self, material: synthesis.Material) -> render.Surface:
    """Returns a material's surface, its colour varied by up to 12 %."""
    colour = np.clip(
      np.asarray(material.colour) * self.rng.uniform(0.88, 1.12, 3), 0, 1
    )
    alpha = 0.8 if material.texture == "glass" else 1.0
    return render.Surface(
      tuple(colour), material.texture, alpha=alpha, outline=self.ink
    )

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


def hits_sound(
  stage: Stage,
  hits: Array,
  power: Array,
  material: synthesis.Material,
  size: float,
  *,
  damping: float = 1.0,
) -> Array:
  """Synthesises hits on an object.

  Args:
    stage: clip and random numbers.
    hits: times [k], seconds.
    power: strengths [k] in 0..1.
    material: material of the object.
    size: 0 (small, high-pitched) to 1 (large, low-pitched).
    damping: divides the decay times of the modes.

  Returns:
    float [samples].
  """
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
  """Returns an on-screen event for each time [k] and strength [k]."""
  return [
    Event(float(time), kind, material, True, float(strength))
    for time, strength in zip(hits, power)
  ]
