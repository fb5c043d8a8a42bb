"""The search for the watermark: every start of the tile, at many speeds, scored.

`pattern.py` has the statistic `z` and its bound `exp(-z^2 / 2)`. By the union
bound over `M` hypotheses, audio without the watermark reaches `z` with
probability at most `M exp(-z^2 / 2)`. A third of the false positive rate is spent
on audio at its original speed, on audio that is played faster or slower, and on
audio that is stretched: its patches last longer, in the same bands.
"""

from collections.abc import Iterator
import dataclasses

import numpy as np
from scipy import fft

from v2a_jax.watermark import pattern, spectrum

FALSE_POSITIVE_RATE = 1e-4
SPEEDS = 0.055  # largest relative change of speed that is searched
HOP = 32  # samples, 2 ms: step of the search for the start of the tile
SLOT = 2 * pattern.PATCH / HOP  # frames
TINY = 1e-14


@dataclasses.dataclass(frozen=True)
class Best:
  """The best hypothesis of a search."""

  score: float = 0.0  # its `z`
  tried: int = 0  # hypotheses in the search
  speed: float = 1.0
  stretched: bool = False
  speeds: int = 1  # of the search
  channel: int = 0
  begin: int = 0  # samples; where its window begins
  numbers: np.ndarray | None = None  # of its slots, from a tile's first on
  starts: np.ndarray | None = None  # of its slots, frames after `begin`
  chips: np.ndarray | None = None  # of its slots, complex [n, chips]

  def __or__(self, other: "Best") -> "Best":
    """Joins two searches."""
    best = self if self.score >= other.score else other
    return dataclasses.replace(best, tried=self.tried + other.tried)

  @property
  def probability(self) -> float:
    """False positive bound `3 M exp(-z^2 / 2)`; a third for each search."""
    log = np.log(max(1, 3 * self.tried)) - self.score * abs(self.score) / 2
    return float(np.exp(min(0.0, log)))

  @property
  def found(self) -> bool:
    """Whether the bound is within the false positive rate."""
    return self.probability <= FALSE_POSITIVE_RATE


def windows_of(n: int, seconds: float) -> Iterator[slice]:
  """Yields windows that overlap by half; none if shorter than a slot."""
  size = int(seconds * pattern.SAMPLE_RATE)
  if n < 2 * pattern.PATCH + pattern.WINDOW:
    return
  for start in range(0, max(1, n - size // 2), size // 2):
    yield slice(start, min(n, start + size))


def speeds_of(windows: list[slice]) -> np.ndarray:
  """Returns speeds other than 1, spaced to drift at most 2 ms in a window."""
  longest = max((w.stop - w.start for w in windows), default=pattern.PATCH)
  step = min(0.004, 0.008 * pattern.SAMPLE_RATE / longest)
  n = int(np.ceil(SPEEDS / step))
  return 1 + step * np.array([i for i in range(-n, n + 1) if i])


def best_of(channels, key, speeds, windows, stretched=False) -> Best:
  """Returns the best hypothesis over channels, windows and speeds."""
  best = Best()
  # Several speeds are scored at every other start, the best again at all.
  stride = 1 if len(speeds) == 1 else 2
  for i, channel in enumerate(channels):
    for window in windows:
      power = power_of(channel[window])
      local = Best()
      for speed in speeds:
        local |= align(power, key, speed, stride, stretched)
      if stride > 1:
        local |= align(power, key, local.speed, 1, stretched)
      best |= dataclasses.replace(
        local, speeds=len(speeds), channel=i, begin=window.start
      )
  return best


def power_of(mono: np.ndarray) -> np.ndarray:
  """Returns the power of every frame, float32 [bins, frames]."""
  padded = np.pad(mono, pattern.WINDOW // 2).astype(np.float32)
  frames = np.lib.stride_tricks.sliding_window_view(padded, pattern.WINDOW)
  frames = frames[::HOP][: len(mono) // HOP] * spectrum.window()
  spectra = fft.rfft(frames.astype(np.float32), axis=1)
  return np.ascontiguousarray((spectra.real**2 + spectra.imag**2).T)


def align(
  power: np.ndarray,
  key: bytes,
  speed: float,
  stride: int,
  stretched: bool = False,
) -> Best:
  """Scores every `stride`-th start of the tile with every weighting."""
  slot = SLOT / speed
  bands = pattern.band_matrix(1.0 if stretched else speed)
  energies = slot_energies(bands @ power, slot / 2)
  if energies is None:
    return Best(speed=speed, stretched=stretched)
  energies = [e[:, ::stride] for e in energies]
  signs, used = signs_of(key)
  best = Best()
  for chips in weighted_chips(*energies, bands.sum(1)):
    signal = squares = 0
    for sign, use, sums in zip(signs, used, fold(chips, slot / stride)):
      signal = signal + (sign @ sums).real
      squares = squares + use @ np.square(sums.view(np.float32))
    noise = np.sqrt(squares.reshape(-1, 2).sum(1) / 2)
    z = signal / np.maximum(noise, TINY)
    i = int(z.argmax())
    here = Best(float(z[i]), len(z), speed, stretched)
    if here.score > best.score:
      numbers, starts = _slots(chips.shape[1], slot / stride, i)
      here = dataclasses.replace(
        here,
        numbers=numbers,
        starts=starts * stride,
        chips=chips[:, starts].T,
      )
    best |= here
  return best


def signs_of(key: bytes) -> tuple[np.ndarray, np.ndarray]:
  """Returns `exp(-i phi)`, 0 for payload, and what is not, [slots, chips]."""
  signs = np.exp(-1j * pattern.phases(key)).T.astype(np.complex64)
  signs[pattern.carries_payload().T] = 0
  return signs, (signs != 0).astype(np.float32)


def slot_energies(bands: np.ndarray, patch: float):
  """Returns energies of both patches of the slot at each frame [bands, starts].

  `bands` are powers [bands, frames]; None if the audio is shorter than a slot.
  """
  total = np.cumsum(bands, axis=1, dtype=np.float64)
  total = np.pad(total, ((0, 0), (1, 0)))
  starts = int(bands.shape[1] - 2 * patch) + 1
  if starts < 1:
    return None

  def until(offset):
    """Interpolates the cumulative energy `offset` frames after each start."""
    whole, part = int(offset), offset - int(offset)
    low = total[:, whole : whole + starts]
    if not part:
      return low
    padded = np.pad(total, ((0, 0), (0, 1)), mode="edge")
    return low + part * (padded[:, whole + 1 : whole + 1 + starts] - low)

  begin, middle, end = until(0.0), until(patch), until(2 * patch)
  return np.maximum(middle - begin, TINY), np.maximum(end - middle, TINY)


def weighted_chips(first, second, widths) -> Iterator[np.ndarray]:
  """Yields `w exp(2 pi i x / STEP)` of the chips x, complex [chips, starts].

  Once for each weighting: equal, for unchanged audio; by energy, for noisy
  audio; after subtraction of the noise power, for stationary noise. `first` and
  `second` are energies of patches, [bands, starts]; `widths` of the bands in
  bins.
  """
  quieter, turned = _turned(first, second)
  yield turned
  yield quieter**0.25 * turned
  density = np.percentile(first / widths[:, None], 10)
  floor = density * widths[:, None]
  first = np.maximum(first - floor, TINY)
  second = np.maximum(second - floor, TINY)
  _, turned = _turned(first, second)
  # The characteristic function of a chip's error in noise, which is about
  # Gaussian, of variance (floor / a + floor / b) / 2 over some 20 cells.
  in_time = floor / first + floor / second
  both = first + second
  in_frequency = floor[0::2] / both[0::2] + floor[1::2] / both[1::2]
  errors = np.concatenate([in_time, in_frequency]).astype(np.float32)
  yield np.exp(-4 * errors) * turned


def _turned(first, second) -> tuple[np.ndarray, np.ndarray]:
  """Returns the lesser energies of chips and `exp(2 pi i x / STEP)`."""
  both = first + second
  one = np.concatenate([first, both[0::2]]).astype(np.float32)
  other = np.concatenate([second, both[1::2]]).astype(np.float32)
  angles = np.float32(np.pi / pattern.STEP) * np.log(one / other)
  turned = np.empty(angles.shape, np.complex64)
  turned.real, turned.imag = np.cos(angles), np.sin(angles)
  return np.minimum(one, other), turned


def fold(chips: np.ndarray, slot: float) -> Iterator[np.ndarray]:
  """Yields sums over all tiles, for each start of the first tile.

  For each slot of the tile these are `C`, complex [chips, tile starts]; tile
  start `i` is `i` starts after the beginning of the audio, minus one tile.
  """
  tile, starts = int(round(slot * pattern.SLOTS)), chips.shape[1]
  shifts = _shifts(starts, slot)
  for k in range(pattern.SLOTS):
    sums = np.zeros((len(chips), tile), np.complex64)
    for shift in shifts[k :: pattern.SLOTS]:
      low, high = max(0, -shift), min(tile, starts - shift)
      if low < high:
        sums[:, low:high] += chips[:, low + shift : high + shift]
    yield sums


def _shifts(starts: int, slot: float) -> list[int]:
  """Returns how much later than the start of the tile each slot begins."""
  tile = int(round(slot * pattern.SLOTS))
  count = int((tile + starts) / slot) + 1
  return [int(round(j * slot)) - tile for j in range(count)]


def _slots(starts: int, slot: float, i: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns numbers and starts of the slots of the tile that starts at `i`."""
  begins = i + np.array(_shifts(starts, slot))
  numbers = np.flatnonzero((begins >= 0) & (begins < starts))
  return numbers, begins[numbers]
