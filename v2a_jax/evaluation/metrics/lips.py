"""How far the words of a talking face are from the movements of its mouth.

The mouth of a scene moves by the words of the record, as they sound in the true
sound. With log-mel spectra every 5 ms, W of a word in the true sound and S_lag
of as long a part of the judged sound that begins `lag` later, both centred,

  lag of the word = the lag in [-500 ms, 500 ms] of the largest
                    sum(W S_lag) / (|W| |S_lag|)

The level and the pitch of a voice move the value little, its vowels and
consonants much: of the same sentences by another voice, which speaks faster,
half of 38 words are found within 13 ms of where they begin and 37 within 100 ms.
Scenes only: for real voices nobody has measured how far this holds.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np
import soxr

from v2a_jax.evaluation import scene_words
from v2a_jax.evaluation.clips import Clip
from v2a_jax.evaluation.metrics import base

LARGEST = 500.0  # ms
IN_TIME = 100.0  # ms
_RATE, _HOP = 16_000, 80
_STEP = 1000 * _HOP / _RATE  # ms
_QUIET = 1e-6


@dataclasses.dataclass(frozen=True)
class Lips:
  """Counts of one clip.

  Attributes:
    in_time: number of words within `IN_TIME` of the mouth.
    said: number of words.
  """

  in_time: int
  said: int


class _OfLips(base.ClipMetric):
  """Judges the words of scenes, whose mouths are known."""

  unmet = "no clip is a scene with words"

  def judges(self, clip: Clip) -> bool:
    return clip.of_scenes and bool(clip.words)


class LipError(_OfLips):
  """Mean size of the lag of words behind the mouth."""

  id = "lip_error"
  label = "Lip error"
  unit = "ms"
  bounds = (0.0, LARGEST)
  direction = "lower"
  about = (
    "Mean distance in time of the words of scenes from the mouth that speaks"
    " them. A silent word counts as 500 ms, arbitrary lags are about 250 ms on"
    " average."
  )

  def get_state(self, sample: base.Sample) -> float:
    return float(np.abs(sample.cached(lags)).mean())


class LipsInTime(_OfLips, base.RatioMetric):
  """Share of the words that are in time with the mouth."""

  id = "lips_in_time"
  label = "Lips in time"
  direction = "higher"
  variant = "lips_in_time_100ms"
  numerator, denominator = {"in_time": 1}, {"said": 1}
  about = (
    "Share of the words of scenes that sound within 100 ms of the mouth that"
    " speaks them; about 0.2 for arbitrary lags."
  )

  def get_state(self, sample: base.Sample) -> Lips:
    apart = np.abs(sample.cached(lags))
    return Lips(int((apart <= IN_TIME).sum()), len(apart))


def lags(sample: base.Sample) -> np.ndarray:
  """Returns how late each word of a clip is in ms, float64 [words].

  A word has a lag of `LARGEST` where the sound is silent.
  """
  own, true = _spectra(sample), _spectra(sample.truth or sample)
  return np.array([_lag(own, true, word) for word in sample.clip.words])


def _spectra(sample: base.Sample) -> np.ndarray:
  """Returns log-mel spectra at one level, every 5 ms, float64 [n bands]."""
  mono = sample.waveform.mean(axis=1, dtype=np.float64)
  mono = soxr.resample(mono, sample.sample_rate, _RATE)
  level = np.sqrt(np.mean(np.square(mono)))
  return scene_words.log_mels(mono / max(level, _QUIET), hop=_HOP)


def _lag(own, true, word: Mapping[str, Any]) -> float:
  """Returns how late a word is in `own` [n bands], by `true` [m bands]."""
  first, last = (round(word[k] * _RATE / _HOP) for k in ("start", "end"))
  last = max(last, first + 1)
  pattern = true[first:last]
  pattern = pattern - pattern.mean()
  most = round(LARGEST / _STEP)
  begin = max(0, first - most)
  around = own[begin : last + most]
  if len(around) < len(pattern) or np.ptp(around) < _QUIET:
    return LARGEST
  parts = np.lib.stride_tricks.sliding_window_view(around, len(pattern), axis=0)
  parts = parts.swapaxes(1, 2)
  parts = parts - parts.mean(axis=(1, 2), keepdims=True)
  sizes = np.linalg.norm(parts, axis=(1, 2)) + _QUIET
  likeness = np.einsum("ltb,tb->l", parts, pattern) / sizes
  return _STEP * (begin + int(likeness.argmax()) - first)
