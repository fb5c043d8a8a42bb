"""The talking face: its mouth follows the phones of what it says."""

import numpy as np

from data_pipelines.scenes import speech
from data_pipelines.scenes.render import Look, Shape, disc
from data_pipelines.scenes.stage import Event, Stage, Take

SKIN = ((0.98, 0.82, 0.7), (0.85, 0.63, 0.48), (0.52, 0.36, 0.27))
HAIR = (
  (0.15, 0.1, 0.08),
  (0.55, 0.33, 0.12),
  (0.9, 0.75, 0.35),
  (0.6, 0.6, 0.62),
)


def talk(stage: Stage) -> Take:
  """A face says a sentence; a small head has a high voice."""
  rng, t = stage.rng, stage.times
  youth = float(rng.uniform(0.0, 1.0))
  voice = speech.Voice(
    pitch=100.0 * 2.3**youth * rng.uniform(0.93, 1.07),
    scale=0.96 + 0.22 * youth,
    pace=float(rng.uniform(0.75, 1.0)),
  )
  words = speech.sentence(rng)
  said = speech.schedule(rng, words, voice, seconds=stage.seconds)
  jaw, lips = speech.mouth(said, t)
  audio = 0.55 * speech.speak(
    rng, said, voice, samples=stage.samples, rate=stage.rate
  )
  who = "child" if youth > 0.7 else "person"
  text = " ".join(word for word, _, _ in said.words)
  return Take(
    _face(stage, jaw, lips, 0.4 - 0.09 * youth),
    audio,
    [Event(float(s), "word", "voice") for _, s, _ in said.words],
    f"a {who} talks to the camera",
    f"a {who} says: {text}",
    ("speech",),
    said.words,
  )


def _face(stage, jaw, lips, radius):
  rng, t = stage.rng, stage.times
  sway = rng.uniform(0.5, 1.2, 2)
  x = 0.5 + 0.02 * np.sin(2 * np.pi * sway[0] * 0.5 * t + rng.uniform(0, 6))
  y = 0.5 + 0.012 * np.sin(2 * np.pi * sway[1] * 0.5 * t) + 0.01 * jaw
  skin = Look(SKIN[rng.integers(3)], outline=stage.ink)
  hair = Look(HAIR[rng.integers(4)], outline=stage.ink)
  white, dark = (
    Look((0.97, 0.97, 0.97), outline=(0.1, 0.1, 0.1)),
    Look((0.08, 0.06, 0.08)),
  )
  blinks = rng.uniform(0, stage.seconds, 2)
  lid = 1.0 - 0.9 * np.clip(
    1.2 - np.abs(t[:, None] - blinks).min(axis=1) / 0.08, 0, 1
  )
  shapes = [
    Shape("ellipse", x, y - 0.14 * radius, 1.02 * radius, 1.12 * radius, hair),
    Shape("ellipse", x, y + 0.06 * radius + 0.02 * jaw, 0.88 * radius,
          radius + 0.02 * jaw, skin),
  ]  # fmt: skip
  for side in (-1.0, 1.0):
    eye_x, eye_y = x + side * 0.36 * radius, y - 0.22 * radius
    shapes += [
      Shape("ellipse", eye_x, eye_y, 0.17 * radius, 0.15 * radius * lid, white),
      Shape("ellipse", eye_x, eye_y, 0.08 * radius, 0.1 * radius * lid, dark),
    ]
  wide = radius * (0.5 - 0.26 * lips)
  high = radius * (0.035 + 0.33 * jaw)
  red = Look((0.75, 0.2, 0.22))
  mouth_y = y + (0.5 + 0.12 * jaw) * radius
  shapes += [
    disc(x, y + 0.1 * radius, 0.07 * radius, Look(tuple(0.8 * np.array(skin.colour)))),
    Shape("ellipse", x, mouth_y, wide + 0.08 * radius, high + 0.07 * radius, red),
    Shape("ellipse", x, mouth_y, wide, high, Look((0.12, 0.02, 0.04))),
  ]  # fmt: skip
  return shapes
