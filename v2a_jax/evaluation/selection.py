"""Which clips are shown of all that were scored: from the worst to the best.

Clips are ranked by the scores of the system's sounds on the first metric of
timing, or else of quality, on which they differ.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from v2a_jax.evaluation.schema import GENERATED, is_finite

T = TypeVar("T")


def metric_of(run: Mapping[str, Any]) -> str:
  """Returns the id of the metric that ranks the clips of results, "" for none.

  Args:
    run: content of results.json.
  """
  known = [
    id_
    for id_, about in run["metrics"].items()
    if about.get("role", "quality") == "quality"
    and about["higher_is_better"] is not None
    and len(set(_scores(run, id_).values())) > 1
  ]
  timing = [id_ for id_ in known if run["metrics"][id_].get("judges_timing")]
  return next(iter(timing + known), "")


def ranks(run: Mapping[str, Any]) -> dict[str, int]:
  """Returns the rank of each scored clip by its id, 1 for the worst."""
  if not (id_ := metric_of(run)):
    return {}
  sign = 1 if run["metrics"][id_]["higher_is_better"] else -1
  scores = _scores(run, id_)
  ordered = sorted(scores, key=lambda clip: sign * scores[clip])
  return {clip: rank for rank, clip in enumerate(ordered, start=1)}


def ranked(ids: Sequence[str], run: Mapping[str, Any]) -> list[str]:
  """Sorts clips, worst first; those without a score go last."""
  placed = ranks(run)
  return sorted(ids, key=lambda id_: placed.get(id_, len(placed) + 1))


def spread(items: Sequence[T], count: int) -> list[T]:
  """Takes `count` items or fewer, evenly spread, with both ends."""
  if len(items) <= count:
    return list(items)
  places = np.linspace(0, len(items) - 1, count).round().astype(int)
  return [items[place] for place in places]


def choose(run: Mapping[str, Any], count: int) -> list[str]:
  """Chooses clips whose sounds are kept.

  Half of them are the first, which are the same for every system that is
  evaluated on the set, so that systems can be heard beside each other. The
  others are spread over the rest, from the worst to the best.
  """
  ids = [clip["id"] for clip in run["clips"]]
  common = ids if len(ids) <= count else ids[: count - count // 2]
  rest = [id_ for id_ in ranked(ids, run) if id_ not in {*common}]
  return common + spread(rest, count - len(common))


def _scores(run: Mapping[str, Any], metric: str) -> dict[str, float]:
  """Returns the scores of a run's sounds by clip, those that are numbers."""
  found = {
    clip["id"]: clip.get("scores", {}).get(GENERATED, {}).get(metric)
    for clip in run["clips"]
  }
  return {id_: value for id_, value in found.items() if is_finite(value)}
