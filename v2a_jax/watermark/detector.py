"""Detection: searches the start of the tile, scores it, reads the payload.

`pattern.py` has the statistic `z` and its bound `exp(-z^2 / 2)`. By the union
bound over `M` hypotheses, audio without the watermark reaches `z` with
probability at most `M exp(-z^2 / 2)`. A third of the false positive rate is spent
on audio at its original speed, on audio that is played faster or slower, and on
audio that is stretched: its patches last longer, in the same bands.
"""

from collections.abc import Iterator
import dataclasses

import numpy as np

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
_TINY = 1e-14
# Weights of the chips: equal for unchanged audio; by energy for noisy audio;
# after subtraction of the noise power for stationary noise.
_WEIGHTINGS = ("even", "loud", "denoised")


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
  """

  found: bool
  score: float
  payload: int | None
  false_positive_probability: float
  seconds_examined: float
  speed: float = 1.0
  stretched: bool = False


@dataclasses.dataclass(frozen=True)
class _Best:
  """The best hypothesis of a search."""

  score: float = 0.0  # its `z`
  tried: int = 0  # hypotheses in the search
  speed: float = 1.0
  stretched: bool = False
  resultants: np.ndarray | None = None  # its `C`, complex [slots, chips]

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
  return Detection(
    found=best.found,
    score=best.score,
    payload=payload,
    false_positive_probability=best.probability,
    seconds_examined=len(original) / sample_rate,
    speed=best.speed,
    stretched=best.stretched,
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
  for channel in channels:
    for window in windows:
      power = _power(channel[window])
      local = _Best()
      for speed in speeds:
        local |= _align(power, key, speed, stride, stretched)
      if stride > 1:
        local |= _align(power, key, local.speed, 1, stretched)
      best |= local
  return best


def _power(mono: np.ndarray) -> np.ndarray:
  """Returns the power of every frame, float32 [bins, frames]."""
  transform = spectrum.transform(_HOP)
  first = -transform.p_min
  frames = transform.stft(mono)[:, first : first + len(mono) // _HOP]
  return (np.abs(frames) ** 2).astype(np.float32)


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
  signs = np.exp(-1j * pattern.phases(key)).T.astype(np.complex64)
  signs[pattern.carries_payload().T] = 0
  used = (signs != 0).astype(np.float32)
  best = _Best()
  for weighting in _WEIGHTINGS:
    chips = _weighted_chips(*energies, bands.sum(1), weighting)
    resultants = _fold(chips, slot / stride)
    signal = np.tensordot(signs, resultants, 2).real
    square = resultants.real**2 + resultants.imag**2
    noise = np.sqrt(np.tensordot(used, square, 2) / 2)
    z = signal / np.maximum(noise, _TINY)
    i = int(z.argmax())
    here = _Best(float(z[i]), len(z), speed, stretched, resultants[..., i])
    best |= here
  return best


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


def _weighted_chips(first, second, widths, weighting: str) -> np.ndarray:
  """Returns `w exp(2 pi i x / STEP)` of the chips x, complex [chips, starts].

  `first` and `second` are energies of patches, [bands, starts]; `widths` of the
  bands in bins.
  """
  floor = np.zeros((len(first), 1))
  if weighting == "denoised":
    density = np.percentile(first / widths[:, None], 10)
    floor = density * widths[:, None]
    first = np.maximum(first - floor, _TINY)
    second = np.maximum(second - floor, _TINY)
  both = first + second
  out = []
  for a, b, floor_a, floor_b in (
    (first, second, floor, floor),
    (both[0::2], both[1::2], floor[0::2], floor[1::2]),
  ):
    if weighting == "denoised":
      # The characteristic function of a chip's error in noise, which is about
      # Gaussian, of variance (floor / a + floor / b) / 2 over some 20 cells.
      weight = np.exp(-4 * (floor_a / a + floor_b / b))
    else:
      weight = np.minimum(a, b) ** (0.25 if weighting == "loud" else 0)
    angle = ((np.pi / pattern.STEP) * np.log(a / b)).astype(np.float32)
    chip = np.empty(angle.shape, np.complex64)
    chip.real, chip.imag = weight * np.cos(angle), weight * np.sin(angle)
    out.append(chip)
  return np.concatenate(out)


def _fold(chips: np.ndarray, slot: float) -> np.ndarray:
  """Sums all tiles of chips [chips, starts] for each start of the first tile.

  Returns `C`, complex [slots, chips, tile starts]; tile start `i` is `i` starts
  after the beginning of the audio, minus one tile.
  """
  tile = int(round(slot * pattern.SLOTS))
  starts = chips.shape[1]
  out = np.zeros((pattern.SLOTS, len(chips), tile), np.complex64)
  for j in range(int((tile + starts) / slot) + 1):
    shift = int(round(j * slot)) - tile
    low, high = max(0, -shift), min(tile, starts - shift)
    if low < high:
      out[j % pattern.SLOTS, :, low:high] += chips[
        :, low + shift : high + shift
      ]
  return out


def _read_payload(best: _Best, key: bytes) -> int | None:
  """Returns the most likely payload; None if its error is too probable."""
  if not best.found:
    return None
  mask = pattern.carries_payload()
  soft = best.resultants.T[mask]
  aligned = (soft * np.exp(-1j * pattern.phases(key)[mask])).real
  noise = np.sqrt((np.abs(soft) ** 2).sum() / 2) + _TINY
  signs = 1 - 2 * pattern.code_words(key).astype(np.float32)
  scores = signs @ (aligned / noise).astype(np.float32)
  word = int(scores.argmax())
  error = np.log(len(scores)) - scores[word] ** 2 / 2
  return word if error <= np.log(_PAYLOAD_ERROR) else None
