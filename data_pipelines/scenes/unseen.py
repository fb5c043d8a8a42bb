"""Sounds that the picture does not show, in an order that only words tell."""

from collections.abc import Callable, Mapping

import numpy as np

from data_pipelines.scenes import synthesis
from data_pipelines.scenes.stage import Event, Stage, Take, loudness

Array = np.ndarray
Rng = np.random.Generator

_LEAST_GAP = 0.25  # Seconds between sounds of one thing.


def _struck(material: str, size: float) -> Callable[[Rng, float, int], Array]:
  def sound(rng: Rng, strength: float, rate: int) -> Array:
    body = synthesis.MATERIALS[material]
    return synthesis.strike(rng, body, size, strength=strength, rate=rate)

  return sound


# Things that are heard: noun, and one sound of (rng, strength, sample rate).
THINGS: Mapping[str, Callable[[Rng, float, int], Array]] = {
  "bell": _struck("metal", 0.7),
  "block": _struck("wood", 0.5),
  "cymbal": lambda rng, p, rate: synthesis.cymbal(rng, strength=p, rate=rate),
  "drum": lambda rng, p, rate: synthesis.drum(rng, 120, strength=p, rate=rate),
  "string": lambda rng, p, rate: synthesis.pluck(
    rng, 330, strength=p, rate=rate
  ),
}


def order(stage: Stage) -> Take:
  """Plays two things out of sight: one in the first half, one in the second.

  The picture is empty; which comes first stands in the captions alone.
  """
  rng = stage.rng
  first, then = (str(name) for name in rng.permutation(sorted(THINGS))[:2])
  audio, events = np.zeros(stage.samples), []
  half = stage.seconds / 2
  for start, name in ((0.0, first), (half, then)):
    time = start + rng.uniform(0.1, 0.35) * half
    for _ in range(int(rng.integers(1, 4))):
      strength = float(rng.uniform(0.6, 1.0))
      sound = THINGS[name](rng, strength, stage.rate)
      gain = loudness(strength) / strength
      synthesis.place(audio, sound, time, rate=stage.rate, gain=gain)
      events.append(Event(time, "sound", name, False, strength))
      time += _LEAST_GAP + rng.uniform(0.0, 0.1)
      if time > start + 0.75 * half:
        break
  return Take(
    [],
    audio,
    events,
    f"out of sight, first a {first}, then a {then}",
    f"first a {first}, then a {then}",
    ("effects",),
  )
