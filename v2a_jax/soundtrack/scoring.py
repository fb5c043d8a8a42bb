"""Scores of candidates, by which they are ranked.

All are written into the sidecar by name, and more is better. Metrics of `v2a eval`
rank takes only on request, because takes that a metric has chosen cannot be
measured by it any more: the sidecar says what ranked or rejected takes, and `v2a
eval` does not measure them by the same (`evaluation.metrics.base.Metric.chosen_by`).
Whoever evaluates ranked candidates should still say of how many each is the best.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import NamedTuple

import numpy as np

from data_pipelines.columns import sound
from v2a_jax.hearing import clap, embeddings, unwanted
from v2a_jax.soundtrack import ranking
from v2a_jax.soundtrack.judging import Watched
from v2a_jax.sync import bundled

_PIECE = 60.0  # seconds of sound that are measured at a time
_ALL_CLIPPED = 0.01  # share of clipped samples that counts as all
_MUCH = 8  # power of the share of silence: sounds of single events have half


@dataclasses.dataclass(frozen=True, kw_only=True)
class Against:
  """What candidates for one request are compared with.

  Attributes:
    motion: that of the picture.
    like: sound to be like, float32 [any channels]; None without one.
    prompt: description of the sound.
    clap: folder of LAION's CLAP; "" for none.
    picture: the picture as the judge sees it; None if it is not asked.
  """

  motion: ranking.Motion
  like: np.ndarray | None = None
  prompt: str = ""
  clap: str = ""
  picture: Watched | None = None


def quality(samples: np.ndarray, sample_rate: int) -> float:
  """Scores a sound by three faults for which listeners reject one.

    quality = (1 - silent^8) (1 - clipped) (1 - missing)

  silent is the share of the time under -60 dBFS, of which only much is a fault:
  a half takes 0.4 % away, nine tenths 43 %. clipped is the share of samples that
  pile up at a level, a hundred times itself and at most 1, and missing the share
  of the band above the frequency at which the spectrum breaks off, if it does
  (`data_pipelines.columns.sound`). A sound that fades towards high frequencies
  misses nothing.

  Args:
    samples: float32 [t channels].
    sample_rate: Hz.

  Returns:
    Mean over minutes, in [0, 1]; 0 for no samples.
  """
  size = round(_PIECE * sample_rate)
  parts = [samples[at : at + size] for at in range(0, len(samples), size)]
  if not parts:
    return 0.0
  scores = [_quality(np.asarray(part), sample_rate) for part in parts]
  return float(np.average(scores, weights=[len(part) for part in parts]))


def _quality(samples: np.ndarray, sample_rate: int) -> float:
  silent = sound.silence(samples, sample_rate)
  clipped = min(sound.clipping(samples) / _ALL_CLIPPED, 1.0)
  cutoff = sound.cutoff(samples, sample_rate)
  missing = 0.0 if cutoff is None else 1 - cutoff / (sample_rate / 2)
  return (1 - silent**_MUCH) * (1 - clipped) * (1 - missing)


def _no_speech(samples, sample_rate: int, against: Against) -> float:
  seconds = unwanted.amount("speech", samples, sample_rate)
  return max(1 - seconds * sample_rate / len(samples), 0.0)


class Score(NamedTuple):
  """A score: what it is, and what gives it of (samples, rate, `Against`)."""

  about: str
  measure: Callable[[np.ndarray, int, Against], float]


SCORES = {
  ranking.NAME: Score(
    "how well onsets of sound and of motion coincide, -1 to 1",
    lambda x, rate, to: ranking.motion_onset(x, rate, to.motion),
  ),
  "quality": Score(
    "how little of it is silent, clipped or without its high band, 0 to 1",
    lambda x, rate, to: quality(x, rate),
  ),
  "prompt": Score(
    "cosine of the angle to the prompt, by LAION's CLAP",
    lambda x, rate, to: clap.load(to.clap).agreement(to.prompt, x, rate),
  ),
  "no_speech": Score(
    "share of the time in which nobody speaks, by Silero VAD", _no_speech
  ),
  "no_music": Score(
    "1 less the probability of music, by mn04",
    lambda x, rate, to: 1 - unwanted.amount("music", x, rate),
  ),
  "like": Score(
    "cosine of the angle to the embedding of the sound `like`, by mn04",
    lambda x, rate, to: unwanted.similarity(x, to.like, rate),
  ),
  "sync_judge": Score(
    "probability that it is at most 80 ms early or late, by the own judge",
    lambda x, rate, to: to.picture.in_time(x, rate),
  ),
}
# Those without a network, which every candidate has.
ALWAYS = (ranking.NAME, "quality")
_NETWORKS = {
  "no_speech": embeddings.Silero,
  "no_music": embeddings.Mn04,
  "like": embeddings.Mn04,
}


def prepare(names: Sequence[str], folder: str = "") -> None:
  """Loads the networks of scores, before anything is generated.

  Args:
    names: scores.
    folder: folder of LAION's CLAP.

  Raises:
    DataError, MissingWeightsError, WrongWeightsError: one cannot be loaded.
  """
  for name in names:
    if name in _NETWORKS:
      unwanted.loaded(_NETWORKS[name])
  networks([name for name in names if name not in _NETWORKS], folder)


def networks(names: Sequence[str], folder: str = "") -> dict[str, str]:
  """Returns what gives scores, by their names: a network and its sha256, or "".

  The arguments and errors are those of `prepare`.
  """
  found = dict.fromkeys(names, "")
  for name in names:
    if network := _NETWORKS.get(name):
      found[name] = f"{network.id} {network.sha256}"
    elif name == "prompt":
      found[name] = f"{clap.load(folder).name} {clap.load(folder).sha256}"
    elif name == "sync_judge":
      found[name] = f"{bundled.load().name} {bundled.load().sha256}"
  return found


def scores(
  samples: np.ndarray,
  sample_rate: int,
  names: Sequence[str],
  against: Against,
) -> dict[str, float]:
  """Scores a candidate.

  Args:
    samples: its sound, float32 [t channels].
    sample_rate: sample rate in Hz.
    names: scores to compute beside those of `ALWAYS`.
    against: what it is compared with.

  Raises:
    MissingWeightsError, WrongWeightsError: a network cannot be loaded.
  """
  names = dict.fromkeys([*ALWAYS, *names])
  return {
    name: SCORES[name].measure(samples, sample_rate, against) for name in names
  }


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
