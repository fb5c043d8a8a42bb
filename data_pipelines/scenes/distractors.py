"""Distractors: an object that moves silently, a sound from off screen."""

import dataclasses

import numpy as np

from data_pipelines.scenes import synthesis
from data_pipelines.scenes.render import Shape, Surface, bar, disc
from data_pipelines.scenes.stage import Event, Stage, Take

MOVER_SHARE = 0.3
AMBIENCE_SHARE = 0.2
KNOCK_SHARE = 0.06


def add(stage: Stage, take: Take) -> Take:
  """Adds, with some probability, a silent object and an off-screen sound.

  A talking face gets no silent object.
  """
  draws = stage.rng.random(2)
  if draws[0] < MOVER_SHARE and "speech" not in take.tags:
    shapes, words = _mover(stage)
    take = dataclasses.replace(
      take,
      shapes=[*shapes, *take.shapes],
      caption=f"{take.caption}, {words}",
    )
  if draws[1] < AMBIENCE_SHARE:
    return _ambience(stage, take)
  if draws[1] < AMBIENCE_SHARE + KNOCK_SHARE:
    return _knock(stage, take)
  return take


def _mover(stage: Stage) -> tuple[list[Shape], str]:
  """Returns the shapes of a silent moving object, and words for the caption."""
  rng, t = stage.rng, stage.times
  surface = stage.paint(outline=False)
  phase, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.45)
  kind = str(rng.choice(["balloon", "cloud", "lamp"]))
  if kind == "lamp":
    pivot = rng.uniform(0.15, 0.85)
    swing = 0.6 * np.sin(2 * np.pi * speed * t + phase)
    x, y = pivot + 0.2 * np.sin(swing), 0.2 * np.cos(swing)
    cord = bar(pivot, 0.0, x, y, 0.008, Surface((0.5, 0.5, 0.5)))
    return [cord, disc(x, y, 0.05, surface)], "a lamp swings silently behind"
  if kind == "balloon":
    x = rng.uniform(0.1, 0.9) + 0.05 * np.sin(2 * np.pi * speed * t + phase)
    y = 0.9 - 0.25 * (t + rng.uniform(0, 2)) % 1.1
    balloon = Shape("ellipse", x, y, 0.06, 0.075, surface)
    return [balloon], "a balloon drifts behind"
  x = (phase + 0.15 * t) % 1.4 - 0.2
  white = Surface((0.8, 0.82, 0.85), alpha=0.6)
  return [
    Shape("ellipse", x, 0.15, 0.14, 0.05, white),
    Shape("ellipse", x + 0.05, 0.11, 0.08, 0.05, white),
  ], "a cloud drifts behind"


def _ambience(stage: Stage, take: Take) -> Take:
  """Adds a quiet steady sound that lasts from the first sample to the last."""
  rng, rate, n = stage.rng, stage.rate, stage.samples
  kind = str(rng.choice(["hum", "rain", "wind", "traffic"]))
  clock = np.arange(stage.samples) / stage.rate
  if kind == "hum":
    tones = rng.uniform(80, 140) * np.arange(1, 6)
    sound = sum(
      np.sin(2 * np.pi * f * clock) / (k + 1) for k, f in enumerate(tones)
    )
  elif kind == "rain":
    sound = synthesis.band_noise(
      rng, n, frequency=4500, bandwidth=4000, rate=rate
    )
  else:
    corner = 500 if kind == "wind" else 150
    sound = synthesis.rumble(rng, n, corner=corner, rate=rate)
    sway = np.sin(2 * np.pi * rng.uniform(0.2, 0.5) * clock + rng.uniform(0, 6))
    sound *= 1 + 0.4 * sway
  level = 10 ** (rng.uniform(-46, -38) / 20)
  audio = take.audio + sound * (level / np.sqrt(np.mean(sound**2)))
  event = Event(0.0, kind, "air", False, level)
  return _with_sound(take, audio, [event], f"faint {kind}")


def _knock(stage: Stage, take: Take) -> Take:
  """Adds one or two soft knocks."""
  rng = stage.rng
  material = stage.choose("wood", "metal", "glass")
  audio, events = take.audio.copy(), []
  count = rng.integers(1, 3)
  for time in np.sort(rng.uniform(0.2, stage.seconds - 0.4, count)):
    strength = float(rng.uniform(0.08, 0.15))
    sound = synthesis.strike(
      rng, material, 0.5, strength=strength, rate=stage.rate
    )
    synthesis.place(audio, sound, float(time), rate=stage.rate)
    events.append(Event(float(time), "knock", material.name, False, strength))
  return _with_sound(take, audio, events, f"soft {material.name} knocks")


def _with_sound(take: Take, audio, events: list[Event], words: str) -> Take:
  """Returns a take with another sound and the events added to it."""
  return dataclasses.replace(
    take,
    audio=audio,
    events=[*take.events, *events],
    audio_caption=f"{take.audio_caption}, with {words} off screen",
    tags=tuple({*take.tags, "effects"}),
  )
