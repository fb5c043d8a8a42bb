"""Actions of lasting or repeated motion: rolling, pouring, sawing, plucking.

Each public function plays one action; see `impacts`.
"""

import numpy as np

from data_pipelines.scenes import physics, synthesis
from data_pipelines.scenes.render import Shape, Surface, bar, disc
from data_pipelines.scenes.stage import Event, Stage, Take, counted, loudness

GRID_RATE = 1000  # Hz, of the paths in which crossings are searched


def roll(stage: Stage) -> Take:
  """Plays a ball that rolls over a floor with ridges and bumps on each."""
  rng, t = stage.rng, stage.times
  material = stage.choose("wood", "metal", "glass", "plastic", "stone")
  radius = rng.uniform(0.11, 0.15)
  grid = np.arange(0, stage.seconds, 1 / GRID_RATE)
  speeds = rng.uniform(0.4, 1.6, 5) * (0.95 / stage.seconds)
  speed = np.interp(grid, np.linspace(0, stage.seconds, 5), speeds)
  path = -0.05 + np.cumsum(speed) / GRID_RATE
  ridges = physics.irregular_times(
    rng, int(rng.integers(2, 6)), first=0.12, last=0.9, gap=0.12
  )
  hits, speeds = physics.crossings(path, grid, ridges, end=stage.seconds - 0.1)
  power = np.clip(speeds / 0.35, 0.45, 1.0)
  heading = float(rng.choice([-1.0, 1.0]))
  x = np.interp(t, grid, path)
  hop = sum(0.08 * np.exp(-(((t - hit - 0.05) / 0.05) ** 2)) for hit in hits)
  mirror = lambda value: 0.5 + heading * (np.asarray(value) - 0.5)
  y = stage.floor - radius - hop
  surface = stage.surface(material)
  dot = Surface(stage.ink)
  turn = heading * x / radius
  shapes = [
    Shape("box", ridge, stage.floor, 0.032, 0.045, surface, round=0.03)
    for ridge in map(float, mirror(ridges))
  ]
  shapes.append(disc(mirror(x), y, radius, surface))
  shapes += [
    disc(mirror(x) + s * 0.6 * radius * np.cos(turn),
         y + s * 0.6 * radius * np.sin(turn), 0.03, dot)
    for s in (-1.0, 1.0)
  ]  # fmt: skip
  gain = np.interp(np.arange(stage.samples) / stage.rate, grid, speed)
  audio = synthesis.rumble(rng, stage.samples, corner=400, rate=stage.rate)
  audio = synthesis.fade(audio, seconds=0.3, rate=stage.rate)
  audio *= 0.006 * gain / gain.max()
  audio += stage.struck(hits, power, material, 0.7, damping=1.5)
  return Take(
    shapes,
    audio,
    Event.series(hits, power, "bump", material.name),
    f"a {material.adjective} ball rolls over ridges",
    f"a rolling ball, {counted(len(hits), 'bump')} of {material.name}",
  )


def pour(stage: Stage) -> Take:
  """Plays a jug that is tipped once or twice and a glass that fills."""
  rng, t = stage.rng, stage.times
  starts = physics.irregular_times(
    rng, int(rng.integers(1, 3)), first=0.4, last=stage.seconds - 0.9, gap=1.4
  )
  rest = np.diff([*starts, stage.seconds + 0.3])
  durations = np.array([rng.uniform(0.6, min(1.2, r - 0.4)) for r in rest])
  drink = [(0.3, 0.6, 0.95), (0.55, 0.3, 0.12), (0.95, 0.6, 0.15)]
  liquid = Surface(drink[rng.integers(3)], outline=stage.ink)
  share = 0.85 / max(durations.sum(), 1.5)
  filled = lambda at: (
    0.08 + share * sum(np.clip(at - s, 0, d) for s, d in zip(starts, durations))
  )
  flowing = lambda at: sum(
    (at >= s) & (at < s + d) for s, d in zip(starts, durations)
  ).astype(float)
  clip = lambda value: np.clip(value, 0, 1)
  tip = sum(
    clip((t - s + 0.25) / 0.25) - clip((t - s - d) / 0.2)
    for s, d in zip(starts, durations)
  )
  level, flow = filled(t), flowing(t)
  glass = Surface((0.75, 0.93, 0.95), "glass", alpha=0.6, outline=stage.ink)
  x, base = 0.42, stage.floor
  top = base - 0.4 * level
  jug = stage.surface(stage.choose("ceramic", "metal", "plastic"))
  tilt = -0.25 - 0.95 * tip
  wobble = 0.008 * np.sin(40 * t) * flow
  shapes = [
    Shape("box", x, base - 0.22, 0.19, 0.22, glass, round=0.03),
    Shape("box", x, 0.5 * (base + top), 0.16, 0.5 * (base - top) + 0.001,
          liquid, round=0.015),
    Shape("box", x + wobble, 0.5 * (0.27 + top), 0.03, 0.5 * (top - 0.27),
          liquid, round=0.02, alpha=flow),
    Shape("box", x + 0.24, 0.24 - 0.06 * tip, 0.13, 0.18, jug, angle=tilt,
          round=0.03),
  ]  # fmt: skip
  return Take(
    shapes,
    _pour_sound(stage, starts, durations, filled),
    [Event(float(s), "pour", "water") for s in starts],
    "a jug pours a drink into a glass",
    f"liquid poured {'once' if len(starts) == 1 else 'twice'} into a glass",
  )


def _pour_sound(stage, starts, durations, filled) -> np.ndarray:
  """Synthesises poured liquid; `filled` maps seconds to its level in 0..1."""
  rng, audio = stage.rng, np.zeros(stage.samples)
  for start, duration in zip(starts, durations):
    samples = min(int(duration * stage.rate), stage.samples)
    hiss = synthesis.band_noise(
      rng, samples, frequency=2500, bandwidth=3000, rate=stage.rate
    )
    n = np.arange(samples) / stage.rate
    shape = (1 - np.exp(-n / 0.004)) * np.clip((duration - n) / 0.08, 0, 1)
    synthesis.place(audio, 0.06 * hiss * shape, start, rate=stage.rate)
    count = int(110 * duration)
    moments = np.sort(np.append(rng.uniform(0, duration - 0.05, count), 0.0))
    # The air column over the liquid shortens as the glass fills.
    spread = rng.uniform(0.8, 1.7, count + 1)
    pitch = 380 + 900 * filled(start + moments) * spread
    for moment, frequency in zip(moments, pitch):
      sound = synthesis.bubble(frequency, decay=0.06, rise=0.2, rate=stage.rate)
      gain = 0.28 if moment == 0.0 else rng.uniform(0.02, 0.14)
      synthesis.place(audio, sound, start + moment, rate=stage.rate, gain=gain)
  return audio


def spin(stage: Stage) -> Take:
  """Plays a wheel of fortune whose pegs click past a tongue as it slows."""
  rng, t = stage.rng, stage.times
  grid = np.arange(0, stage.seconds, 1 / GRID_RATE)
  spins = physics.irregular_times(
    rng, int(rng.integers(1, 3)), first=0.15, last=0.6 * stage.seconds, gap=1.2
  )
  rate = np.zeros_like(grid)
  friction = rng.uniform(1.5, 2.5)
  for start in spins:
    kick = rng.uniform(4.0, 6.5)
    lag = grid - start
    rate = np.where(lag > 0, np.maximum(rate, kick - friction * lag), rate)
  turn = np.cumsum(rate) / GRID_RATE
  pegs = int(rng.integers(2, 4))
  phase = rng.uniform(0.1, 0.9)
  levels = (np.arange(64) + phase) * 2 * np.pi / pegs
  hits, speeds = physics.crossings(turn, grid, levels, end=stage.seconds - 0.08)
  power = np.clip(speeds / 6.0, 0.45, 1.0)
  material = stage.choose("wood", "metal", "plastic")
  angle = np.interp(t, grid, turn)
  cx, cy, radius = 0.5, 0.56, 0.33
  surface = stage.surface(material)
  red = Surface((0.95, 0.2, 0.2), outline=stage.ink)
  spoke = Surface((0.98, 0.95, 0.85), outline=stage.ink)
  shapes = [disc(cx, cy, radius, surface)]
  for peg in range(pegs):
    # A peg is under the tongue (straight up) when the turn reaches a level.
    a = angle - (phase + peg) * 2 * np.pi / pegs - 0.5 * np.pi
    px, py = cx + 0.27 * np.cos(a), cy + 0.27 * np.sin(a)
    shapes += [bar(cx, cy, px, py, 0.028, spoke), disc(px, py, 0.06, red)]
  flick = 0.5 * physics.jolt(t, hits, power, frequency=6.0, decay=0.07)
  tongue = Surface((0.98, 0.82, 0.15), outline=stage.ink)
  end_x, end_y = cx + 0.15 * np.sin(flick), 0.06 + 0.16 * np.cos(flick)
  shapes += [
    disc(cx, cy, 0.06, Surface(stage.ink)),
    bar(cx, 0.06, end_x, end_y, 0.035, tongue),
  ]
  return Take(
    shapes,
    stage.struck(hits, power, material, 0.1, damping=3.0),
    Event.series(hits, power, "click", material.name),
    f"a {material.adjective} wheel spins and slows down",
    f"{counted(len(hits), 'click')} of a {material.adjective} wheel",
  )


def saw(stage: Stage) -> Take:
  """Plays a saw that goes back and forth through a block."""
  rng, t = stage.rng, stage.times
  starts, power = stage.hits(3, 7, gap=0.45, first=0.25)
  durations = np.minimum(rng.uniform(0.26, 0.38, len(starts)), 0.4)
  material = stage.choose("wood", "metal", "plastic", "stone")
  x = physics.stroke_path(t, starts, durations)
  depth = 0.1 * np.clip(t / stage.seconds, 0, 1)
  block_y = stage.floor - 0.15
  blade = Surface((0.82, 0.85, 0.9), "metal", outline=stage.ink)
  grip = stage.paint()
  saw_x, saw_y = 0.37 + 0.34 * x, block_y - 0.19 + depth
  shapes = [
    Shape("box", saw_x, saw_y, 0.3, 0.06, blade, round=0.01),
    Shape("box", saw_x - 0.29, saw_y - 0.02, 0.07, 0.1, grip, round=0.04),
    Shape("box", 0.56, block_y, 0.2, 0.15, stage.surface(material), round=0.01),
  ]  # fmt: skip
  audio = np.zeros(stage.samples)
  low = {"wood": 1400, "metal": 4200, "plastic": 2200, "stone": 3000}
  teeth = rng.uniform(60, 110)
  for time, duration, strength in zip(starts, durations, power):
    samples = int(duration * stage.rate)
    n = np.arange(samples) / stage.rate
    speed = (1 - np.exp(-n / 0.003)) * np.cos(0.5 * np.pi * n / duration)
    noise = synthesis.band_noise(
      rng, samples, frequency=low[material.name],
      bandwidth=0.8 * low[material.name], rate=stage.rate,
    )  # fmt: skip
    along = duration * np.sin(0.5 * np.pi * n / duration)
    rasp = 0.6 + 0.4 * np.sin(2 * np.pi * teeth * along)
    sound = 0.2 * noise * speed * rasp * loudness(strength) / 0.7
    synthesis.place(audio, sound, time, rate=stage.rate)
  return Take(
    shapes,
    audio,
    Event.series(starts, power, "scrape", material.name),
    f"a saw cuts a {material.adjective} block",
    f"{counted(len(starts), 'stroke')} of a saw in {material.name}",
  )


def shake(stage: Stage) -> Take:
  """Plays a rattle whose grains hit at every turn from side to side."""
  rng, t = stage.rng, stage.times
  hits, power = stage.hits(3, 7, gap=0.34)
  side = float(rng.choice([-1.0, 1.0]))
  x = np.full_like(t, -side)
  for k, hit in enumerate(hits):
    u = np.clip((t - hit + 0.13) / 0.13, 0.0, 1.0) ** 1.6
    x += 2 * side * (1 - 2 * (k % 2)) * u
  quiver = physics.jolt(t, hits, power, frequency=9.0, decay=0.06)
  head_x, head_y = 0.5 + 0.24 * x + 0.03 * quiver, 0.36 + 0.04 * np.abs(x)
  hand_x, hand_y = 0.5 + 0.12 * x, 0.78
  grip = Surface((0.75, 0.55, 0.3), outline=stage.ink)
  band = stage.paint()
  shapes = [
    bar(hand_x, hand_y, head_x, head_y, 0.035, grip),
    disc(head_x, head_y, 0.17, stage.paint()),
    Shape("box", head_x, head_y, 0.16, 0.035, band, angle=0.5 * x),
    disc(hand_x, hand_y, 0.085, Surface((0.85, 0.62, 0.48), outline=stage.ink)),
  ]
  audio = np.zeros(stage.samples)
  tone = rng.uniform(3000, 5500)
  for time, strength in zip(hits, power):
    grains = np.append(0.0, rng.exponential(0.022, int(14 + 16 * strength)))
    for grain in grains:
      tick = synthesis.burst(rng, corner=7500, decay=0.014, rate=stage.rate)
      tick = synthesis.resonator(tick, tone, 2500, rate=stage.rate)
      gain = 0.75 if grain == 0.0 else rng.uniform(0.15, 0.5)
      level = gain * loudness(strength) / (np.abs(tick).max() + 1e-9)
      synthesis.place(audio, tick, time + grain, rate=stage.rate, gain=level)
  return Take(
    shapes,
    audio,
    Event.series(hits, power, "shake", "seeds"),
    "a hand shakes a rattle",
    counted(len(hits), "shake of a rattle", "shakes of a rattle"),
    ("effects", "music") if rng.random() < 0.5 else ("effects",),
  )


def pluck(stage: Stage) -> Take:
  """Plays a plectrum on a lyre whose lower strings are thicker."""
  rng, t = stage.rng, stage.times
  hits, power = stage.hits(3, 7, gap=0.32)
  scale = rng.uniform(130, 220) * 2 ** (np.array([0, 4, 7, 12]) / 12)
  strings = rng.integers(0, 4, len(hits))
  ys = np.array([0.72, 0.56, 0.4, 0.24])
  sounds = (
    synthesis.pluck(rng, scale[string], strength=p, rate=stage.rate)
    for p, string in zip(power, strings)
  )
  audio = stage.track(hits, power, sounds)
  body = Surface((0.45, 0.22, 0.1), outline=stage.ink)
  shapes = [
    Shape("box", 0.5, 0.48, 0.46, 0.4, body, round=0.08),
    disc(0.36, 0.48, 0.15, Surface((0.1, 0.07, 0.05))),
  ]
  for string in range(4):
    mine = strings == string
    swing = physics.jolt(t, hits[mine], power[mine], frequency=7.0, decay=0.2)
    surface = Surface((0.98, 0.95, 0.8))
    thick = 0.03 - 0.003 * string
    mid = ys[string] + 0.07 * swing
    shapes += [
      bar(0.08, ys[string], 0.4, mid, thick, surface),
      bar(0.4, mid, 0.92, ys[string], thick, surface),
    ]
  height = physics.lift(t, hits, power, fall=0.14, rise=0.12)
  target = np.interp(t, hits, ys[strings]) if len(hits) else 0.5 + 0 * t
  pick = Surface((0.95, 0.25, 0.3), "plastic", outline=stage.ink)
  away = np.minimum(height, 1.0)
  x, y = 0.58 + 0.32 * away, target - 0.05 - 0.06 * away
  shapes.append(Shape("ellipse", x, y, 0.07, 0.09, pick))
  return Take(
    shapes,
    audio,
    Event.series(hits, power, "pluck", "string"),
    "a plectrum plucks the strings of a lyre",
    counted(len(hits), "plucked string note"),
    ("music",),
  )
