"""Actions that consist of separate contacts: hits, bounces, collisions, drops.

Each public function plays one action: it draws what happens from the stage's
random numbers and returns a `Take`. Shapes touch at the very times of the
events (`physics`), and each event's sound starts at the nearest sample.
"""

import numpy as np

from data_pipelines.scenes import physics, synthesis
from data_pipelines.scenes.render import Shape, Surface, bar, disc
from data_pipelines.scenes.stage import Event, Stage, Take, counted, loudness

Array = np.ndarray

LIVELY, DULL = ("rubber", "plastic"), ("wood", "metal", "glass")
SOLID = ("wood", "metal", "glass", "plastic", "stone", "rubber", "ceramic")


def strike(stage: Stage) -> Take:
  """Plays a hammer, mallet or stick that comes down on an object."""
  rng, t = stage.rng, stage.times
  material = stage.choose(*SOLID)
  tool = str(rng.choice(["hammer", "mallet", "stick"]))
  hits, power = stage.hits(2, 6, gap=0.36)
  size = rng.uniform(0.2, 0.9)
  half_x, half_y = 0.14 + 0.1 * size, 0.08 + 0.09 * size
  x, side = rng.uniform(0.36, 0.64), rng.choice([-1.0, 1.0])
  give = physics.jolt(t, hits, power)
  squash = 1.0 - 0.16 * give
  kind = str(rng.choice(["box", "ellipse"]))
  target = Shape(
    kind, x + 0.012 * give, stage.floor - half_y * squash, half_x / squash,
    half_y * squash, stage.surface(material),
    round=0.03 if kind == "box" else 0.0,
  )  # fmt: skip
  lift = physics.lift(t, hits, power)
  head = {"hammer": 0.075, "mallet": 0.085, "stick": 0.045}[tool]
  reach = 0.46
  pivot_x, pivot_y = x + side * reach, stage.floor - 2 * half_y - head
  angle = 0.95 * lift
  head_x = pivot_x - side * reach * np.cos(angle)
  head_y = np.maximum(pivot_y - reach * np.sin(angle), 0.05)
  handle = Surface((0.72, 0.5, 0.28), outline=stage.ink)
  iron = Surface((0.3, 0.32, 0.38), "metal", outline=stage.ink)
  stick = bar(pivot_x, pivot_y, head_x, head_y, 0.026, handle)
  if tool == "hammer":
    end = Shape("box", head_x, head_y, 0.06, head, iron, angle=side * angle)
  else:
    knob = stage.paint() if tool == "mallet" else handle
    end = disc(head_x, head_y, head, knob)
  return Take(
    [target, stick, end],
    stage.struck(hits, power, material, size),
    Event.series(hits, power, "strike", material.name),
    f"a {tool} strikes a {material.adjective} "
    f"{'block' if kind == 'box' else 'dome'}",
    f"{counted(len(hits), 'hit')} of a {tool} on {material.name}",
  )


def drum(stage: Stage) -> Take:
  """Plays two sticks on a drum and a cymbal."""
  rng, t = stage.rng, stage.times
  hits, power = stage.hits(3, 7, gap=0.3)
  left = rng.random(len(hits)) < 0.55
  pitch = rng.uniform(90, 190)
  sounds = (
    synthesis.drum(rng, pitch, strength=p, rate=stage.rate)
    if skin
    else synthesis.cymbal(rng, strength=p, rate=stage.rate)
    for p, skin in zip(power, left)
  )
  audio = stage.track(hits, power, sounds)
  brass = Surface((0.95, 0.78, 0.25), "metal", outline=stage.ink)
  shell = stage.paint()
  rim_y = stage.floor - 0.3
  dip = physics.jolt(t, hits[left], power[left])
  tilt = physics.jolt(t, hits[~left], power[~left], frequency=3.5, decay=0.25)
  shapes = [
    bar(0.74, 0.52, 0.74, stage.floor, 0.014, Surface(stage.ink)),
    Shape("box", 0.3, stage.floor - 0.14, 0.2, 0.16, shell, round=0.02),
    Shape("ellipse", 0.3, rim_y, 0.21, 0.05 + 0.02 * dip,
          Surface((0.97, 0.95, 0.88), outline=stage.ink)),
    Shape("ellipse", 0.74, 0.52, 0.2, 0.035, brass, angle=0.35 * tilt),
  ]  # fmt: skip
  shapes += _stick(stage, hits[left], power[left], (0.3, rim_y), 0.12, -1)
  shapes += _stick(stage, hits[~left], power[~left], (0.7, 0.5), 0.94, 1)
  return Take(
    shapes,
    audio,
    Event.series(hits, power, "strike", np.where(left, "skin", "metal")),
    "two sticks play a drum and a cymbal",
    counted(len(hits), "drum stroke"),
    ("music", "effects"),
  )


def _stick(stage, hits, power, touch, hand_x, side) -> list[Shape]:
  """Returns a stick that hits `touch`, to the left (side -1) or right of it."""
  lift = physics.lift(stage.times, hits, power) if len(hits) else 0.7
  tip_x = touch[0] + side * 0.05 * lift
  tip_y = touch[1] - 0.03 - 0.38 * lift
  wood = Surface((0.85, 0.65, 0.4), outline=stage.ink)
  hand_y = touch[1] - 0.12 - 0.1 * lift
  return [
    bar(hand_x, hand_y, tip_x, tip_y, 0.022, wood),
    disc(tip_x, tip_y, 0.035, wood),
  ]


def bounce(stage: Stage) -> Take:
  """Plays one or two balls that are dropped and bounce until they rest."""
  rng = stage.rng
  audio, shapes, events, names = np.zeros(stage.samples), [], [], []
  count = 1 + int(rng.random() < 0.35)
  lanes = [rng.uniform(0.3, 0.7)] if count == 1 else [0.27, 0.73]
  starts = np.sort(rng.uniform(0.05, 0.45 * stage.seconds, count))
  for start, lane in zip(rng.permutation(starts), lanes):
    material = stage.choose(*(LIVELY if count == 1 else ()), *DULL)
    radius = rng.uniform(0.09, 0.14)
    height = stage.floor - 2 * radius - rng.uniform(0.07, 0.18)
    gravity = 2 * height / rng.uniform(0.36, 0.5) ** 2
    restitution = material.restitution * rng.uniform(0.95, 1.05)
    motion = dict(gravity=gravity, restitution=restitution)
    hits, speeds = physics.bounces(
      start, height, end=stage.seconds - 0.1, **motion
    )
    power = np.clip(speeds / np.sqrt(2 * gravity * 0.75), 0.3, 1.0)
    up = physics.bounce_height(
      stage.times, start, height, hits, speeds, **motion
    )
    squash = 1.0 - 0.35 * _contact(stage.times, hits, power)
    drift = rng.uniform(-0.04, 0.04) * (stage.times - start)
    top = stage.floor - height - 2 * radius
    shapes += [
      _holder(stage, lane, top, start),
      Shape("ellipse", lane + drift, stage.floor - radius * squash - up,
            radius / squash, radius * squash, stage.surface(material)),
    ]  # fmt: skip
    size = (radius - 0.09) / 0.05
    audio += stage.struck(hits, power, material, size, damping=1.5)
    events += Event.series(hits, power, "bounce", material.name)
    names.append(f"a {material.adjective} ball")
  balls, verb = " and ".join(names), "bounces" if count == 1 else "bounce"
  return Take(
    shapes,
    audio,
    events,
    f"{balls} {verb} on the floor",
    f"{counted(len(events), 'bounce')} of {balls}",
  )


def _holder(stage: Stage, x: float, y: float, start: float) -> Shape:
  """Returns a hook that holds a ball's top at (x, y) and lets go at `start`."""
  lag = np.maximum(stage.times - start + 0.04, 0.0)
  bottom = y + 0.01 - np.minimum(1.5 * lag, y + 0.1)
  return Shape(
    "box", x, 0.5 * (bottom - 0.2), 0.045, 0.5 * (bottom + 0.2),
    Surface((0.5, 0.5, 0.55), outline=stage.ink), round=0.01,
  )  # fmt: skip


def _contact(times: Array, hits: Array, power: Array) -> Array:
  """Returns a ball's flattening [n]: greatest at a contact, 0 after 50 ms."""
  lag = np.abs(times[:, None] - np.asarray(hits)[None, :])
  return (np.clip(1.0 - lag / 0.05, 0.0, 1.0) * power).sum(axis=1)


def collide(stage: Stage) -> Take:
  """Plays balls that slide between two walls and knock into each other."""
  rng = stage.rng
  count = int(rng.integers(1, 4))
  material = stage.choose("wood", "metal", "glass", "plastic", "stone")
  radii = rng.uniform(0.09, 0.13 if count < 3 else 0.105, count)
  contacts, knots, states, speeds = _clear_run(stage, radii)
  paths = physics.along_knots(stage.times, knots, states, speeds)
  y = stage.floor - radii
  post = Surface((0.35, 0.3, 0.3), outline=stage.ink)
  shapes = [
    Shape("box", edge, stage.floor - 0.14, 0.045, 0.16, post, round=0.015)
    for edge in (0.035, 0.965)
  ]
  shapes += [
    disc(paths[:, i], y[i], radii[i], stage.surface(material))
    for i in range(count)
  ]
  events = [
    Event(
      float(time),
      "wall" if pair in (-1, count - 1) else "collide",
      material.name,
      strength=float(np.clip(closing / 0.8, 0.35, 1.0)),
    )
    for time, pair, closing in contacts
  ]
  sounds = (
    synthesis.strike(
      rng, material, 0.8 if event.kind == "wall" else 0.3,
      strength=event.strength, rate=stage.rate, damping=1.5,
    )
    for event in events
  )  # fmt: skip
  times, power = [e.time for e in events], [e.strength for e in events]
  return Take(
    shapes,
    stage.track(times, power, sounds),
    events,
    f"{counted(count, material.adjective + ' ball')} "
    "knocking between two walls",
    f"{counted(len(events), 'knock')} of {material.name}",
  )


def _clear_run(stage: Stage, radii: Array):
  """Returns a run of `track_collisions` with few, well separated contacts.

  Draws up to 24 runs, ever slower; the first with two to eight contacts at
  least 0.18 s apart, else the one that comes nearest to that. The last 80 ms of
  the clip are not simulated: a ball may run into another there.
  """
  rng, count, walls = stage.rng, len(radii), (0.08, 0.92)
  room = walls[1] - walls[0] - 2 * radii.sum()
  best, fewest = None, np.inf
  for attempt in range(24):
    gaps = rng.dirichlet(np.full(count + 1, 2.0)) * room
    x = walls[0] + np.cumsum(gaps[:-1] + 2 * radii) - radii
    v = rng.uniform(0.12, 0.7 / count**0.5, count) * 0.97**attempt
    v *= rng.choice([-1, 1], count)
    run = physics.track_collisions(
      x, v, radii**2, radii, walls=walls, restitution=0.97,
      end=stage.seconds - 0.08, limit=20,
    )  # fmt: skip
    times = np.array([contact[0] for contact in run[0]])
    steps = np.diff(np.concatenate([[0.0], times]))
    faults = np.sum(steps < 0.18) + max(0, 2 - len(times), len(times) - 8)
    if faults < fewest:
      best, fewest = run, faults
    if not faults:
      break
  return best


def drip(stage: Stage) -> Take:
  """Plays drops that fall from a tap into a vessel with water."""
  rng, t = stage.rng, stage.times
  hits, power = stage.hits(2, 6, gap=0.4, first=0.5)
  vessel = stage.choose("metal", "glass", "ceramic")
  x, half = rng.uniform(0.35, 0.65), rng.uniform(0.18, 0.26)
  level = rng.uniform(0.3, 0.6)
  surface_y = stage.floor - 0.26 * level - 0.03
  ripple = physics.jolt(t, hits, power, frequency=5.0, decay=0.15)
  water = Surface((0.25, 0.55, 0.95), outline=stage.ink)
  chrome = Surface((0.75, 0.78, 0.82), "metal", outline=stage.ink)
  wall = stage.surface(vessel)
  shapes = [
    Shape("box", x, 0.06, 0.05, 0.08, chrome, round=0.02),
    Shape("box", x, stage.floor - 0.14, half + 0.03, 0.14, wall, round=0.05),
    Shape("box", x, stage.floor - 0.02 - 0.13 * level + 0.012 * ripple,
          half - 0.01, 0.13 * level + 0.02 + 0.012 * ripple, water, round=0.02),
  ]  # fmt: skip
  lag = t[:, None] - hits[None, :]
  fall = rng.uniform(0.3, 0.4)
  u = np.clip(1.0 + lag / fall, 0.0, 1.0)
  for k in range(len(hits)):
    seen = (lag[:, k] > -fall - 0.3) & (lag[:, k] < 0.0)
    grow = np.clip((lag[:, k] + fall + 0.3) / 0.3, 0.2, 1.0)
    y = 0.17 + (surface_y - 0.17) * u[:, k] ** 2
    radius = (0.05 + 0.035 * power[k]) * grow
    shapes.append(
      Shape("ellipse", x, y, radius, 1.2 * radius, water, alpha=seen * 1.0)
    )
    shapes += _splash(x, surface_y, lag[:, k], power[k], water)
  audio = np.zeros(stage.samples)
  base = rng.uniform(500, 900) * (1 + 0.8 * level)
  for time, strength in zip(hits, power):
    plop = synthesis.bubble(
      base * rng.uniform(0.85, 1.2) / strength**0.5,
      decay=0.16, rise=0.35, rate=stage.rate,
    )  # fmt: skip
    click = synthesis.burst(rng, corner=5000, decay=0.02, rate=stage.rate)
    plop[: len(click)] += 0.9 * click
    gain = loudness(strength) / np.abs(plop).max()
    synthesis.place(audio, plop, time, rate=stage.rate, gain=gain)
  return Take(
    shapes,
    audio,
    Event.series(hits, power, "drip", "water"),
    f"drops fall from a tap into a {vessel.adjective} bowl of water",
    counted(len(hits), "water drip"),
  )


def _splash(x, y, lag, power, surface) -> list[Shape]:
  """Returns two droplets that fly up at (x, y) `lag` [n] s after a drop."""
  seen = (lag >= 0) & (lag < 0.24)
  rise = 0.2 * power * np.sin(np.pi * np.clip(lag / 0.24, 0, 1))
  return [
    disc(x + side * (0.04 + 0.5 * np.maximum(lag, 0)), y - rise, 0.035, surface,
         alpha=seen * 1.0)
    for side in (-1.0, 1.0)
  ]  # fmt: skip
