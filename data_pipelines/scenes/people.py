"""Actions of people: clapping hands, walking feet, a talking face.

Each public function plays one action; see `impacts`.
"""

import numpy as np

from data_pipelines.scenes import physics, speech, synthesis
from data_pipelines.scenes.render import Shape, Surface, bar, disc
from data_pipelines.scenes.stage import Event, Stage, Take, counted, loudness

Array = np.ndarray

SKIN = ((0.98, 0.82, 0.7), (0.85, 0.63, 0.48), (0.52, 0.36, 0.27))
HAIR = ((0.15, 0.1, 0.08), (0.55, 0.33, 0.12), (0.9, 0.75, 0.35),
        (0.6, 0.6, 0.62))  # fmt: skip


def _skin(stage: Stage) -> Surface:
  """Draws a skin colour."""
  return Surface(SKIN[stage.rng.integers(len(SKIN))], outline=stage.ink)


def clap(stage: Stage) -> Take:
  """Plays two clapping hands."""
  rng, t = stage.rng, stage.times
  hits, power = stage.hits(2, 7, gap=0.34)
  apart = 0.26 * physics.lift(t, hits, power)
  y = rng.uniform(0.4, 0.6)
  palm = _skin(stage)
  sleeve = stage.paint()
  shapes = []
  for side in (-1.0, 1.0):
    x = 0.5 + side * (0.055 + apart)
    shapes += [
      bar(x + side * 0.1, y + 0.15, 0.5 + side * 0.55, 0.98, 0.07, sleeve),
      Shape("box", x, y, 0.055, 0.19, palm, round=0.05, angle=side * apart),
    ]
  audio = np.zeros(stage.samples)
  low = rng.uniform(900, 1500)
  for time, strength in zip(hits, power):
    noise = synthesis.burst(rng, corner=6000, decay=0.09, rate=stage.rate)
    body = synthesis.resonator(noise, low, 900, rate=stage.rate)
    sound = 0.4 * noise + body
    sound *= loudness(strength) / np.abs(sound).max()
    synthesis.place(audio, sound, time, rate=stage.rate)
  return Take(
    shapes,
    audio,
    Event.series(hits, power, "clap", "skin"),
    "two hands clap",
    counted(len(hits), "hand clap"),
  )


def walk(stage: Stage) -> Take:
  """Plays a person who walks across the picture with irregular steps."""
  rng, t = stage.rng, stage.times
  material = stage.choose("wood", "metal", "stone", "ceramic")
  hits, power = stage.hits(4, 8, gap=0.36)
  heading = float(rng.choice([-1.0, 1.0]))
  pace = 0.66 / (len(hits) + 1)
  feet = [_foot(t, hits, which, pace) for which in (0, 1)]
  mirror = lambda x: 0.5 + heading * (x - 0.33)
  ground = stage.floor
  hip_x = 0.5 * (feet[0][0] + feet[1][0])
  hip_y = ground - 0.34 + 0.1 * np.abs(feet[0][0] - feet[1][0])
  shirt, trousers = stage.paint(), stage.paint(0.1, 0.6)
  shoe = Surface((0.12, 0.1, 0.1), outline=stage.ink)
  slab = stage.surface(material)
  shapes = [Shape("box", 0.5, ground + 0.03, 0.49, 0.03, slab)]
  for x, up in feet:
    foot_x, foot_y = mirror(x), ground - 0.035 - up
    toe = foot_x + heading * 0.03
    shapes += [
      bar(mirror(hip_x), hip_y, foot_x, foot_y, 0.035, trousers),
      Shape("box", toe, foot_y, 0.07, 0.035, shoe, round=0.03),
    ]
  shapes += [
    bar(mirror(hip_x), hip_y - 0.24, mirror(hip_x), hip_y, 0.06, shirt),
    disc(mirror(hip_x), hip_y - 0.37, 0.09, _skin(stage)),
  ]
  audio = stage.struck(hits, power, material, 0.9, damping=3.0)
  for time, strength in zip(hits, power):
    scuff = synthesis.burst(rng, corner=1800, decay=0.06, rate=stage.rate)
    gain = 0.5 * loudness(strength)
    synthesis.place(audio, scuff, time, rate=stage.rate, gain=gain)
  return Take(
    shapes,
    audio,
    Event.series(hits, power, "step", material.name),
    f"a person walks on a {material.adjective} floor",
    f"{counted(len(hits), 'footstep')} on {material.name}",
  )


def _foot(
  times: Array, hits: Array, which: int, pace: float, swing: float = 0.26
) -> tuple[Array, Array]:
  """Returns distance [n] and height [n] of the foot of every second step."""
  x = np.full_like(times, -0.5 * pace * which)
  up = np.zeros_like(times)
  for k, hit in enumerate(hits):
    if k % 2 != which:
      continue
    u = np.clip((times - hit + swing) / swing, 0.0, 1.0)
    target = (k + 1) * pace
    start = (k - 1) * pace if k > 1 else -0.5 * pace * which
    x += (target - start) * u
    up += 0.32 * u * (1 - u) * (1 + u)
  return x, up


def talk(stage: Stage) -> Take:
  """Plays a face that says a sentence; a small head has a high voice."""
  rng, t = stage.rng, stage.times
  youth = float(rng.uniform(0.0, 1.0))
  voice = speech.Voice(
    pitch=100.0 * 2.3**youth * rng.uniform(0.93, 1.07),
    scale=0.96 + 0.22 * youth,
    pace=float(rng.uniform(0.75, 1.0)),
  )
  words = speech.sentence(rng)
  utterance = speech.schedule(rng, words, voice, seconds=stage.seconds)
  jaw, lips = speech.mouth(utterance, t)
  audio = 0.55 * speech.speak(
    rng, utterance, voice, samples=stage.samples, rate=stage.rate
  )
  who = "child" if youth > 0.7 else "person"
  text = " ".join(word for word, _, _ in utterance.words)
  return Take(
    _face(stage, jaw, lips, 0.4 - 0.09 * youth),
    audio,
    [Event(float(s), "word", "voice") for _, s, _ in utterance.words],
    f"a {who} talks to the camera",
    f"a {who} says: {text}",
    ("speech",),
    utterance.words,
  )


def _face(stage: Stage, jaw: Array, lips: Array, radius: float) -> list[Shape]:
  """Returns a head's shapes: jaw opening [n], lip rounding [n], half width."""
  rng, t = stage.rng, stage.times
  sway = rng.uniform(0.5, 1.2, 2)
  x = 0.5 + 0.02 * np.sin(2 * np.pi * sway[0] * 0.5 * t + rng.uniform(0, 6))
  y = 0.5 + 0.012 * np.sin(2 * np.pi * sway[1] * 0.5 * t) + 0.01 * jaw
  skin = _skin(stage)
  hair = Surface(HAIR[rng.integers(len(HAIR))], outline=stage.ink)
  white = Surface((0.97, 0.97, 0.97), outline=(0.1, 0.1, 0.1))
  dark = Surface((0.08, 0.06, 0.08))
  blinks = rng.uniform(0, stage.seconds, 2)
  gap = np.abs(t[:, None] - blinks).min(axis=1)
  lid = 1.0 - 0.9 * np.clip(1.2 - gap / 0.08, 0, 1)
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
  red = Surface((0.75, 0.2, 0.22))
  mouth_y = y + (0.5 + 0.12 * jaw) * radius
  nose = Surface(tuple(0.8 * np.array(skin.colour)))
  shapes += [
    disc(x, y + 0.1 * radius, 0.07 * radius, nose),
    Shape("ellipse", x, mouth_y, wide + 0.08 * radius, high + 0.07 * radius,
          red),
    Shape("ellipse", x, mouth_y, wide, high, Surface((0.12, 0.02, 0.04))),
  ]  # fmt: skip
  return shapes
