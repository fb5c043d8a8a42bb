"""What a run reports beside its updates: metrics, speed, profiles, failures."""

from collections.abc import Mapping, Sequence
import pathlib

import jax

from v2a_jax.basics import cache, files
from v2a_jax.basics.paths import is_remote
from v2a_jax.training.writers import (
  JsonlWriter,
  ProgressWriter,
  WandbWriter,
  Writer,
  run_record,
)


class NonFiniteError(Exception):
  """Too many updates in a row had a loss or gradient that is not finite."""


def check_finite(
  step: int,
  metrics: Mapping[str, jax.Array],
  *,
  max_skipped_steps: int,
  root: pathlib.Path,
) -> None:
  """Ends a run whose updates are all skipped.

  Args:
    step: number of the finished step.
    metrics: its metrics.
    max_skipped_steps: number of consecutive skipped updates that is too many.
    root: folder of the checkpoints, for the message.

  Raises:
    NonFiniteError: so many updates in a row were skipped.
  """
  in_row = int(metrics["skipped_in_row"])
  if in_row >= max_skipped_steps:
    raise NonFiniteError(
      f"steps {step - in_row + 1} to {step}: loss {float(metrics['loss'])},"
      f" gradient norm {float(metrics['grad_norm'])}; {in_row} updates in a row"
      f" were skipped. Checkpoints from before are in {root}; lower"
      " config.optimizer.learning_rate or look at these batches"
    )


class MetricLog:
  """Hands rows of metrics to every writer."""

  def __init__(self, writers: Sequence[Writer] = ()):
    self._writers = writers

  @classmethod
  def open(
    cls,
    workdir: pathlib.Path,
    *,
    num_train_steps: int,
    start_step: int,
    wandb_mode: str,
    config: Mapping,
  ) -> "MetricLog":
    """Opens the writers of a run; process 0 does this.

    Args:
      workdir: the run's folder.
      num_train_steps: last step, for the progress line.
      start_step: step at which the run goes on; later rows are dropped.
      wandb_mode: `offline`, `online` or `disabled`.
      config: settings that wandb shows for the run.
    """
    record = run_record(workdir)
    writers = [
      ProgressWriter(num_train_steps),
      JsonlWriter(workdir, start_step=start_step),
    ]
    if wandb_mode != "disabled":
      writers.append(
        WandbWriter(
          workdir, run_id=record["wandb_id"], mode=wandb_mode, config=config
        )
      )
    return cls(writers)

  def write(self, step: int, row: Mapping[str, float]) -> None:
    for writer in self._writers:
      writer.write(step, row)

  def say(self, text: str) -> None:
    """Prints a line for people."""
    for writer in self._writers:
      if isinstance(writer, ProgressWriter):
        writer.say(text)

  def close(self) -> None:
    for writer in self._writers:
      writer.close()


class Profiler:
  """Traces steps into `<workdir>/profile`, for XProf or TensorBoard.

  For a workdir on an object store, into a folder of the cache, which is copied.
  """

  def __init__(self, window: tuple[int, ...], *, workdir: pathlib.Path):
    """Sets the window of steps.

    Args:
      window: (first step, number of steps), or () for none.
      workdir: the run's folder.
    """
    first, number = window or (-1, 0)
    self._first, self._last = first, first + number
    self._target = self._folder = workdir / "profile"
    if is_remote(self._target):
      self._folder = cache.place(self._target, "profiles")
    self._active = False

  def before(self, step: int) -> None:
    """Starts or stops the trace before `step` is dispatched."""
    if self._first <= step < self._last and not self._active:
      jax.profiler.start_trace(str(self._folder))
      self._active = True
    elif step >= self._last:
      self.close()

  def close(self) -> None:
    if self._active:
      jax.profiler.stop_trace()
      self._active = False
      if is_remote(self._target):
        files.upload(self._folder, self._target)
