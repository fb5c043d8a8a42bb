"""Speech and music in a sound, by limits that are measured.

Somebody speaks where Silero VAD (https://github.com/snakers4/silero-vad) finds
a probability of speech over 0.5 for 0.25 s in all: in 48 of 48 recordings of
speech, and in 36 of 1,120 of other sounds, of which 19 are sneezes and 10 dogs.
There is music where mn04 gives the AudioSet class "Music" a probability of 0.3
or more, from logits averaged over windows of 1 s: in 9 of 13 recordings of
music, and in 21 of those 1,120.
"""

from collections.abc import Callable, Mapping
import functools
from typing import NamedTuple

import numpy as np
from scipy import special

from v2a_jax.basics import audioset
from v2a_jax.hearing import embeddings

SPEECH_SECONDS = 0.25
MUSIC_PROBABILITY = 0.3


def speech_seconds(features: embeddings.Features) -> float:
  """Returns the seconds of speech, from `Silero` of one clip."""
  return float(features.vectors.sum())


def music_probability(features: embeddings.Features) -> float:
  """Returns the probability of music, from `Mn04` of one clip."""
  return float(special.expit(features.logits[0, audioset.MUSIC]))


class Kind(NamedTuple):
  """Something that can be unwanted, and from how much on it is there."""

  network: type[embeddings.Published]
  measure: Callable[[embeddings.Features], float]
  limit: float


KINDS = {
  "speech": Kind(embeddings.Silero, speech_seconds, SPEECH_SECONDS),
  "music": Kind(embeddings.Mn04, music_probability, MUSIC_PROBABILITY),
}


def heard(features: Mapping[str, embeddings.Features]) -> dict[str, bool]:
  """Says which kinds are in a sound, of those whose network has heard it.

  Args:
    features: embeddings of the sound, by `Embedding.id`.
  """
  return {
    name: kind.measure(features[kind.network.id]) >= kind.limit
    for name, kind in KINDS.items()
    if kind.network.id in features
  }


def amount(kind: str, samples: np.ndarray, sample_rate: int) -> float:
  """Measures how much of a kind of `KINDS` samples [t channels] hold.

  Returns:
    Seconds of speech, or the probability of music.

  Raises:
    MissingWeightsError, WrongWeightsError: the network cannot be loaded.
  """
  network, measure, _ = KINDS[kind]
  return measure(
    embeddings.embed(loaded(network), [samples], sample_rate=sample_rate)
  )


def similarity(
  samples: np.ndarray, reference: np.ndarray, sample_rate: int
) -> float:
  """Compares two sounds [t channels] by their mean embeddings of mn04.

  Returns:
    The cosine of the angle between them; 1 for the same sound.
  """
  network = loaded(embeddings.Mn04)
  features = embeddings.embed(
    network, [samples, reference], sample_rate=sample_rate
  )
  means = [part.vectors.mean(axis=0) for part in features.split()]
  first, second = (mean / max(np.linalg.norm(mean), 1e-9) for mean in means)
  return float(first @ second)


@functools.cache
def loaded(network: type[embeddings.Published]) -> embeddings.Published:
  """Loads a network once.

  Raises:
    MissingWeightsError, WrongWeightsError: it cannot be loaded.
  """
  return network()
