"""Pictures and sounds as other cameras and microphones would have them.

Whatever is drawn here leaves what happens when as it is, so the judge learns to
look for that alone.

  picture  frame rates of 10 to 25 Hz, zoom, mirror, hand-held camera, blur of
           space and time, another picture faintly over it, contrast, noise of
           the sensor
  sound    gain, equaliser, low-pass, room, noise, the same sound quietly at
           another time
"""

import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.sync.inputs import Framing
from v2a_jax.sync.network import FPS, RATE

_POINTS_HZ = (60, 150, 400, 1000, 2500, 6000, 8000)
_LONGEST_ECHO = RATE // 2


def _uniform(key, low, high, shape=()):
  return jax.random.uniform(key, shape, minval=low, maxval=high)


def _often(key, rate: float):
  return jax.random.bernoulli(key, rate)


def slowed(key: jax.Array, times: jax.Array) -> jax.Array:
  """Rounds times in seconds to those of a random frame rate, half the time."""
  keys = jax.random.split(key, 4)
  rate = _uniform(keys[0], 10.0, FPS)
  phase = _uniform(keys[1], 0.0, 1.0)
  early = _uniform(keys[3], 0.0, 0.3)  # Whoever converts rates may round.
  slow = (jnp.floor(times * rate + phase) - phase + early) / rate
  return jnp.where(_often(keys[2], 0.5), jnp.maximum(slow, 0), times)


def framing(key: jax.Array, n: int) -> Framing:
  """Draws zoom, mirroring and the way of a hand-held camera over n frames."""
  keys = jax.random.split(key, 6)
  zoom = jnp.exp(_uniform(keys[0], -0.6, 0.6))
  scale = zoom * jnp.exp(_uniform(keys[1], -0.15, 0.15, (2,)))
  room = jnp.maximum(1 - scale, 0) / 2
  centre = 0.5 + room * _uniform(keys[2], -1.0, 1.0, (2,))
  size = jnp.exp(_uniform(keys[3], jnp.log(1e-4), jnp.log(6e-3)))
  steps = size * jax.random.normal(keys[4], (n, 2))
  way = jnp.cumsum(steps, axis=0) * _often(keys[5], 0.4)
  more = jax.random.split(jax.random.fold_in(key, 1))
  mirror = jnp.where(_often(more[0], 0.5), -1.0, 1.0)
  blur = jnp.exp(_uniform(more[1], -1.0, 1.0))
  return Framing(
    centre=centre + way,
    scale=scale * jnp.stack([1.0, mirror]),
    blur=jnp.maximum(blur, 1.0),
  )


def filmed(key: jax.Array, grey: jax.Array, over: jax.Array) -> jax.Array:
  """Draws a long exposure, and another picture faintly over grey [n h w]."""
  keys = jax.random.split(key, 4)
  share = _uniform(keys[0], 0.0, 0.5) * _often(keys[1], 0.5)
  before = jnp.concatenate([grey[:1], grey[:-1]])
  grey = (1 - share) * grey + share * before
  share = _uniform(keys[2], 0.0, 0.35) * _often(keys[3], 0.35)
  return (1 - share) * grey + share * over


def exposed(key: jax.Array, grey: jax.Array) -> jax.Array:
  """Draws contrast, brightness, polarity, flicker and sensor noise."""
  keys = jax.random.split(key, 7)
  gamma = jnp.exp(_uniform(keys[0], -0.5, 0.5))
  x = jnp.clip(grey, 1e-3, 1) ** gamma
  x = jnp.where(_often(keys[1], 0.3), 1 - x, x)
  x = (x - 0.5) * _uniform(keys[2], 0.3, 1.1) + _uniform(keys[3], 0.3, 0.7)
  flicker = 0.01 * jax.random.normal(keys[4], (len(x), 1, 1))
  noise = jnp.exp(_uniform(keys[5], jnp.log(1e-3), jnp.log(4e-2)))
  drawn = jax.random.bits(keys[6], x.shape, "uint8").astype(x.dtype)
  return x + flicker * noise / 4e-2 + noise * (drawn - 127.5) / 73.9


def heard(key: jax.Array, sound: jax.Array) -> jax.Array:
  """Plays a sound [samples] in another room through another microphone.

  Of silence there is the noise that it would have been heard with.
  """
  keys = jax.random.split(key, 8)
  size = 2 ** int(np.ceil(np.log2(len(sound) + _LONGEST_ECHO)))
  spectrum = jnp.fft.rfft(sound, size)
  spectrum *= _equaliser(keys[0], size) * _room(keys[1], size)
  sound = jnp.fft.irfft(spectrum, size)[: len(sound)]
  level = jnp.sqrt(jnp.square(sound).mean()) + 1e-6
  sound = sound / level
  away = jax.random.randint(keys[2], (), RATE // 2, len(sound) - RATE // 2)
  quiet = 10 ** (_uniform(keys[3], -30.0, -8.0) / 20) * _often(keys[4], 0.4)
  sound = sound + quiet * jnp.roll(sound, away)
  below = 10 ** (-_uniform(keys[5], 0.0, 45.0) / 20)
  sound = sound + below * noise(keys[6], len(sound))
  return 10 ** (_uniform(keys[7], -45.0, -15.0) / 20) * sound


def noise(key: jax.Array, samples: int) -> jax.Array:
  """Draws noise of power 1, between white and brown."""
  keys = jax.random.split(key)
  spectrum = jnp.fft.rfft(jax.random.normal(keys[0], (samples,)))
  hertz = jnp.arange(len(spectrum)) * RATE / samples
  spectrum *= jnp.maximum(hertz, 50.0) ** -_uniform(keys[1], 0.0, 1.0)
  x = jnp.fft.irfft(spectrum, samples)
  return x / jnp.sqrt(jnp.square(x).mean())


def clicks(key: jax.Array, samples: int) -> jax.Array:
  """Draws strokes that belong to no picture: regular ones, or at any time."""
  keys = jax.random.split(key, 7)
  t = jnp.arange(samples) / RATE
  phase = t / _uniform(keys[0], 0.2, 0.8) + _uniform(keys[1], 0.0, 1.0)
  regular = jnp.floor(phase[1:]) > jnp.floor(phase[:-1])
  loose = _uniform(keys[2], 0.0, 1.0, (samples - 1,)) < 3 / RATE
  hit = jnp.where(_often(keys[3], 0.5), regular, loose)
  last = jax.lax.cummax(jnp.where(hit, t[1:], -1.0))
  since = t[1:] - last
  decay = jnp.exp(_uniform(keys[4], jnp.log(0.004), jnp.log(0.08)))
  tone = jnp.sin(2 * jnp.pi * since * _uniform(keys[5], 300.0, 3000.0))
  grain = jax.random.bits(keys[6], since.shape, "uint8") / 128.0 - 1
  stroke = jnp.exp(-since / decay) * (tone + grain)
  return jnp.pad(jnp.where(last >= 0, stroke, 0), (1, 0))


def _equaliser(key, size: int) -> jax.Array:
  """Draws gains of a random equaliser and, half the time, a low-pass."""
  keys = jax.random.split(key, 3)
  hertz = jnp.arange(size // 2 + 1) * RATE / size
  gains = _uniform(keys[0], -9.0, 9.0, (len(_POINTS_HZ),))
  octaves = jnp.log2(jnp.maximum(hertz, 1.0))
  decibels = jnp.interp(octaves, jnp.log2(jnp.array(_POINTS_HZ)), gains)
  cutoff = jnp.exp(_uniform(keys[1], jnp.log(1000.0), jnp.log(8000.0)))
  over = jnp.maximum(octaves - jnp.log2(cutoff), 0)
  decibels -= 24 * over * _often(keys[2], 0.5)
  return 10 ** (decibels / 20)


def _room(key, size: int) -> jax.Array:
  """Draws the spectrum of an echo that dies away; the first sound is at 0."""
  keys = jax.random.split(key, 4)
  t = jnp.arange(_LONGEST_ECHO) / RATE
  decay = jnp.exp(_uniform(keys[0], jnp.log(0.01), jnp.log(0.15)))
  tail = jax.random.normal(keys[1], (len(t),)) * jnp.exp(-t / decay)
  tail /= jnp.sqrt(jnp.square(tail).sum())
  loud = _uniform(keys[2], 0.0, 1.0) * _often(keys[3], 0.6)
  return jnp.fft.rfft((loud * tail).at[0].add(1.0), size)
