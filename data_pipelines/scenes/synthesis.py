"""Synthesises the sounds of contact, friction, bubbles, strings and air.

Modal synthesis: a struck object rings as

  s[n] = sum_m a_m exp(-d_m n) sin(w_m n)

with the frequency ratios and dampings of its material (van den Doel and Pai,
"The Sounds of Physical Shapes", 1998). With z_m = exp(-d_m + i w_m) and
n = p B + q the sum is one small matrix product, (a_m z_m^(p B)) @ (z_m^q), so a
second of sound with a dozen modes takes a fraction of a millisecond.

A mode that falls by 60 dB in T seconds has d = ln(1000) / (T rate).

Bubbles: a bubble rings at the Minnaert frequency of 3.26 m/s / radius and rises
in pitch as it nears the surface (van den Doel, "Physically based models for
liquid sounds", 2005).

Sounds are float [t] at `rate` Hz; the peak of a sound of full strength is 1.
"""

import dataclasses

import numpy as np
from scipy import signal

Array = np.ndarray
Rng = np.random.Generator

# Frequencies of the modes over that of the first. A bar with free ends: squares
# of the roots of cos x cosh x = 1; a round membrane: zeros of Bessel functions
# J_m (Fletcher and Rossing, "The Physics of Musical Instruments", ch. 2 and 3).
BAR = (1.0, 2.756, 5.404, 8.933, 13.34)
MEMBRANE = (1.0, 1.593, 2.136, 2.296, 2.653, 2.918, 3.6)
# Wine glass, from the table of modal frequency ratios in the Csound manual.
SHELL = (1.0, 2.32, 4.25, 6.63, 9.38)
# Inharmonic ratios without a measurement behind them.
PLATE = (1.0, 1.59, 2.14, 2.65, 3.16, 4.15, 5.43, 6.79)
LUMP = (1.0, 1.42, 1.93, 2.71, 3.84)


@dataclasses.dataclass(frozen=True)
class Material:
  """Acoustic, visual and elastic properties of a material.

  Attributes:
    name: noun, for captions, events and the texture of `render.Surface`.
    adjective: for captions.
    pitch: first mode of the largest and of the smallest object, Hz.
    ratios: frequencies of the modes over that of the first.
    ring: time in which the first mode falls by 60 dB, seconds.
    slope: a mode's decay time is ring / (1 + slope (ratio - 1)).
    tilt: a mode's amplitude is ratio ** -tilt under a hit of full strength.
    click: corner frequency of the contact noise, Hz.
    bite: level of the contact noise relative to the modes.
    restitution: ratio of the speeds after and before a bounce on the floor.
    colour: red, green and blue in 0..1.
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


MATERIALS = {
  m.name: m
  for m in (
    Material("wood", "wooden", (260, 620), BAR, 0.16, 0.6, 0.7, 3500, 0.5, 0.6,
             (0.64, 0.40, 0.19)),
    Material("metal", "metal", (420, 1150), PLATE, 0.75, 0.12, 0.25, 7500, 0.5,
             0.68, (0.55, 0.63, 0.72)),
    Material("glass", "glass", (1250, 2500), SHELL, 0.42, 0.25, 0.5, 7500, 0.4,
             0.7, (0.55, 0.93, 0.95)),
    Material("plastic", "plastic", (330, 760), LUMP, 0.1, 0.4, 0.6, 4500, 0.7,
             0.74, (0.95, 0.27, 0.2)),
    Material("stone", "stone", (800, 1600), LUMP, 0.055, 0.3, 0.3, 5500, 0.9,
             0.48, (0.56, 0.53, 0.5)),
    Material("rubber", "rubber", (95, 210), LUMP, 0.15, 0.8, 1.3, 1300, 0.5,
             0.84, (0.24, 0.14, 0.34)),
    Material("ceramic", "ceramic", (700, 1500), SHELL, 0.18, 0.35, 0.5, 6000,
             0.6, 0.55, (0.24, 0.42, 0.85)),
  )
}  # fmt: skip


def ring(
  frequencies: Array, decays: Array, gains: Array, *, samples: int, rate: int
) -> Array:
  """Returns a sum of damped sines, float32 [samples].

  Mode m has frequency [m] in Hz (left out above 0.46 `rate`), falls by 60 dB
  within decay [m] seconds, and begins with amplitude gain [m].
  """
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
  """Returns the sound of a contact: decaying low-passed noise of RMS 0.35.

  It is float [1.2 decay rate], at least 8 samples, falls by 60 dB in `decay`
  seconds and is low-passed by one pole at `corner` Hz.
  """
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
  """Returns the sound of one hit on an object: its modes and contact noise.

  Args:
    rng: random numbers; each hit excites the modes a little differently.
    material: material of the object.
    size: 0 (small, high-pitched) to 1 (large, low-pitched).
    strength: 0..1, the peak; a harder hit is louder and brighter.
    rate: sample rate in Hz.
    damping: divides the decay times, above 1 for an object that is held.
  """
  low, high = material.pitch
  first = low * (high / low) ** (1.0 - size)
  ratios = np.asarray(material.ratios)
  decays = material.ring / (1 + material.slope * (ratios - 1)) / damping
  tilt = material.tilt + 0.6 * (1.0 - strength)
  gains = ratios**-tilt * rng.uniform(0.7, 1.3, len(ratios))
  samples = int(min(1.5, 1.1 * decays[0]) * rate)
  body = ring(first * ratios, decays, gains, samples=samples, rate=rate)
  corner = material.click * (0.5 + 0.5 * strength)
  click = burst(rng, corner=corner, decay=0.012, rate=rate)
  return _with_click(body, material.bite * click, strength)


def _with_click(body: Array, click: Array, strength: float) -> Array:
  """Adds contact noise to a body of peak 1; returns peak `strength`."""
  body = body / (np.abs(body).max() + 1e-9)
  body[: len(click)] += click[: len(body)]
  return strength * body / np.abs(body).max()


def bubble(frequency: float, *, decay: float, rise: float, rate: int) -> Array:
  """Returns a bubble's sound [1.1 decay rate]: a decaying sine of rising pitch.

  `frequency` (Hz) grows by the fraction `rise` of it within `decay` seconds, in
  which the sound falls by 60 dB.
  """
  n = np.arange(int(1.1 * decay * rate))
  u = n / (decay * rate)
  phase = 2 * np.pi * frequency * decay * (u + 0.5 * rise * u * u)
  return np.sin(phase) * np.exp(-np.log(1000.0) * u)


def resonator(
  x: Array, frequency: float, bandwidth: float, *, rate: int
) -> Array:
  """Filters a sound with a two-pole band-pass of unit gain at its centre.

  `frequency` (0.46 `rate` at most) and the -3 dB `bandwidth` are in Hz.
  """
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
  """Returns band-passed noise [samples] of unit RMS; see `resonator`."""
  noise = resonator(
    rng.standard_normal(samples), frequency, bandwidth, rate=rate
  )
  return noise / (np.sqrt(np.mean(noise * noise)) + 1e-9)


def rumble(rng: Rng, samples: int, *, corner: float, rate: int) -> Array:
  """Returns unit-RMS noise [samples], low-passed by one pole at `corner` Hz."""
  keep = np.exp(-2 * np.pi * corner / rate)
  noise = signal.lfilter([1 - keep], [1, -keep], rng.standard_normal(samples))
  return noise / (np.sqrt(np.mean(noise * noise)) + 1e-9)


def pluck(rng: Rng, frequency: float, *, strength: float, rate: int) -> Array:
  """Returns the sound of a plucked string, float [1.1 rate], peak `strength`.

  Plucked at the share p of its length, the string's partial k has amplitude
  sin(pi k p) / k^1.3 (darker when soft) and, being stiff, the frequency
  k f sqrt(1 + B k^2) with B = 2e-4 (Fletcher and Rossing, ch. 2); f is the
  fundamental `frequency` in Hz.
  """
  decay = 1.1
  k = np.arange(1, min(24, int(0.45 * rate / frequency)) + 1)
  point = rng.uniform(0.12, 0.3)
  gains = np.sin(np.pi * k * point) / k ** (1.3 + 0.5 * (1 - strength))
  stretch = np.sqrt(1 + 2e-4 * k * k)
  decays = decay / (1 + 0.12 * (k - 1))
  body = ring(
    frequency * k * stretch, decays, gains, samples=int(decay * rate), rate=rate
  )
  click = burst(rng, corner=5000, decay=0.01, rate=rate)
  return _with_click(body, 0.5 * click, strength)


def drum(rng: Rng, frequency: float, *, strength: float, rate: int) -> Array:
  """Returns a drum hit, float [0.34 rate] with peak `strength` in 0..1.

  It consists of the modes of a round membrane, the first at `frequency` Hz and
  each hit with other amplitudes, and of the stick's noise.
  """
  ratios = np.asarray(MEMBRANE)
  decays = 0.32 / (1 + 0.5 * (ratios - 1))
  gains = ratios**-0.8 * rng.uniform(0.6, 1.2, len(ratios))
  body = ring(
    frequency * ratios, decays, gains, samples=int(0.34 * rate), rate=rate
  )
  click = burst(rng, corner=2500 + 2500 * strength, decay=0.03, rate=rate)
  return _with_click(body, 0.6 * click, strength)


def cymbal(rng: Rng, *, strength: float, rate: int) -> Array:
  """Returns a cymbal's sound, float [rate / 2]: dense modes and a hiss."""
  ratios = np.sort(rng.uniform(1.0, 14.0, 28))
  gains = rng.uniform(0.4, 1.0, 28)
  samples = int(0.5 * rate)
  body = ring(480 * ratios, np.full(28, 0.5), gains, samples=samples, rate=rate)
  hiss = burst(rng, corner=7500, decay=0.2, rate=rate)
  return _with_click(body, hiss, strength)


def place(
  track: Array, sound: Array, time: float, *, rate: int, gain: float = 1.0
) -> None:
  """Adds `gain` times a sound to a track, from `time` (seconds), in place.

  What lies beyond the end of the track is cut off; a sound that starts outside
  the track is left out.
  """
  start = int(round(time * rate))
  if start < 0 or start >= len(track):
    return
  stop = min(len(track), start + len(sound))
  track[start:stop] += gain * sound[: stop - start]


def fade(track: Array, *, seconds: float, rate: int) -> Array:
  """Returns a track [t] with raised-cosine fades of `seconds` at both ends."""
  n = min(len(track) // 2, int(seconds * rate))
  ramp = 0.5 - 0.5 * np.cos(np.pi * np.arange(n) / max(n, 1))
  track = track.copy()
  track[:n] *= ramp
  track[len(track) - n :] *= ramp[::-1]
  return track
