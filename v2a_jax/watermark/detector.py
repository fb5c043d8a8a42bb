"""Detection: searches the start of the tile, scores it, reads the payload.

`pattern.py` has the statistic `z` and its bound `exp(-z^2 / 2)`. By the union
bound over `M` hypotheses, audio without the watermark reaches `z` with
probability at most `M exp(-z^2 / 2)`. A third of the false positive rate is spent
on audio at its original speed, on audio that is played faster or slower, and on
audio that is stretched: its patches last longer, in the same bands.

Where the mark is, windows of 2 s tell, which overlap by half and are aligned
anew. One is marked if its `z` passes the same rate, with all windows, starts,
weightings, channels and speeds as hypotheses. Its slots have a `z` each, about
equal where there is a mark and around 0 where there is none: of all runs of
slots, the one counts whose sum of `z - level / 2` is largest (as in Page's test
for a change, 1954, https://doi.org/10.1093/biomet/41.1-2.100).
"""

from collections.abc import Iterator
import dataclasses
import itertools

import numpy as np
from scipy import fft

from v2a_jax.basics import scratch
from v2a_jax.watermark import pattern, spectrum

FALSE_POSITIVE_RATE = 1e-4
SPEEDS = 0.055  # largest relative change of speed that is searched
# Probability of returning a wrong payload for audio with the watermark.
_PAYLOAD_ERROR = 1e-3
_HOP = 32  # samples, 2 ms: step of the search for the start of the tile
_SLOT = 2 * pattern.PATCH / _HOP  # frames
_WINDOW = 8.0  # seconds that are scored together
_STRETCHED_WINDOW = 4.0  # seconds, in the search over speeds
_STRETCHED_WINDOWS = 4  # number of windows in the search over speeds
_PLACE_WINDOW = 2.0  # seconds, in the search for where the mark is
_MARGIN = 4 * _HOP  # samples of silence around such a window
_TINY = 1e-14


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
  """A stretch of the audio that carries the watermark.

  Attributes:
    start: beginning in seconds, right to about 0.12.
    end: end in seconds, likewise.
    score: `z` of the best window of 2 s in it.
    payload: what that window says; None if it cannot be read.
  """

  start: float
  end: float
  score: float
  payload: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detection:
  """Result of `detect`.

  Attributes:
    found: whether the watermark is present, with at most 1e-4 false positives.
    score: `z` of the best hypothesis; at most 34.
    payload: 16-bit payload; None if it cannot be read.
    false_positive_probability: bound on the probability that audio independent
      of the key reaches the score anywhere in the search.
    seconds_examined: duration of the audio in seconds.
    speed: playback speed of the best hypothesis relative to the original.
    stretched: whether it has the original's pitch at that speed.
    places: where the watermark is, in order; none if it is not found. What is
      not in one may still be marked, too weakly for a window of 2 s.
  """

  found: bool
  score: float
  payload: int | None
  false_positive_probability: float
  seconds_examined: float
  speed: float = 1.0
  stretched: bool = False
  places: tuple[Place, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Best:
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

  def __or__(self, other: "_Best") -> "_Best":
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


def detect(
  samples: np.ndarray, sample_rate: int, *, key: bytes | str | None = None
) -> Detection:
  """Searches the watermark of `key`.

  Windows of 8 s are scored separately and the best one counts, so a part of a
  long file suffices. If that gives no payload, up to four windows of 4 s are
  searched at speeds within 5 %, and if nothing is found, with the pitch kept.

  Args:
    samples: floats [t, channels]; the mean and each channel are searched.
    sample_rate: sample rate in Hz.
    key: key of the watermark; None for the default of `pattern.resolve_key`.

  Raises:
    ValueError: the samples, sample rate or key are refused.
  """
  key = pattern.resolve_key(key)
  original = spectrum.check(samples, sample_rate)
  base = spectrum.at_base(original, int(sample_rate))
  channels = list(base.T)
  if len(channels) > 1:
    middle = scratch.empty(len(base))
    channels.insert(0, base.mean(1, out=middle))
  best = _search(channels, key, [1.0], list(_windows(len(base), _WINDOW)))
  payload = _read_payload(best, key)
  if payload is None:
    windows = list(_windows(len(base), _STRETCHED_WINDOW))
    count = min(len(windows), _STRETCHED_WINDOWS)
    spread = np.linspace(0, len(windows) - 1, count).astype(int)
    windows = [windows[i] for i in spread]
    for stretched in (False, True):
      other = _search(channels, key, _speeds(windows), windows, stretched)
      best = min(best, other, key=lambda x: x.probability)
      if best.found:
        break
    payload = _read_payload(best, key)
  places = _places(channels, key, best) if best.found else ()
  return Detection(
    found=best.found,
    score=best.score,
    payload=payload,
    false_positive_probability=best.probability,
    seconds_examined=len(original) / sample_rate,
    speed=best.speed,
    stretched=best.stretched,
    places=places,
  )


def _windows(n: int, seconds: float) -> Iterator[slice]:
  """Yields windows that overlap by half; none if shorter than a slot."""
  size = int(seconds * pattern.SAMPLE_RATE)
  if n < 2 * pattern.PATCH + pattern.WINDOW:
    return
  for start in range(0, max(1, n - size // 2), size // 2):
    yield slice(start, min(n, start + size))


def _speeds(windows: list[slice]) -> np.ndarray:
  """Returns speeds other than 1, spaced to drift at most 2 ms in a window."""
  longest = max((w.stop - w.start for w in windows), default=pattern.PATCH)
  step = min(0.004, 0.008 * pattern.SAMPLE_RATE / longest)
  n = int(np.ceil(SPEEDS / step))
  return 1 + step * np.array([i for i in range(-n, n + 1) if i])


def _search(channels, key, speeds, windows, stretched=False) -> _Best:
  """Returns the best hypothesis over channels, windows and speeds."""
  best = _Best()
  # Several speeds are scored at every other start, the best again at all.
  stride = 1 if len(speeds) == 1 else 2
  for i, channel in enumerate(channels):
    for window in windows:
      power = _power(channel[window])
      local = _Best()
      for speed in speeds:
        local |= _align(power, key, speed, stride, stretched)
      if stride > 1:
        local |= _align(power, key, local.speed, 1, stretched)
      best |= dataclasses.replace(
        local, speeds=len(speeds), channel=i, begin=window.start
      )
  return best


def _power(mono: np.ndarray) -> np.ndarray:
  """Returns the power of every frame, float32 [bins, frames]."""
  padded = np.pad(mono, pattern.WINDOW // 2).astype(np.float32)
  frames = np.lib.stride_tricks.sliding_window_view(padded, pattern.WINDOW)
  frames = frames[::_HOP][: len(mono) // _HOP] * spectrum.window()
  spectra = fft.rfft(frames.astype(np.float32), axis=1)
  return np.ascontiguousarray((spectra.real**2 + spectra.imag**2).T)


def _align(
  power: np.ndarray,
  key: bytes,
  speed: float,
  stride: int,
  stretched: bool = False,
) -> _Best:
  """Scores every `stride`-th start of the tile with every weighting."""
  slot = _SLOT / speed
  bands = pattern.band_matrix(1.0 if stretched else speed)
  energies = _slot_energies(bands @ power, slot / 2)
  if energies is None:
    return _Best(speed=speed, stretched=stretched)
  energies = [e[:, ::stride] for e in energies]
  signs, used = _signs(key)
  best = _Best()
  for chips in _weighted_chips(*energies, bands.sum(1)):
    signal = squares = 0
    for sign, use, sums in zip(signs, used, _fold(chips, slot / stride)):
      signal = signal + (sign @ sums).real
      squares = squares + use @ np.square(sums.view(np.float32))
    noise = np.sqrt(squares.reshape(-1, 2).sum(1) / 2)
    z = signal / np.maximum(noise, _TINY)
    i = int(z.argmax())
    here = _Best(float(z[i]), len(z), speed, stretched)
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


def _signs(key: bytes) -> tuple[np.ndarray, np.ndarray]:
  """Returns `exp(-i phi)`, 0 for payload, and what is not, [slots, chips]."""
  signs = np.exp(-1j * pattern.phases(key)).T.astype(np.complex64)
  signs[pattern.carries_payload().T] = 0
  return signs, (signs != 0).astype(np.float32)


def _slot_energies(bands: np.ndarray, patch: float):
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
  return np.maximum(middle - begin, _TINY), np.maximum(end - middle, _TINY)


def _weighted_chips(first, second, widths) -> Iterator[np.ndarray]:
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
  first = np.maximum(first - floor, _TINY)
  second = np.maximum(second - floor, _TINY)
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


def _fold(chips: np.ndarray, slot: float) -> Iterator[np.ndarray]:
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


def _read_payload(best: _Best, key: bytes) -> int | None:
  """Returns the most likely payload; None if its error is too probable."""
  if not best.found:
    return None
  resultants = np.zeros((pattern.SLOTS, pattern.CHIPS), np.complex64)
  np.add.at(resultants, best.numbers % pattern.SLOTS, best.chips)
  mask = pattern.carries_payload()
  soft = resultants.T[mask]
  aligned = (soft * np.exp(-1j * pattern.phases(key)[mask])).real
  noise = np.sqrt((np.abs(soft) ** 2).sum() / 2) + _TINY
  signs = 1 - 2 * pattern.code_words(key).astype(np.float32)
  scores = signs @ (aligned / noise).astype(np.float32)
  word = int(scores.argmax())
  error = np.log(len(scores)) - scores[word] ** 2 / 2
  return word if error <= np.log(_PAYLOAD_ERROR) else None


def _places(channels, key: bytes, best: _Best) -> tuple[Place, ...]:
  """Returns where the mark of `best` is.

  If no window of 2 s is sure enough, it is where the window of `best` has it.
  """
  slot = 2 * pattern.PATCH / best.speed
  tile = pattern.SLOTS * slot
  places, last = [], 0.0
  found = _marked_windows(channels, key, best)
  for here in itertools.chain([next(found, best)], found):
    start, end, phase = _stretch(here, key, slot)
    jump = abs((phase - last + tile / 2) % tile - tile / 2)
    last = phase
    # Another phase of the tile is that of another file.
    if places and start <= places[-1][1] + slot and jump <= pattern.PATCH:
      begin, stop, other = places.pop()
      start, end = begin, max(stop, end)
      here = max(other, here, key=lambda x: x.score)
    places.append((start, end, here))
  longest = len(channels[best.channel])
  seconds = lambda x: round(
    float(np.clip(x, 0, longest)) / pattern.SAMPLE_RATE, 2
  )
  return tuple(
    Place(
      start=seconds(start),
      end=seconds(end),
      score=here.score,
      payload=_read_payload(here, key),
    )
    for start, end, here in places
  )


def _marked_windows(channels, key: bytes, best: _Best) -> Iterator[_Best]:
  """Yields the windows of 2 s that have a mark like that of `best`.

  The probability that one of them has none is at most the false positive rate.
  """
  channel = channels[best.channel]
  windows = list(_windows(len(channel), _PLACE_WINDOW))
  for window in windows:
    # A mark that begins with the audio is found some milliseconds before it.
    power = _power(np.pad(channel[window], _MARGIN))
    here = _align(power, key, best.speed, 1, best.stretched)
    tried = here.tried * len(windows) * len(channels) * best.speeds
    begin = window.start - _MARGIN
    here = dataclasses.replace(here, tried=tried, begin=begin)
    if here.found:
      yield here


def _stretch(here: _Best, key: bytes, slot: float) -> tuple[int, float, float]:
  """Returns start and end of the marked slots, and the start of a tile.

  All in samples, as is the length of a `slot`.
  """
  signs, used = (x[here.numbers % pattern.SLOTS] for x in _signs(key))
  noise = np.sqrt((used * np.abs(here.chips) ** 2).sum(1) / 2)
  z = (signs * here.chips).real.sum(1) / np.maximum(noise, _TINY)
  first, end = 0, len(z)
  for _ in range(3):
    sums = np.cumsum(np.append(0, z - z[first:end].mean() / 2))
    gains = np.triu(sums - sums[:, None], 1)
    first, end = np.unravel_index(gains.argmax(), gains.shape)
  begins = here.begin + here.starts * _HOP
  tile = begins[first] - here.numbers[first] * slot
  return begins[first], begins[end - 1] + slot, tile
