"""Scores of candidates, by which they are ranked.

All are named, written into the sidecar, and more is better. None is a judge of
`v2a_jax.sync`: that judge measures models, and a candidate that was chosen by it
could not be measured by it any more. Neither is it the onset detector of
`v2a eval`. Whoever evaluates ranked candidates should still say of how many each
is the best.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from v2a_jax.hearing import embeddings, unwanted

# What is heard: seconds of speech are compared with the length of the sound.
SCORES = {
  "motion_onset": "how well onsets of sound and of motion coincide, -1 to 1",
  "no_speech": "share of the time in which nobody speaks, by Silero VAD",
  "no_music": "1 less the probability of music, by mn04",
  "like": "cosine of the angle to the embedding of the sound `like`, by mn04",
}


_NETWORKS = {
  "no_speech": embeddings.Silero,
  "no_music": embeddings.Mn04,
  "like": embeddings.Mn04,
}


def prepare(names: Sequence[str]) -> None:
  """Loads the networks of scores, before anything is generated.

  Raises:
    MissingWeightsError, WrongWeightsError: one cannot be loaded.
  """
  for name in names:
    if name in _NETWORKS:
      unwanted.loaded(_NETWORKS[name])


def scores(
  samples: np.ndarray,
  sample_rate: int,
  names: Sequence[str],
  *,
  motion: float,
  like: np.ndarray | None = None,
) -> dict[str, float]:
  """Scores a candidate.

  Args:
    samples: its sound, float32 [t channels].
    sample_rate: sample rate in Hz.
    names: scores to compute, of `SCORES`; `motion_onset` is always there.
    motion: its score `ranking.motion_onset`.
    like: sound to be like, float32 [any channels], for the score `like`.

  Raises:
    MissingWeightsError, WrongWeightsError: a network cannot be loaded.
  """
  found = {"motion_onset": motion}
  if "no_speech" in names:
    seconds = unwanted.amount("speech", samples, sample_rate)
    found["no_speech"] = max(1 - seconds * sample_rate / len(samples), 0.0)
  if "no_music" in names:
    found["no_music"] = 1 - unwanted.amount("music", samples, sample_rate)
  if "like" in names:
    found["like"] = unwanted.similarity(samples, like, sample_rate)
  return found


def combined(
  rows: Sequence[Mapping[str, float]], names: Sequence[str]
) -> list[float]:
  """Combines named scores to one for each candidate; more is better.

  One name gives that score. Of several, each counts as the share of the other
  candidates that are not better by it, and the mean is taken: scores of
  different units have no common scale.
  """
  if len(names) == 1:
    return [row[names[0]] for row in rows]
  others = max(len(rows) - 1, 1)
  values = np.array([[row[name] for name in names] for row in rows])
  not_better = (values[None] <= values[:, None]).sum(axis=1) - 1
  return [float(x) for x in (not_better / others).mean(axis=1)]
