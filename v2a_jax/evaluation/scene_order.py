"""Tells which of two things of a scene sounds first.

Scenes may have two sounds out of sight, one in each half, whose order only the
captions tell (`data_pipelines/scenes/unseen.py`). A logistic regression on the
loudest and the mean log-mel spectrum of a half tells the things apart; it is
fitted where it is used, in a second, always to the same sounds.
"""

import functools
import re

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
import soxr

from data_pipelines.scenes import synthesis, unseen
from v2a_jax.evaluation import scene_words

VARIANT = "logistic_halves"

_RATE = 16_000
_HOP = 256  # samples
_TAKES, _SECONDS = 60, 2.0  # examples of each thing, and their length
_NAMES = re.compile(r"first a (\w+), then a (\w+)")


def names(caption: str) -> tuple[str, str] | None:
  """Returns the things that a scene's caption names, in order, or None."""
  found = _NAMES.search(caption)
  if not found or not set(found.groups()) <= set(unseen.THINGS):
    return None
  return found[1], found[2]


def in_order(
  waveform: np.ndarray, sample_rate: int, first: str, then: str
) -> bool:
  """Says whether `first` sounds in the first half and `then` in the second.

  That is so if it is more likely than the other way round.

  Args:
    waveform: [samples, channels].
    sample_rate: Hz.
    first: name of a thing, of `unseen.THINGS`.
    then: name of another.
  """
  mono = soxr.resample(waveform.mean(axis=1), sample_rate, _RATE)
  halves = np.array_split(mono, 2)
  model = _recogniser()
  scores = model.predict_log_proba(np.stack([_features(h) for h in halves]))
  place = [list(model.classes_).index(name) for name in (first, then)]
  right = scores[0, place[0]] + scores[1, place[1]]
  return bool(right > scores[0, place[1]] + scores[1, place[0]])


@functools.cache
def _recogniser() -> Pipeline:
  rng = np.random.default_rng(0)
  rows, things = [], []
  for name, sound in unseen.THINGS.items():
    for _ in range(_TAKES):
      track = 10 ** rng.uniform(-4.0, -2.0) * rng.normal(
        size=round(_SECONDS * _RATE)
      )
      for time in rng.uniform(0.0, 1.2, int(rng.integers(1, 4))):
        struck = sound(rng, float(rng.uniform(0.4, 1.0)), _RATE)
        synthesis.place(track, struck, float(time), rate=_RATE)
      rows.append(_features(track))
      things.append(name)
  model = make_pipeline(
    StandardScaler(), LogisticRegression(max_iter=500, C=0.1)
  )
  return model.fit(np.stack(rows), things)


def _features(mono: np.ndarray) -> np.ndarray:
  """Returns the loudest and the mean log-mel spectrum, at one level."""
  mono = mono / (np.sqrt(np.mean(np.square(mono))) + 1e-6)
  frames = scene_words.log_mels(mono, hop=_HOP)
  loudest = frames[np.argmax(frames.mean(axis=1))]
  return np.concatenate([loudest, frames.mean(axis=0)])
