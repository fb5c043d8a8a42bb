"""Embedding: moves every chip towards its lattice with the least energy.

A chip `1/2 log(E1 / E2)` changes by `e` if the amplitude of the first patch is
scaled by `exp(a)` and that of the second by `exp(-(e - a))`. The energy of the
change, about `E1 a^2 + E2 (e - a)^2`, is smallest at `a = e E2 / (E1 + E2)`, so
the quieter patch changes most. Frames overlap, so patches are not quite
independent; the gains are found in a few iterations.
"""

import numpy as np

from v2a_jax.basics import scratch
from v2a_jax.watermark import pattern, spectrum

# dBFS of the noise that fills quieter patches, so that silence also carries the
# watermark.
FLOOR = -65.0
_HOP = 120  # samples; eight frames per patch
_ITERATIONS = 4
_MAX_GAIN = 1.2 * pattern.STEP  # nepers, of a patch
_TINY = 1e-12


def embed(
  samples: np.ndarray,
  sample_rate: int,
  *,
  key: bytes | str | None = None,
  payload: int = 0,
) -> np.ndarray:
  """Embeds the watermark.

  Gains are computed from the mean of the channels and applied to each channel.
  Frequencies above 7 kHz are unchanged, and nothing moves in time. Long audio is
  marked in pieces of 48 s, so that only the result grows with it.

  Args:
    samples: floats [t, channels] in [-1, 1].
    sample_rate: sample rate in Hz.
    key: key of the watermark; None for the default of `pattern.resolve_key`.
    payload: 16 bits that `detect` returns.

  Returns:
    float32 [t, channels], in [-1, 1] if `samples` are.

  Raises:
    ValueError: the samples, sample rate, key or payload are refused.
  """
  key = pattern.resolve_key(key)
  # Offset of each chip's lattice, nepers [chips, slots].
  turns = pattern.phases(key) / (2 * np.pi) + pattern.bits(key, payload) / 2
  original = spectrum.check(samples, sample_rate)
  if not original.size:
    return original.astype(np.float32)
  rate, base_rate = int(sample_rate), pattern.SAMPLE_RATE
  noise = _Noise(key)
  peak = max(1.0, original.max(), -original.min())
  marked = scratch.empty(original.shape)
  for around, piece in spectrum.pieces(len(original), rate):
    part = original[around].astype(np.float64)
    base = spectrum.resample(part, rate, base_rate)
    first = around.start // rate * base_rate
    slot = first // (2 * pattern.PATCH) % pattern.SLOTS
    change = _change(
      base,
      np.roll(turns, -slot, axis=1) * pattern.STEP,
      noise.take(first, len(base)),
    )
    change = spectrum.resample(change, base_rate, rate)[: len(part)]
    new = np.clip(part + change, -peak, peak)
    marked[piece] = new[piece.start - around.start :][
      : piece.stop - piece.start
    ]
  return marked


class _Noise:
  """The noise that fills silence, of which later parts are wanted later."""

  def __init__(self, key: bytes):
    seed = pattern.keystream(key, "noise", 4).tolist()
    self._rng, self._begin = np.random.default_rng(seed), 0
    self._kept = np.zeros(0)

  def take(self, begin: int, count: int) -> np.ndarray:
    """Returns samples [count] at the watermark's rate, from `begin` on."""
    missing = max(begin + count - self._begin - len(self._kept), 0)
    drawn = self._rng.standard_normal(missing) * 10 ** (FLOOR / 20)
    self._kept = np.concatenate([self._kept, drawn])[begin - self._begin :]
    self._begin = begin
    return self._kept[:count]


def _change(
  base: np.ndarray, targets: np.ndarray, noise: np.ndarray
) -> np.ndarray:
  """Returns the signal that is added to `base` [t, channels] at 16 kHz."""
  n = len(base)
  # At least one slot, which is also enough for the transform.
  padded = max(n, 2 * pattern.PATCH)
  base = np.pad(base, ((0, padded - n), (0, 0)))
  grid = _Grid(padded)
  filled = base + grid.fill(base.mean(1), np.resize(noise, padded))[:, None]
  gains = grid.solve(filled.mean(1), targets)
  marked = [grid.apply(channel, gains) for channel in filled.T]
  return (np.stack(marked, 1) - base)[:n]


class _Grid:
  """Patches of a signal of `n` samples at 16 kHz, and gains on them."""

  def __init__(self, n: int):
    self.n = n
    self.transform = spectrum.transform(_HOP)
    self.bands = pattern.band_matrix()
    self.covered = self.bands.sum(0)  # fraction of each bin inside the bands
    times = np.round(self.transform.t(n) * pattern.SAMPLE_RATE).astype(int)
    self.patches = 2 * -(-n // (2 * pattern.PATCH))
    self.patch = times // pattern.PATCH
    self.inside = (self.patch >= 0) & (self.patch < self.patches)

  def energies(self, spectra: np.ndarray) -> np.ndarray:
    """Returns energies [bands, patches] of complex spectra [bins, frames]."""
    power = self.bands @ np.abs(spectra[:, self.inside]) ** 2
    out = np.zeros((self.patches, pattern.BANDS))
    np.add.at(out, self.patch[self.inside], power.T)
    return out.T + _TINY

  def field(self, patches: np.ndarray) -> np.ndarray:
    """Spreads values [bands, patches] over [bins, frames], zero outside."""
    frames = np.zeros((pattern.BANDS, len(self.patch)))
    frames[:, self.inside] = patches[:, self.patch[self.inside]]
    mean = self.bands.T @ frames / np.maximum(self.covered, _TINY)[:, None]
    # A bin that is only partly inside the bands takes part of the gain.
    return mean * np.minimum(self.covered, 1)[:, None]

  def fill(self, mono: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Returns `noise`, scaled to raise every patch of `mono` to the floor."""
    spectra = self.transform.stft(noise)
    floor = self.energies(spectra).mean(1, keepdims=True)
    energies = self.energies(self.transform.stft(mono))
    gains = np.sqrt(np.clip(1 - energies / floor, 0, 1))
    return self.transform.istft(spectra * self.field(gains), k1=self.n)

  def solve(self, mono: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns gains, nepers [bands, patches], that put chips on the lattice."""
    slots = np.arange(self.patches // 2) % pattern.SLOTS
    targets = targets[:, slots]
    gains = np.zeros((pattern.BANDS, self.patches))
    goal, marked = None, mono
    for _ in range(_ITERATIONS):
      energies = self.energies(self.transform.stft(marked))
      chips = _chips(energies)
      if goal is None:
        goal = chips + pattern.COMPENSATION * _wrap(targets - chips)
      gains = gains + _steps(energies, goal - chips)
      gains = np.clip(gains, -_MAX_GAIN, _MAX_GAIN)
      marked = self.apply(mono, gains)
    return gains

  def apply(self, mono: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Applies gains, nepers [bands, patches], to samples [t]."""
    spectra = self.transform.stft(mono) * np.exp(self.field(gains))
    return self.transform.istft(spectra, k1=self.n)


def _wrap(x: np.ndarray) -> np.ndarray:
  """Returns x modulo STEP, in [-STEP / 2, STEP / 2)."""
  return (x + pattern.STEP / 2) % pattern.STEP - pattern.STEP / 2


def _chips(energies: np.ndarray) -> np.ndarray:
  """Returns chips, nepers [chips, slots], of energies [bands, patches]."""
  first, second = energies[:, 0::2], energies[:, 1::2]
  both = first + second
  in_time = np.log(first / second) / 2
  in_frequency = np.log(both[0::2] / both[1::2]) / 2
  return np.concatenate([in_time, in_frequency])


def _steps(energies: np.ndarray, errors: np.ndarray) -> np.ndarray:
  """Returns the smallest gains, nepers [bands, patches], that add `errors`."""
  first, second = energies[:, 0::2], energies[:, 1::2]
  both = first + second
  in_time, in_frequency = np.split(errors, [pattern.BANDS])
  lower, upper = both[0::2], both[1::2]
  slot = np.empty_like(both)
  slot[0::2] = in_frequency * upper / (lower + upper)
  slot[1::2] = -in_frequency * lower / (lower + upper)
  out = np.empty_like(energies)
  out[:, 0::2] = slot + in_time * second / both
  out[:, 1::2] = slot - in_time * first / both
  return out
