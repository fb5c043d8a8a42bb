"""Going back to good weights after a run has gone wrong.

The functions take a `loop.Run`.
"""

import dataclasses
import logging
from typing import Any

from v2a_jax.training.health import NonFiniteError

_log = logging.getLogger(__name__)


def go_back(run: Any) -> None:
  """Restores the last good checkpoint of a run whose newest steps are bad.

  That is the newest one that a good step followed, or else the newest.

  The data go on where they are, so that the batches that led there are not seen
  again. Where that has been done often enough, losses that are high but finite
  are taken for the usual ones.

  Raises:
    NonFiniteError: there is no such checkpoint, or going back has not helped.
  """
  limit, health = run.experiment.run.max_rollbacks, run.health
  if run.rollbacks >= limit and health.finite:
    _log.warning("%s: taken as usual from here on", health.describe())
    health.accept()
    return
  if run.rollbacks >= limit or _set_suspects_aside(run) is None:
    raise failure(run)
  now, described = run.position(), health.describe()
  restored = run.checkpoints.restore(run.program.state, run.program.shardings)
  run.state, run.step = restored.state, restored.step
  run.start = dataclasses.replace(
    run.start, step=restored.step, examples=now.examples
  )
  run.rollbacks += 1
  health.restart(run.step)
  run.goodput.go_back()
  run.throughput.start(run.step)
  run.log.rewind(run.step)
  _log.warning(
    "%s. Back to step %d (%d of at most %d times), skipping the %d clips since",
    described,
    run.step,
    run.rollbacks,
    limit,
    now.examples - restored.data["global_next_index"],
  )


def failure(run: Any) -> NonFiniteError:
  """Returns the error that ends a run whose weights are ruined."""
  newest, root = _set_suspects_aside(run), run.checkpoints.root
  kept = f"{root} has no checkpoint from before"
  if newest is not None:
    kept = f"the next run begins with {root / str(newest)}"
  return NonFiniteError(
    f"{run.health.describe()}; {kept}. Lower config.optimizer.learning_rate, or"
    f" look at the records that {run.workdir / 'hosts'} names"
  )


def _set_suspects_aside(run: Any) -> int | None:
  """Moves checkpoints away that may be ruined, if good weights remain.

  The only ones there are stay: the batches may have been bad, not the weights.

  Returns:
    The newest checkpoint that is left, or None.
  """
  run.checkpoints.wait()
  good, steps = run.health.good, run.checkpoints.steps()
  if good and not any(step <= good for step in steps):
    return max(steps, default=None)
  return run.checkpoints.set_aside(after=good)
