"""Recognises the words of scenes, whose talker is synthetic.

Each word of the vocabulary is said by voices drawn at random
(`data_pipelines/scenes/speech.py`), in noise; a logistic regression on 16 log-mel
frames between a word's start and end tells the words apart. It is fitted where
it is used, in a few seconds, always to the same sounds. In 1,500 other scenes,
which have other sounds in them, it knew all of 1,170 words.
"""

from collections.abc import Mapping, Sequence
import functools
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
import soxr

from data_pipelines.scenes import speech
from v2a_jax.pretrained import spectrum

VARIANT = "logistic_12_voices"

_RATE = 16_000
_FFT, _HOP, _BANDS, _LOW_HZ, _TOP_HZ = 512, 128, 32, 60.0, 7600.0
_FRAMES = 16
_MARGIN = 0.02  # seconds before and after a word
_VOICES = 12  # that say each word
_SENTENCE, _SECONDS = 5, 8.0  # words and length of what is synthesised


def recognise(
  waveform: np.ndarray, sample_rate: int, words: Sequence[Mapping[str, Any]]
) -> list[str]:
  """Returns the most likely word of the vocabulary between given times.

  Args:
    waveform: [samples, channels].
    sample_rate: Hz.
    words: one entry or more, with `start` and `end` in seconds.
  """
  mono = soxr.resample(waveform.mean(axis=1), sample_rate, _RATE)
  rows = [_features(mono, word["start"], word["end"]) for word in words]
  return [str(word) for word in _recogniser().predict(np.stack(rows))]


def log_mels(mono: np.ndarray, *, hop: int) -> np.ndarray:
  """Returns log-mel spectra [n, bands] of a sound [t] at 16 kHz, every `hop`."""
  padded = np.pad(mono, _FFT // 2)
  framed = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::hop]
  power = np.square(np.abs(np.fft.rfft(framed * np.hanning(_FFT))))
  filters = spectrum.slaney_filters(_RATE, _FFT, _BANDS, _LOW_HZ, _TOP_HZ)
  return np.log(power @ filters + 1e-3)


@functools.cache
def _recogniser() -> Pipeline:
  rng = np.random.default_rng(0)
  rows, names = [], []
  for _ in range(_VOICES):
    order = [str(word) for word in rng.permutation(list(speech.VOCABULARY))]
    for first in range(0, len(order), _SENTENCE):
      voice = speech.Voice(
        pitch=float(rng.uniform(85, 240)),
        scale=float(rng.uniform(0.95, 1.2)),
        pace=float(rng.uniform(0.75, 1.1)),
      )
      part = order[first : first + _SENTENCE]
      said = speech.schedule(rng, part, voice, seconds=_SECONDS)
      samples = round(_SECONDS * _RATE)
      sound = speech.speak(rng, said, voice, samples=samples, rate=_RATE)
      sound += 10 ** rng.uniform(-4.0, -1.3) * rng.normal(size=samples)
      for word, start, end in said.words:
        rows.append(_features(sound, start, end))
        names.append(word)
  model = make_pipeline(
    StandardScaler(), LogisticRegression(max_iter=200, C=0.1)
  )
  return model.fit(np.stack(rows), names)


def _features(mono: np.ndarray, start: float, end: float) -> np.ndarray:
  """Returns log-mel frames of a word at one level, and its duration."""
  first, last = (round(t * _RATE) for t in (start - _MARGIN, end + _MARGIN))
  word = mono[max(first, 0) : last]
  word = np.pad(word, (max(0, -first), max(0, 2 * _FFT - len(word))))
  word = word / (np.sqrt(np.mean(np.square(word))) + 1e-6)
  frames = log_mels(word, hop=_HOP)
  places = np.linspace(0, len(frames) - 1, _FRAMES)
  before = np.minimum(places.astype(int), len(frames) - 2)
  share = (places - before)[:, None]
  even = frames[before] * (1 - share) + frames[before + 1] * share
  return np.append(even, np.log(end - start))
