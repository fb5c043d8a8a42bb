"""Detection: search for the tile's start, score it, read the payload.

`pattern.py` has the statistic `z` and its bound `exp(-z^2 / 2)`. What is
searched is paid for: with `M` hypotheses tried, the probability that audio
without the mark reaches `z` is at most `M exp(-z^2 / 2)`. Half of the budget
goes to audio at its own speed, half to audio played slower or faster.
"""

from collections.abc import Iterator
import dataclasses

import numpy as np

from v2a_jax.watermark import pattern, spectrum

FALSE_POSITIVE_RATE = 1e-4
SPEEDS = 0.055  # slower and faster by up to this part are looked for
# Chance of giving out a payload that is noise, in sound that is marked.
_PAYLOAD_ERROR = 1e-3
_HOP = 32  # samples, 2 ms: the steps in which the tile's start is looked for.
_SLOT = 2 * pattern.PATCH / _HOP  # frames
_WINDOW = 8.0  # seconds scored together; speed drifts little within
_STRETCHED_WINDOW = 4.0
_STRETCHED_WINDOWS = 4
_TINY = 1e-14
# Three weightings of the chips. Sound as it was made wants them alike; in
# noise the loud ones count; in even noise its power can be taken away.
_WEIGHTINGS = ("even", "loud", "denoised")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detection:
  """What was found.

  Attributes:
    found: the mark is there, with a false positive probability of at most
      1e-4.
    score: `z` of the best hypothesis; 0 mean, unit variance for a hypothesis
      without the mark, and at most 34 with it.
    payload: the 16 bits; None where they cannot be read.
    false_positive_probability: a bound on the chance that sound which knows
      nothing of the key scores as high anywhere in the search.
    seconds_examined: of sound.
    speed: at which the best hypothesis saw the sound played.
  """

  found: bool
  score: float
  payload: int | None
  false_positive_probability: float
  seconds_examined: float
  speed: float = 1.0


@dataclasses.dataclass(frozen=True)
class _Best:
  score: float = 0.0
  tried: int = 0
  speed: float = 1.0
  resultants: np.ndarray | None = None  # complex [slots, chips]

  def __or__(self, other: "_Best") -> "_Best":
    best = self if self.score >= other.score else other
    return dataclasses.replace(best, tried=self.tried + other.tried)

  @property
  def probability(self) -> float:
    """The bound, with half of the budget for each of the two searches."""
    log = np.log(max(1, 2 * self.tried)) - self.score * abs(self.score) / 2
    return float(np.exp(min(0.0, log)))

  @property
  def found(self) -> bool:
    return self.probability <= FALSE_POSITIVE_RATE


def detect(
  samples: np.ndarray, sample_rate: int, *, key: bytes | str | None = None
) -> Detection:
  """Looks for the mark of `key`.

  Every 8 s are scored on their own and the best counts, so that a marked part
  of a long file is found. Where that does not give the payload, up to four
  windows of 4 s are searched at speeds within 5 %.

  Args:
    samples: floats [t, channels]; their mean and each channel are examined.
    sample_rate: Hz, any.
    key: see `pattern.resolve_key`.

  Raises:
    ValueError: the samples are no sound.
  """
  key = pattern.resolve_key(key)
  original = spectrum.check(samples, sample_rate)
  seconds = len(original) / sample_rate
  base = spectrum.resample(original, sample_rate, pattern.SAMPLE_RATE)
  channels = [base.mean(1)] if base.shape[1] else []
  channels += list(base.T) if base.shape[1] > 1 else []
  best = _search(channels, key, [1.0], list(_windows(len(base), _WINDOW)))
  payload = _read_payload(best, key)
  if payload is None:
    few = _spread(list(_windows(len(base), _STRETCHED_WINDOW)))
    stretched = _search(channels, key, _speeds(few), few)
    best = min(best, stretched, key=lambda x: x.probability)
    payload = _read_payload(best, key)
  return Detection(
    found=best.found,
    score=best.score,
    payload=payload,
    false_positive_probability=best.probability,
    seconds_examined=seconds,
    speed=best.speed,
  )


def _spread(windows: list[slice]) -> list[slice]:
  """A few of the windows, evenly over the sound."""
  few = min(len(windows), _STRETCHED_WINDOWS)
  return [windows[int(i)] for i in np.linspace(0, len(windows) - 1, few)]


def _windows(n: int, seconds: float) -> Iterator[slice]:
  """Windows of `seconds` that overlap by half, none without a slot."""
  size = int(seconds * pattern.SAMPLE_RATE)
  if n < 2 * pattern.PATCH + pattern.WINDOW:
    return
  for start in range(0, max(1, n - size // 2), size // 2):
    yield slice(start, min(n, start + size))


def _speeds(windows: list[slice]) -> np.ndarray:
  """Speeds other than 1, so close that none drifts by more than 2 ms."""
  longest = max((w.stop - w.start for w in windows), default=pattern.PATCH)
  step = min(0.004, 0.008 * pattern.SAMPLE_RATE / longest)
  n = int(np.ceil(SPEEDS / step))
  return 1 + step * np.array([i for i in range(-n, n + 1) if i])


def _search(channels, key, speeds, windows) -> _Best:
  """The best of all windows and speeds.

  Many speeds are tried with every other start of the tile; the best of them
  is then tried with all.
  """
  best = _Best()
  stride = 1 if len(speeds) == 1 else 2
  for channel in channels:
    for window in windows:
      power = _power(channel[window])
      here = _Best()
      for speed in speeds:
        here |= _align(power, key, speed, stride)
      if stride > 1:
        here |= _align(power, key, here.speed, 1)
      best |= here
  return best


def _power(mono: np.ndarray) -> np.ndarray:
  """Power of every frame within the sound, float32 [bins, frames]."""
  transform = spectrum.transform(_HOP)
  n = len(mono)
  first = -transform.p_min
  frames = transform.stft(mono)[:, first : first + n // _HOP]
  return (np.abs(frames) ** 2).astype(np.float32)


def _align(power: np.ndarray, key: bytes, speed: float, stride: int) -> _Best:
  """Scores every `stride`-th start of the tile, under every weighting."""
  slot = _SLOT / speed
  bands = pattern.band_matrix(speed)
  energies = _slot_energies(bands @ power, slot / 2)
  if energies is None:
    return _Best(speed=speed)
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
    best |= _Best(float(z[i]), len(z), speed, resultants[..., i])
  return best


def _slot_energies(bands: np.ndarray, patch: float):
  """Energies of the patch from each frame on, and of the next.

  Args:
    bands: power [bands, frames].
    patch: frames, not whole where the speed is not 1.

  Returns:
    Two arrays [bands, starts]; None where the sound is shorter than a slot.
  """
  total = np.cumsum(bands, axis=1, dtype=np.float64)
  total = np.pad(total, ((0, 0), (1, 0)))
  starts = int(bands.shape[1] - 2 * patch) + 1
  if starts < 1:
    return None

  def until(offset):
    whole, part = int(offset), offset - int(offset)
    here = total[:, whole : whole + starts]
    if not part:
      return here
    after = np.pad(total, ((0, 0), (0, 1)), mode="edge")
    return here + part * (after[:, whole + 1 : whole + 1 + starts] - here)

  begin, middle, end = until(0.0), until(patch), until(2 * patch)
  return np.maximum(middle - begin, _TINY), np.maximum(end - middle, _TINY)


def _weighted_chips(first, second, widths, weighting: str) -> np.ndarray:
  """`w exp(2 pi i x / STEP)` of all chips from each start [chips, starts]."""
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
      # A chip's error in noise is about Gaussian, and this its characteristic
      # function: variance (floor / a + floor / b) / 2 over some 20 cells.
      weight = np.exp(-4 * (floor_a / a + floor_b / b))
    else:
      weight = np.minimum(a, b) ** (0.25 if weighting == "loud" else 0)
    angle = ((np.pi / pattern.STEP) * np.log(a / b)).astype(np.float32)
    chip = np.empty(angle.shape, np.complex64)
    chip.real, chip.imag = weight * np.cos(angle), weight * np.sin(angle)
    out.append(chip)
  return np.concatenate(out)


def _fold(chips: np.ndarray, slot: float) -> np.ndarray:
  """Sums the tiles: the resultants for each start of the first tile.

  Args:
    chips: [chips, starts].
    slot: in steps between starts.

  Returns:
    [slots, chips, tile starts]; start `i` is `i` steps after the sound's
    start less one tile.
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
  """The most likely code word, if it stands out of all the others."""
  if not best.found:
    return None
  where = pattern.carries_payload()
  soft = best.resultants.T[where]
  aligned = (soft * np.exp(-1j * pattern.phases(key)[where])).real
  noise = np.sqrt((np.abs(soft) ** 2).sum() / 2) + _TINY
  signs = 1 - 2 * pattern.code_words(key).astype(np.float32)
  scores = signs @ (aligned / noise).astype(np.float32)
  word = int(scores.argmax())
  error = np.log(len(scores)) - scores[word] ** 2 / 2
  return word if error <= np.log(_PAYLOAD_ERROR) else None
