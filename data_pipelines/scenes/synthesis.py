"""Sound of contact, friction, bubbles, strings and air.

Modal synthesis: a struck object rings as

  s[n] = sum_m a_m exp(-d_m n) sin(w_m n)

with frequency ratios and dampings of its material (van den Doel and Pai, "The
Sounds of Physical Shapes", 1998; free-bar ratios from Fletcher and Rossing,
"The Physics of Musical Instruments", ch. 2). With z_m = exp(-d_m + i w_m) and
n = p B + q the sum is one small matrix product, (a_m z_m^(p B)) @ (z_m^q), so a
second of sound with a dozen modes takes a fraction of a millisecond.

Bubbles: a bubble rings at the Minnaert frequency 3.26 / radius Hz and rises in
pitch as it nears the surface (van den Doel, "Physically based models for
liquid sounds", 2005).
"""

import dataclasses

import numpy as np
from scipy import signal

Array = np.ndarray
Rng = np.random.Generator

BAR = (1.0, 2.756, 5.404, 8.933, 13.34)
PLATE = (1.0, 1.59, 2.14, 2.65, 3.16, 4.15, 5.43, 6.79)
SHELL = (1.0, 2.32, 4.25, 6.63, 9.38)
LUMP = (1.0, 1.42, 1.93, 2.71, 3.84)
MEMBRANE = (1.0, 1.593, 2.136, 2.296, 2.653, 2.918, 3.6)


@dataclasses.dataclass(frozen=True)
class Material:
  """What a thing is made of: how it sounds, looks and bounces.

  Attributes:
    pitch: lowest and highest first mode, Hz (big and small objects).
    ratios: of the modes to the first.
    ring: seconds in which the first mode falls by 60 dB.
    slope: how much faster higher modes fall, per unit of ratio.
    tilt: a mode's amplitude is ratio ** -tilt.
    click: corner of the contact noise, Hz. bite: its level against the modes.
    restitution: of a bounce on the floor.
    colour: 0..1, and texture: as `render` names it.
  """

  name: str
  adjective: str
  pitch: tuple[float, float]
  ratios: tuple[float, ...]
  ring: float
  slope: float
  tilt: float
  click: float
  bite: float
  restitution: float
  colour: tuple[float, float, float]
  texture: str


MATERIALS = {
  m.name: m
  for m in (
    Material("wood", "wooden", (260, 620), BAR, 0.16, 0.6, 0.7, 3500, 0.5, 0.6,
             (0.64, 0.40, 0.19), "wood"),
    Material("metal", "metal", (420, 1150), PLATE, 0.75, 0.12, 0.25, 7500, 0.5,
             0.68, (0.55, 0.63, 0.72), "metal"),
    Material("glass", "glass", (1250, 2500), SHELL, 0.42, 0.25, 0.5, 7500, 0.4,
             0.7, (0.55, 0.93, 0.95), "glass"),
    Material("plastic", "plastic", (330, 760), LUMP, 0.1, 0.4, 0.6, 4500, 0.7,
             0.74, (0.95, 0.27, 0.2), "plastic"),
    Material("stone", "stone", (800, 1600), LUMP, 0.055, 0.3, 0.3, 5500, 0.9,
             0.48, (0.56, 0.53, 0.5), "stone"),
    Material("rubber", "rubber", (95, 210), LUMP, 0.15, 0.8, 1.3, 1300, 0.5,
             0.84, (0.24, 0.14, 0.34), "rubber"),
    Material("ceramic", "ceramic", (700, 1500), SHELL, 0.18, 0.35, 0.5, 6000,
             0.6, 0.55, (0.24, 0.42, 0.85), "ceramic"),
  )
}  # fmt: skip


def ring(
  frequencies: Array, decays: Array, gains: Array, *, samples: int, rate: int
) -> Array:
  """Sum of damped sines [samples]; frequencies in Hz, decays (60 dB) in s."""
  frequencies = np.asarray(frequencies, float)
  audible = frequencies < 0.46 * rate
  damping = np.log(1000.0) / np.asarray(decays, float)
  pole = (-damping + 2j * np.pi * frequencies)[audible] / rate
  block = max(1, int(np.sqrt(samples)))
  rows = -(-samples // block)
  outer = np.exp(pole[None, :] * (block * np.arange(rows))[:, None])
  inner = np.exp(pole[:, None] * np.arange(block)[None, :])
  outer = (outer * np.asarray(gains)[audible]).astype(np.complex64)
  return (outer @ inner.astype(np.complex64)).imag.ravel()[:samples]


def burst(rng: Rng, *, corner: float, decay: float, rate: int) -> Array:
  """Contact noise: low-passed at `corner` Hz, falling 60 dB in `decay` s."""
  samples = max(8, int(1.2 * decay * rate))
  noise = rng.standard_normal(samples)
  keep = np.exp(-2 * np.pi * min(corner, 0.45 * rate) / rate)
  noise = signal.lfilter([1 - keep], [1, -keep], noise)
  noise /= np.sqrt((1 - keep) / (1 + keep))
  noise *= np.exp(-np.log(1000.0) * np.arange(samples) / (decay * rate))
  return 0.35 * noise


def strike(
  rng: Rng,
  material: Material,
  size: float,
  *,
  strength: float,
  rate: int,
  damping: float = 1.0,
) -> Array:
  """One hit on an object: its modes and the contact's noise.

  Args:
    rng: modes are excited a little differently by every hit.
    material: what is struck. size: 0 (small, high) to 1 (big, low).
    strength: 0..1; a hard hit is louder and brighter.
    rate: Hz. damping: divides the ring, e.g. for a thing that is held.

  Returns:
    float [t], its peak near `strength`, within 10 ms of the first sample.
  """
  low, high = material.pitch
  first = low * (high / low) ** (1.0 - size)
  ratios = np.asarray(material.ratios)
  decays = material.ring / (1 + material.slope * (ratios - 1)) / damping
  tilt = material.tilt + 0.6 * (1.0 - strength)
  gains = ratios**-tilt * rng.uniform(0.7, 1.3, len(ratios))
  samples = int(min(1.5, 1.1 * decays[0]) * rate)
  body = ring(first * ratios, decays, gains, samples=samples, rate=rate)
  body /= np.abs(body).max() + 1e-9
  click = burst(
    rng, corner=material.click * (0.5 + 0.5 * strength), decay=0.012, rate=rate
  )
  body[: len(click)] += material.bite * click[: len(body)]
  return strength * body / np.abs(body).max()


def bubble(frequency: float, *, decay: float, rise: float, rate: int) -> Array:
  """A bubble of `frequency` Hz whose pitch grows by `rise` (fraction)/decay."""
  n = np.arange(int(1.1 * decay * rate))
  u = n / (decay * rate)
  phase = 2 * np.pi * frequency * decay * (u + 0.5 * rise * u * u)
  return np.sin(phase) * np.exp(-np.log(1000.0) * u)


def resonator(
  x: Array, frequency: float, bandwidth: float, *, rate: int
) -> Array:
  """Two-pole band-pass with unit peak gain; frequency and bandwidth in Hz."""
  frequency = min(frequency, 0.46 * rate)
  radius = np.exp(-np.pi * bandwidth / rate)
  theta = 2 * np.pi * frequency / rate
  gain = 0.5 * (1 - radius * radius)
  return signal.lfilter(
    [gain, 0.0, -gain], [1.0, -2 * radius * np.cos(theta), radius**2], x
  )


def band_noise(
  rng: Rng, samples: int, *, frequency: float, bandwidth: float, rate: int
) -> Array:
  """Noise round `frequency` Hz with unit RMS, [samples]."""
  noise = resonator(
    rng.standard_normal(samples), frequency, bandwidth, rate=rate
  )
  return noise / (np.sqrt(np.mean(noise * noise)) + 1e-9)


def rumble(rng: Rng, samples: int, *, corner: float, rate: int) -> Array:
  """Low-passed noise with unit RMS, [samples]; corner in Hz."""
  keep = np.exp(-2 * np.pi * corner / rate)
  noise = signal.lfilter([1 - keep], [1, -keep], rng.standard_normal(samples))
  return noise / (np.sqrt(np.mean(noise * noise)) + 1e-9)


def pluck(
  rng: Rng, frequency: float, *, strength: float, rate: int, decay: float = 1.1
) -> Array:
  """A plucked string: harmonics sin(pi k p) / k^1.5 for a pluck at point p."""
  k = np.arange(1, min(24, int(0.45 * rate / frequency)) + 1)
  point = rng.uniform(0.12, 0.3)
  gains = np.sin(np.pi * k * point) / k ** (1.3 + 0.5 * (1 - strength))
  stretch = np.sqrt(1 + 2e-4 * k * k)
  decays = decay / (1 + 0.12 * (k - 1))
  body = ring(
    frequency * k * stretch, decays, gains, samples=int(decay * rate), rate=rate
  )
  body /= np.abs(body).max() + 1e-9
  click = burst(rng, corner=5000, decay=0.01, rate=rate)
  body[: len(click)] += 0.5 * click
  return strength * body / np.abs(body).max()


def drum(rng: Rng, frequency: float, *, strength: float, rate: int) -> Array:
  """A drum skin: the modes of a round membrane and the stick's noise."""
  ratios = np.asarray(MEMBRANE)
  decays = 0.32 / (1 + 0.5 * (ratios - 1))
  gains = ratios**-0.8 * rng.uniform(0.6, 1.2, len(ratios))
  body = ring(
    frequency * ratios, decays, gains, samples=int(0.34 * rate), rate=rate
  )
  body /= np.abs(body).max() + 1e-9
  click = burst(rng, corner=2500 + 2500 * strength, decay=0.03, rate=rate)
  body[: len(click)] += 0.6 * click
  return strength * body / np.abs(body).max()


def place(
  track: Array, sound: Array, time: float, *, rate: int, gain: float = 1.0
) -> None:
  """Add a sound to a track so that it starts at `time` seconds, in place."""
  start = int(round(time * rate))
  if start < 0 or start >= len(track):
    return
  stop = min(len(track), start + len(sound))
  track[start:stop] += gain * sound[: stop - start]


def fade(track: Array, *, seconds: float, rate: int) -> Array:
  """The track with its last seconds faded out and its first faded in."""
  n = min(len(track) // 2, int(seconds * rate))
  ramp = 0.5 - 0.5 * np.cos(np.pi * np.arange(n) / max(n, 1))
  track = track.copy()
  track[:n] *= ramp
  track[len(track) - n :] *= ramp[::-1]
  return track
