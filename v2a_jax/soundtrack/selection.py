"""Which takes are handed out: what is heard in them, their scores, their ranks."""

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any

import numpy as np

from v2a_jax.hearing import unwanted
from v2a_jax.soundtrack import scoring
from v2a_jax.soundtrack.request import Request
from v2a_jax.soundtrack.takes import Soundtrack

# (first seed, count) → so many takes.
Make = Callable[[int, int], list[Soundtrack]]


def judged(
  samples: np.ndarray,
  sample_rate: int,
  seed: int,
  *,
  request: Request,
  against: scoring.Against,
) -> Soundtrack:
  """Listens to a take and scores it.

  Args:
    samples: its sound, float32 [t channels], which is clipped to [-1, 1].
    sample_rate: sample rate in Hz.
    seed: its seed.
    request: what is asked for.
    against: what it is compared with.
  """
  np.clip(samples, -1.0, 1.0, out=samples)
  found = scoring.scores(samples, sample_rate, request.chosen_by, against)
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
    score=found[request.rank_by[0]],
    scores=found,
    heard=heard,
    rejected=any(heard[kind] >= unwanted.KINDS[kind].limit for kind in heard),
  )


def select(
  make: Make, request: Request
) -> tuple[list[Soundtrack], list[dict[str, Any]]]:
  """Makes candidates at once, and others where something unwanted is heard.

  Returns:
    (candidates, the best first and rejected ones last; rows of the sidecar
    about those that are not among them).
  """
  taken, rows = [], []
  made = make(request.seed, request.num_candidates)
  for index, take in enumerate(made):
    best, rejected = _wanted(make, request, index, take)
    taken.append(best)
    rows += rejected
  totals = scoring.combined([take.scores for take in taken], request.rank_by)
  taken = [
    dataclasses.replace(take, score=total) for take, total in zip(taken, totals)
  ]
  return sorted(taken, key=lambda take: (take.rejected, -take.score)), rows


def one_by_one(
  make: Make, request: Request, first: int = 0
) -> Iterator[tuple[Soundtrack, list[dict[str, Any]]]]:
  """Makes the candidates of `select` one after another.

  Each is ranked by the first score.

  Args:
    make: makes takes.
    request: what is asked for.
    first: number of the candidate to begin with, from 0. Its seeds do not
      depend on it: whoever goes on gets what was left to be made.

  Yields:
    (a candidate; rows of the sidecar about those rejected in its place).
  """
  name, *_ = request.rank_by
  for index in range(first, request.num_candidates):
    (take,) = make(request.seed + index, 1)
    best, rows = _wanted(make, request, index, take)
    yield dataclasses.replace(best, score=best.scores[name]), rows


def _wanted(
  make: Make, request: Request, index: int, take: Soundtrack
) -> tuple[Soundtrack, list[dict[str, Any]]]:
  """Makes a candidate anew while something unwanted is heard in it.

  Its seeds are those of its number alone, whatever becomes of the others.

  Returns:
    (the one with the least of that; rows of the sidecar about the others).
  """
  tried, count = [take], request.num_candidates
  for retry in range(1, 1 + request.retries):
    if not tried[-1].rejected:
      break
    tried += make(request.seed + index + count * retry, 1)
  best = min(tried, key=lambda take: (take.rejected, sum(take.heard.values())))
  return best, [_row(take) for take in tried if take is not best]


def _row(take: Soundtrack) -> dict[str, Any]:
  """Returns what the sidecar says of a take that is not delivered."""
  return {
    "seed": take.seed,
    "heard": dict(take.heard),
    "rejected": take.rejected,
  }
