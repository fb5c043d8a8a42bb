"""What an evaluation needs and can be refused for, before it takes minutes."""

from collections.abc import Callable, Sequence
import os

from v2a_jax.evaluation import clips as clips_lib
from v2a_jax.evaluation import formats
from v2a_jax.evaluation import rows as rows_lib
from v2a_jax.evaluation.clips import Truth
from v2a_jax.evaluation.metrics.base import Metric
from v2a_jax.evaluation.options import Options
from v2a_jax.evaluation.systems import System
from v2a_jax.hearing.embeddings import Embedding
from v2a_jax.weights import registry as weights

Log = Callable[[str], None]


def rows_of(system: System, options: Options) -> list[str]:
  """Returns the rows to make.

  Raises:
    ValueError: a row is unknown, or the system cannot have it.
  """
  mine = lambda row: row in system.rows or row not in rows_lib.MODEL_ROWS
  known = [row for row in rows_lib.ROWS if mine(row)]
  can = [*known, *filter(system.rows.__contains__, rows_lib.ASKED)]
  rows = list(known if options.rows is None else options.rows)
  if unknown := [row for row in rows if row not in can]:
    raise ValueError(f"rows {', '.join(unknown)}: choose from {', '.join(can)}")
  if not rows:
    raise ValueError(f"rows (none): choose from {', '.join(can)}")
  asked = [rows_lib.WORD_TIMES] * options.word_times
  asked += list(rows_lib.DEGRADED) * options.degraded
  rows += [row for row in asked if row in system.rows and row not in rows]
  return rows


def for_clips(rows: Sequence[str], count: int) -> list[str]:
  """Returns the rows that can be made of `count` clips.

  Raises:
    ValueError: there are none.
  """
  left = [row for row in rows if count > 1 or row not in rows_lib.SWAPPED]
  if not left:
    raise ValueError(
      f"rows {', '.join(rows)} take something from another clip, and one clip"
      " is scored: give two clips or more, or other rows"
    )
  return left


def refused(
  system: System, metrics: Sequence[Metric], log: Log
) -> dict[str, str]:
  """Returns why metrics are not measured that chose the sounds, by their id."""
  found = {}
  for score in system.chosen_by:
    ids = [m.id for m in metrics if score in m.chosen_by]
    reason = (
      f"its takes were chosen by {score}, which judges the same: make others"
      f" without --rank_by {score}"
    )
    if score in ("no_speech", "no_music"):
      reason += " and --retries"
    if ids:
      log(f"not measured: {', '.join(ids)}: {reason}")
    found |= dict.fromkeys(ids, reason)
  return found


def load_networks(
  metrics: Sequence[Metric], path: str | os.PathLike | None, log: Log
) -> tuple[dict[str, Embedding], dict[str, str]]:
  """Returns networks that metrics need, and why others lack, by their id."""
  networks, missing = {}, {}
  for embedding in dict.fromkeys(m.embedding for m in metrics if m.embedding):
    try:
      networks[embedding.id] = embedding(path)
    except weights.MissingWeightsError as error:
      missing[embedding.id] = str(error)
      ids = [m.id for m in metrics if m.embedding is embedding]
      log(f"not measured: {', '.join(ids)}: {error}")
  return networks, missing


def entries_of(
  truth: Truth, eligible: Sequence[int] | None, options: Options
) -> list[formats.Entry]:
  """Draws the clips to score.

  Raises:
    ValueError: there are none.
  """
  if eligible is None:
    eligible = range(len(truth.records))
  indices = clips_lib.choose(eligible, num=options.num_clips, seed=options.seed)
  if not indices:
    raise ValueError(f"{truth.path}: there are no clips to score")
  return formats.survey(truth.records, indices)
