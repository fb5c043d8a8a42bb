"""Which takes are handed out: what is heard in them, their scores, their ranks."""

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any

import numpy as np

from v2a_jax.hearing import unwanted
from v2a_jax.soundtrack import ranking, scoring
from v2a_jax.soundtrack.request import Request
from v2a_jax.soundtrack.takes import Soundtrack

# (first seed, count) → so many takes.
Make = Callable[[int, int], list[Soundtrack]]


def scores_of(request: Request) -> tuple[str, ...]:
  """Returns the names of the scores that a request needs."""
  absent = [f"no_{name}" for name in request.unwanted if request.retries]
  return tuple(dict.fromkeys([*request.rank_by, *absent]))


def judged(
  samples: np.ndarray,
  sample_rate: int,
  seed: int,
  *,
  motion: ranking.Motion,
  request: Request,
  like: np.ndarray | None,
) -> Soundtrack:
  """Listens to a take and scores it.

  Args:
    samples: its sound, float32 [t channels], which is clipped to [-1, 1].
    sample_rate: sample rate in Hz.
    seed: its seed.
    motion: that of the picture.
    request: what is asked for.
    like: sound to be like, float32 [any channels]; None without one.
  """
  np.clip(samples, -1.0, 1.0, out=samples)
  score = ranking.motion_onset(samples, sample_rate, motion)
  heard = {}
  if request.retries:
    heard = {
      kind: unwanted.amount(kind, samples, sample_rate)
      for kind in request.unwanted
    }
  return Soundtrack(
    samples=samples,
    sample_rate=sample_rate,
    seed=seed,
    score=score,
    scores=scoring.scores(
      samples, sample_rate, scores_of(request), motion=score, like=like
    ),
    heard=heard,
    rejected=any(heard[kind] >= unwanted.KINDS[kind].limit for kind in heard),
  )


def select(
  make: Make, request: Request
) -> tuple[list[Soundtrack], list[dict[str, Any]]]:
  """Makes candidates, and others where something unwanted is heard.

  Returns:
    (candidates, the best first and rejected ones last; rows of the sidecar
    about those that are not among them).
  """
  wanted, seed = request.num_candidates, request.seed
  made, count = [], wanted
  for _ in range(1 + request.retries):
    made += make(seed, count)
    seed += count
    missing = wanted - sum(not take.rejected for take in made)
    if missing <= 0:
      break
    # Few sizes, because each is compiled.
    count = min(wanted, 1 << (missing - 1).bit_length())
  totals = scoring.combined([take.scores for take in made], request.rank_by)
  made = [
    dataclasses.replace(take, score=total) for take, total in zip(made, totals)
  ]
  clean = [take for take in made if not take.rejected][:wanted]
  spare = sorted(
    (take for take in made if take.rejected), key=lambda take: -take.score
  )
  best = sorted(clean, key=lambda take: -take.score)
  taken = best + spare[: wanted - len(best)]
  seeds = {take.seed for take in taken}
  return taken, [_row(take) for take in made if take.seed not in seeds]


def one_by_one(
  make: Make, request: Request
) -> Iterator[tuple[Soundtrack, list[dict[str, Any]]]]:
  """Makes the candidates one after another, each ranked by the first score.

  Yields:
    (a candidate; rows of the sidecar about those rejected in its place).
  """
  count, (name, *_) = request.num_candidates, request.rank_by
  for index in range(count):
    tried = []
    for retry in range(1 + request.retries):
      tried += make(request.seed + index + count * retry, 1)
      if not tried[-1].rejected:
        break
    best = min(
      tried, key=lambda take: (take.rejected, sum(take.heard.values()))
    )
    rows = [_row(take) for take in tried if take is not best]
    yield dataclasses.replace(best, score=best.scores[name]), rows


def _row(take: Soundtrack) -> dict[str, Any]:
  """Returns what the sidecar says of a take that is not delivered."""
  return {
    "seed": take.seed,
    "heard": dict(take.heard),
    "rejected": take.rejected,
  }
