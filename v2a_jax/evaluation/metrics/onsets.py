"""Onset F1: do sounds start when they should?

Onsets are found in every row's sound by the same detector, with settings fixed
here, and matched one to one with the reference times within a tolerance
(`mir_eval.util.match_events`, the matching behind
https://mir-eval.readthedocs.io/latest/api/onset.html):

  P = hits / found,  R = hits / reference,  F = 2 hits / (found + reference)

with hits, found and reference summed over clips ("micro"), so clips without any
onset need no special rule and a clip counts by its events.

The reference is the clip's known event times; where none are known, the onsets
that the detector finds in the true sound. Events off screen cannot be known
from the picture: an onset that fits only such an event neither helps nor hurts.

The detector: power spectra of 1024 samples at 16 kHz every 10 ms, 64 mel bands
in dB, floored at -80 dB; its strength is the mean rise over the bands
(librosa.onset.onset_strength); an onset is a local maximum over ±30 ms that
exceeds the mean of ±100 ms around it by 4 dB, at least 50 ms after the last.
The threshold is in dB and not relative to the clip's loudest onset, so noise
does not turn into onsets. Against true times this finds, at 50 ms, F = 0.92 in
120 scenes (0.98 without the talking ones) and 0.93 in 12 drumstick recordings,
10 ms late in the median, which is taken off.
"""

import dataclasses

import librosa
import mir_eval
import numpy as np
import soxr

from v2a_jax.evaluation import intervals

SAMPLE_RATE = 16_000
_FFT, _HOP, _BANDS = 1024, 160, 64
_FLOOR = 1e-8
_THRESHOLD_DB = 4.0
_NEAR, _AROUND, _WAIT = 3, 10, 5  # in frames of 10 ms
_LATE_SECONDS = 0.010


@dataclasses.dataclass(frozen=True)
class Counts:
  """Of one clip: matched onsets, those in the reference, those found."""

  hits: int
  reference: int
  found: int

  @property
  def f1(self) -> float:
    """NaN where there is nothing to find and nothing was found."""
    total = self.reference + self.found
    return 2 * self.hits / total if total else float("nan")


def detect(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
  """Onset times in seconds, ascending.

  Args:
    waveform: float32 [samples] or [samples, channels], which are averaged.
    sample_rate: Hz.
  """
  mono = waveform if waveform.ndim == 1 else waveform.mean(axis=1)
  if sample_rate != SAMPLE_RATE:
    mono = soxr.resample(mono, sample_rate, SAMPLE_RATE, quality="HQ")
  if len(mono) < _FFT:
    return np.zeros(0)
  power = librosa.feature.melspectrogram(
    y=mono, sr=SAMPLE_RATE, n_fft=_FFT, hop_length=_HOP, n_mels=_BANDS
  )
  strength = librosa.onset.onset_strength(
    S=librosa.power_to_db(power, ref=1.0, amin=_FLOOR, top_db=None),
    sr=SAMPLE_RATE,
    hop_length=_HOP,
    n_fft=_FFT,
  )
  frames = librosa.util.peak_pick(
    strength,
    pre_max=_NEAR,
    post_max=_NEAR + 1,
    pre_avg=_AROUND,
    post_avg=_AROUND + 1,
    delta=_THRESHOLD_DB,
    wait=_WAIT,
  )
  return np.maximum(frames * _HOP / SAMPLE_RATE - _LATE_SECONDS, 0.0)


def match(
  reference: np.ndarray,
  found: np.ndarray,
  *,
  tolerance: float,
  ignored: np.ndarray = (),
) -> Counts:
  """Matches found onsets with those of the reference.

  Args:
    reference: seconds [r].
    found: seconds [f].
    tolerance: largest distance of a pair, seconds.
    ignored: seconds; found onsets that fit one of these, and none of the
      reference, do not count.
  """
  reference, found = np.sort(reference), np.sort(found)
  pairs = _pairs(reference, found, tolerance)
  rest = np.delete(found, [j for _, j in pairs])
  excused = _pairs(np.sort(ignored), rest, tolerance)
  return Counts(len(pairs), len(reference), len(found) - len(excused))


def _pairs(reference, found, tolerance) -> list[tuple[int, int]]:
  if not len(reference) or not len(found):
    return []
  return mir_eval.util.match_events(reference, found, tolerance)


def _f1(hits, reference, found):
  return 2 * hits / (reference + found)


def f1(counts: list[Counts], *, seed: int = 0) -> intervals.Estimate:
  """Micro-averaged F1; extras are `precision` and `recall`."""
  columns = _columns(counts)
  hits, reference, found = (float(column.sum()) for column in columns)
  return intervals.of_sums(
    _f1,
    *columns,
    seed=seed,
    precision=hits / found if found else float("nan"),
    recall=hits / reference if reference else float("nan"),
  )


def f1_difference(
  counts: list[Counts], others: list[Counts], *, seed: int = 0
) -> intervals.Estimate:
  """F1 of `counts` less that of `others`, on the same clips in this order."""

  def difference(*sums):
    return _f1(*sums[:3]) - _f1(*sums[3:])

  columns = (*_columns(counts), *_columns(others))
  return intervals.of_sums(difference, *columns, seed=seed)


def _columns(counts: list[Counts]) -> tuple[np.ndarray, ...]:
  table = np.array([dataclasses.astuple(c) for c in counts], np.float64)
  return tuple(table.reshape(-1, 3).T)
