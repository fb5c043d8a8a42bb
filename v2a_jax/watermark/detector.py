"""Detection: whether the watermark is there, what its payload is, and where.

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

from v2a_jax.basics import scratch
from v2a_jax.watermark import pattern, search, spectrum
from v2a_jax.watermark.search import Best

# Probability of returning a wrong payload for audio with the watermark.
_PAYLOAD_ERROR = 1e-3
_WINDOW = 8.0  # seconds that are scored together
_STRETCHED_WINDOW = 4.0  # seconds, in the search over speeds
_STRETCHED_WINDOWS = 4  # number of windows in the search over speeds
_PLACE_WINDOW = 2.0  # seconds, in the search for where the mark is
_MARGIN = 4 * search.HOP  # samples of silence around such a window


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
  best = search.best_of(
    channels, key, [1.0], list(search.windows_of(len(base), _WINDOW))
  )
  payload = _read_payload(best, key)
  if payload is None:
    windows = list(search.windows_of(len(base), _STRETCHED_WINDOW))
    count = min(len(windows), _STRETCHED_WINDOWS)
    spread = np.linspace(0, len(windows) - 1, count).astype(int)
    windows = [windows[i] for i in spread]
    for stretched in (False, True):
      other = search.best_of(
        channels, key, search.speeds_of(windows), windows, stretched
      )
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


def _read_payload(best: Best, key: bytes) -> int | None:
  """Returns the most likely payload; None if its error is too probable."""
  if not best.found:
    return None
  resultants = np.zeros((pattern.SLOTS, pattern.CHIPS), np.complex64)
  np.add.at(resultants, best.numbers % pattern.SLOTS, best.chips)
  mask = pattern.carries_payload()
  soft = resultants.T[mask]
  aligned = (soft * np.exp(-1j * pattern.phases(key)[mask])).real
  noise = np.sqrt((np.abs(soft) ** 2).sum() / 2) + search.TINY
  signs = 1 - 2 * pattern.code_words(key).astype(np.float32)
  scores = signs @ (aligned / noise).astype(np.float32)
  word = int(scores.argmax())
  error = np.log(len(scores)) - scores[word] ** 2 / 2
  return word if error <= np.log(_PAYLOAD_ERROR) else None


def _places(channels, key: bytes, best: Best) -> tuple[Place, ...]:
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


def _marked_windows(channels, key: bytes, best: Best) -> Iterator[Best]:
  """Yields the windows of 2 s that have a mark like that of `best`.

  The probability that one of them has none is at most the false positive rate.
  """
  channel = channels[best.channel]
  windows = list(search.windows_of(len(channel), _PLACE_WINDOW))
  for window in windows:
    # A mark that begins with the audio is found some milliseconds before it.
    power = search.power_of(np.pad(channel[window], _MARGIN))
    here = search.align(power, key, best.speed, 1, best.stretched)
    tried = here.tried * len(windows) * len(channels) * best.speeds
    begin = window.start - _MARGIN
    here = dataclasses.replace(here, tried=tried, begin=begin)
    if here.found:
      yield here


def _stretch(here: Best, key: bytes, slot: float) -> tuple[int, float, float]:
  """Returns start and end of the marked slots, and the start of a tile.

  All in samples, as is the length of a `slot`.
  """
  signs, used = (x[here.numbers % pattern.SLOTS] for x in search.signs_of(key))
  noise = np.sqrt((used * np.abs(here.chips) ** 2).sum(1) / 2)
  z = (signs * here.chips).real.sum(1) / np.maximum(noise, search.TINY)
  first, end = 0, len(z)
  for _ in range(3):
    sums = np.cumsum(np.append(0, z - z[first:end].mean() / 2))
    gains = np.triu(sums - sums[:, None], 1)
    first, end = np.unravel_index(gains.argmax(), gains.shape)
  begins = here.begin + here.starts * search.HOP
  tile = begins[first] - here.numbers[first] * slot
  return begins[first], begins[end - 1] + slot, tile
