"""Formant speech synthesis: words to phones, phones to sound and mouth shapes.

Source and filter (Fant 1960; Klatt, "Software for a cascade/parallel formant
synthesizer", 1980): each glottal pulse excites the formants, so a voiced sound
is a train of damped sines

  sum_k a_k exp(-pi B_k t) sin(2 pi F_k t)

with formants F_k and bandwidths B_k, one matrix product for all pulses (see
`synthesis`). Stops and fricatives are band-passed noise. Formants of the
vowels: Peterson and Barney, "Control methods used in a study of the vowels",
1952, averages of men.
"""

import dataclasses

import numpy as np

from data_pipelines.scenes import synthesis
from v2a_jax.basics import settings

Array = np.ndarray


@dataclasses.dataclass(frozen=True)
class Phone:
  """One speech sound.

  Attributes:
    formants: F1, F2 and F3 in Hz.
    seconds: usual duration.
    voice: level of the voiced part in 0..1.
    jaw: opening of the mouth, 0 closed to 1 wide open.
    lips: 0 spread, 0.5 at rest, 1 rounded.
    noise: centre in Hz, -3 dB bandwidth in Hz and level of the noise; None for
      a phone without noise.
    burst: whether the noise is a burst after a closure (stops, affricates).
  """

  formants: tuple[float, float, float]
  seconds: float
  voice: float
  jaw: float
  lips: float
  noise: tuple[float, float, float] | None = None
  burst: bool = False


def _vowel(f1, f2, f3, seconds, jaw, lips) -> Phone:
  return Phone((f1, f2, f3), seconds, 1.0, jaw, lips)


PHONES = {
  "iy": _vowel(270, 2290, 3010, 0.15, 0.35, 0.0),
  "ih": _vowel(390, 1990, 2550, 0.11, 0.45, 0.2),
  "eh": _vowel(530, 1840, 2480, 0.13, 0.65, 0.25),
  "ae": _vowel(660, 1720, 2410, 0.16, 0.9, 0.2),
  "aa": _vowel(730, 1090, 2440, 0.17, 1.0, 0.5),
  "ao": _vowel(570, 840, 2410, 0.16, 0.8, 0.85),
  "uh": _vowel(440, 1020, 2240, 0.11, 0.45, 0.8),
  "uw": _vowel(300, 870, 2240, 0.16, 0.3, 1.0),
  "ah": _vowel(640, 1190, 2390, 0.12, 0.75, 0.45),
  "er": _vowel(490, 1350, 1690, 0.15, 0.5, 0.65),
  "w": Phone((290, 610, 2150), 0.07, 0.7, 0.15, 1.0),
  "y": Phone((260, 2070, 3020), 0.06, 0.7, 0.25, 0.1),
  "r": Phone((310, 1060, 1380), 0.07, 0.7, 0.3, 0.75),
  "l": Phone((310, 1050, 2880), 0.07, 0.65, 0.35, 0.4),
  "m": Phone((250, 1000, 2200), 0.08, 0.4, 0.0, 0.5),
  "n": Phone((250, 1500, 2500), 0.07, 0.4, 0.18, 0.4),
  "ng": Phone((250, 1900, 2600), 0.08, 0.4, 0.22, 0.4),
  "s": Phone((300, 1700, 2600), 0.11, 0.0, 0.12, 0.1, (6200, 2200, 0.5)),
  "sh": Phone((300, 1800, 2400), 0.11, 0.0, 0.15, 0.9, (2900, 1500, 0.5)),
  "f": Phone((320, 1100, 2100), 0.10, 0.0, 0.06, 0.3, (4500, 5000, 0.25)),
  "th": Phone((320, 1300, 2500), 0.09, 0.0, 0.15, 0.3, (5500, 5000, 0.2)),
  "hh": Phone((500, 1500, 2500), 0.07, 0.0, 0.45, 0.4, (1600, 1800, 0.25)),
  "v": Phone((250, 1100, 2100), 0.07, 0.4, 0.06, 0.3, (4500, 5000, 0.1)),
  "dh": Phone((270, 1300, 2500), 0.05, 0.4, 0.15, 0.3, (5000, 5000, 0.08)),
  "z": Phone((270, 1700, 2600), 0.08, 0.4, 0.12, 0.1, (6000, 2200, 0.25)),
  "p": Phone((300, 900, 2200), 0.09, 0.0, 0.0, 0.5, (900, 1200, 0.7), True),
  "t": Phone((300, 1700, 2700), 0.09, 0.0, 0.12, 0.3, (4500, 2500, 0.7), True),
  "k": Phone((300, 1900, 2300), 0.09, 0.0, 0.2, 0.4, (2000, 1000, 0.7), True),
  "b": Phone((250, 900, 2200), 0.07, 0.3, 0.0, 0.5, (700, 900, 0.5), True),
  "d": Phone((250, 1700, 2700), 0.07, 0.3, 0.12, 0.3, (3800, 2500, 0.5), True),
  "g": Phone((250, 1900, 2300), 0.07, 0.3, 0.2, 0.4, (1800, 900, 0.5), True),
  "ch": Phone((300, 1800, 2500), 0.13, 0.0, 0.15, 0.9, (3000, 1500, 0.6), True),
  "jh": Phone((270, 1800, 2500), 0.11, 0.3, 0.15, 0.9, (2800, 1500, 0.4), True),
}  # fmt: skip

VOCABULARY = {
  word: tuple(phones.split())
  for word, phones in {
    "go": "g ao uw", "stop": "s t aa p", "look": "l uh k", "see": "s iy",
    "take": "t eh iy k", "give": "g ih v", "find": "f aa ih n d",
    "move": "m uw v", "bring": "b r ih ng", "show": "sh ao uw",
    "red": "r eh d", "green": "g r iy n", "blue": "b l uw",
    "white": "w aa ih t", "black": "b l ae k", "big": "b ih g",
    "small": "s m ao l", "old": "ao uw l d", "new": "n uw",
    "one": "w ah n", "two": "t uw", "three": "th r iy", "four": "f ao r",
    "five": "f aa ih v", "six": "s ih k s", "seven": "s eh v ah n",
    "eight": "eh iy t", "nine": "n aa ih n", "ten": "t eh n",
    "cats": "k ae t s", "dogs": "d aa g z", "birds": "b er d z",
    "fish": "f ih sh", "stones": "s t ao uw n z", "boats": "b ao uw t s",
    "flowers": "f l aa uw er z", "houses": "hh aa uw s ih z",
    "shoes": "sh uw z", "now": "n aa uw", "again": "ah g eh n",
    "please": "p l iy z", "today": "t ah d eh iy", "soon": "s uw n",
    "here": "hh ih r", "there": "dh eh r", "hello": "hh ah l ao uw",
    "yes": "y eh s", "no": "n ao uw", "water": "w ao t er",
    "moon": "m uw n", "sun": "s ah n", "morning": "m ao r n ih ng",
    "good": "g uh d", "my": "m aa ih", "and": "ae n d",
  }.items()
}  # fmt: skip

# Parts of a sentence in the order of English.
_SLOTS = (
  ("hello", "yes", "no", "and", "good", "now", "please"),
  ("go", "stop", "look", "see", "take", "give", "find", "move", "bring",
   "show"),
  ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
   "ten", "my"),
  ("red", "green", "blue", "white", "black", "big", "small", "old", "new"),
  ("cats", "dogs", "birds", "fish", "stones", "boats", "flowers", "houses",
   "shoes", "water", "moon", "sun", "morning"),
  ("now", "again", "please", "today", "soon", "here", "there"),
)  # fmt: skip


def sentence(rng: np.random.Generator) -> list[str]:
  """Draws two to six words of `VOCABULARY` in the order of English."""
  count = int(rng.integers(2, 7))
  slots = np.sort(rng.choice(len(_SLOTS), size=count, replace=False))
  return [str(rng.choice(_SLOTS[slot])) for slot in slots]


@dataclasses.dataclass(frozen=True)
class Voice:
  """A speaker.

  Attributes:
    pitch: mean fundamental frequency in Hz.
    scale: factor on the formants, 1 for a man.
    pace: factor on the durations of the phones.
  """

  pitch: float
  scale: float
  pace: float

  def __post_init__(self):
    positive = "(0, inf)"
    settings.check(self, pitch=positive, scale=positive, pace=positive)


@dataclasses.dataclass(frozen=True)
class Utterance:
  """A timed sentence.

  Attributes:
    words: (word, start, end), times in seconds.
    phones: (key of `PHONES`, start, end), times in seconds.
  """

  words: tuple[tuple[str, float, float], ...]
  phones: tuple[tuple[str, float, float], ...]


def schedule(
  rng: np.random.Generator, words: list[str], voice: Voice, *, seconds: float
) -> Utterance:
  """Draws start, durations and pauses of a sentence of `VOCABULARY`'s words.

  The words that do not fit into `seconds` are left out.
  """
  now = float(rng.uniform(0.15, min(1.0, 0.3 * seconds)))
  timed, phones = [], []
  for word in words:
    spoken, start = [], now
    for name in VOCABULARY[word]:
      length = PHONES[name].seconds * voice.pace * rng.uniform(0.85, 1.2)
      spoken.append((name, now, now + length))
      now += length
    if now > seconds - 0.08:
      break
    timed.append((word, start, now))
    phones += spoken
    now += float(rng.choice([0.05, 0.12, 0.3, 0.5]) * rng.uniform(0.7, 1.3))
  return Utterance(tuple(timed), tuple(phones))


def _keyframes(
  utterance: Utterance, values: Array, rest: Array
) -> tuple[Array, Array]:
  """Returns the knots of piecewise linear tracks through the phones' values.

  A phone holds its values [phones, k] for the middle half of its duration;
  `rest` [k] are those in silence. Knots are times [m] and values [m, k].
  """
  knots, track = [-1.0], [rest]
  before = -1.0
  for (_, start, end), value in zip(utterance.phones, values):
    if start - before > 0.03:
      knots += [before + 0.02, start - 0.01]
      track += [rest] * 2
    margin = 0.25 * (end - start)
    knots += [start + margin, end - margin]
    track += [value, value]
    before = end
  knots += [before + 0.03, before + 1e3]
  track += [rest] * 2
  return np.asarray(knots), np.asarray(track)


def mouth(utterance: Utterance, times: Array) -> tuple[Array, Array]:
  """Returns jaw opening [n] and lip rounding [n] in 0..1 at times [n]."""
  shapes = np.array(
    [(PHONES[p].jaw, PHONES[p].lips) for p, _, _ in utterance.phones]
  )
  knots, track = _keyframes(utterance, shapes, np.array([0.0, 0.4]))
  return tuple(np.interp(times, knots, track[:, i]) for i in range(2))


def speak(
  rng: np.random.Generator,
  utterance: Utterance,
  voice: Voice,
  *,
  samples: int,
  rate: int,
) -> Array:
  """Synthesises an utterance as float [samples] with peak 1."""
  track = _voiced(rng, utterance, voice, samples=samples, rate=rate)
  for name, start, end in utterance.phones:
    noise = PHONES[name].noise
    if noise is None:
      continue
    centre, bandwidth, level = noise
    if PHONES[name].burst:
      length = 0.055 if name in ("ch", "jh") else 0.03
      # A stop that opens a word has no closure before its burst.
      if not any(abs(start - word[1]) < 1e-6 for word in utterance.words):
        start = end - length
      n = np.arange(int(length * rate))
      shape = np.exp(-n / (0.3 * max(len(n), 1)))
    else:
      n = np.arange(int((end - start) * rate))
      edge = max(min(len(n) // 2, int(0.012 * rate)), 1)
      shape = np.minimum((np.minimum(n, n[::-1]) + 1) / edge, 1.0)
    centre = min(centre * voice.scale, 0.42 * rate)
    sound = synthesis.band_noise(
      rng, len(n), frequency=centre, bandwidth=bandwidth, rate=rate
    )
    synthesis.place(track, 0.4 * level * sound * shape, start, rate=rate)
  return track / (np.abs(track).max() + 1e-9)


def _voiced(rng, utterance, voice, *, samples, rate) -> Array:
  """Synthesises the voiced part [samples], pulse by glottal pulse."""
  phones = [PHONES[name] for name, _, _ in utterance.phones]
  values = np.array([(*p.formants, p.voice) for p in phones])
  knots, track = _keyframes(utterance, values, np.array([500, 1500, 2500, 0.0]))
  end = utterance.phones[-1][2]
  coarse = np.arange(0.0, end + 0.1, 0.01)
  accent = sum(
    np.exp(-(((coarse - 0.6 * s - 0.4 * e) / 0.12) ** 2))
    for _, s, e in utterance.words
  )
  melody = voice.pitch * (1 - 0.05 * coarse + 0.14 * accent)
  cycles = np.concatenate([[0.0], np.cumsum(melody[:-1] * 0.01)])
  pulses = np.interp(np.arange(1, int(cycles[-1])), cycles, coarse)
  pulses = pulses + rng.normal(0, 0.00015, len(pulses))
  level = np.interp(pulses, knots, track[:, 3])
  audible = level > 0.01
  pulses, level = pulses[audible], level[audible]
  formants = np.stack(
    [np.interp(pulses, knots, track[:, i]) for i in range(3)], axis=1
  )
  fourth = np.full((len(pulses), 1), 3500.0)
  formants = np.concatenate([formants, fourth], axis=1) * voice.scale
  rings = _pulse_rings(formants, rate=rate) * level[:, None]
  out = np.zeros(samples + rings.shape[1])
  starts = np.round(pulses * rate).astype(int)
  for start, sound in zip(starts, rings):
    if 0 <= start < samples:
      out[start : start + len(sound)] += sound
  return out[:samples]


def _pulse_rings(formants: Array, *, rate: int) -> Array:
  """Returns the response [pulses, t] of formants [pulses, 4] in Hz."""
  widths = np.array([70.0, 100.0, 150.0, 250.0])
  gains = np.array([1.0, 0.6, 0.3, 0.12])
  pole = (-np.pi * widths + 2j * np.pi * formants) / rate
  block = max(4, int(np.sqrt(0.014 * rate)))
  steps = np.arange(block)
  outer = np.exp(pole[:, None, :] * (block * steps)[:, None]) * gains
  inner = np.exp(pole[:, :, None] * steps)
  product = outer.astype(np.complex64) @ inner.astype(np.complex64)
  return product.imag.reshape(len(formants), -1)
