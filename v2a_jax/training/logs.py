"""What a run reports beside its updates: metrics, speed, profiles."""

from collections.abc import Callable, Mapping, Sequence
import logging
import pathlib
from typing import Any

import jax

from v2a_jax.basics import cache, files
from v2a_jax.basics.paths import PathLike, is_remote
from v2a_jax.training.event_files import TensorBoardWriter
from v2a_jax.training.writers import (
  JsonlWriter,
  ProgressWriter,
  WandbWriter,
  Writer,
  run_record,
)

_log = logging.getLogger(__name__)


class MetricLog:
  """Hands rows of metrics to every writer.

  A writer that fails, because the disk is full, nobody reads the progress line
  or a library has an error, is named once, and training goes on.
  """

  def __init__(self, writers: Sequence[Writer] = ()):
    self._writers = writers
    self._failed = set()

  @classmethod
  def open(
    cls,
    workdir: pathlib.Path,
    *,
    num_train_steps: int,
    start_step: int,
    wandb_mode: str,
    tensorboard: bool,
    config: Mapping,
  ) -> "MetricLog":
    """Opens the writers of a run; process 0 does this.

    Args:
      workdir: the run's folder.
      num_train_steps: last step, for the progress line.
      start_step: step at which the run goes on; later rows are dropped.
      wandb_mode: `offline`, `online` or `disabled`.
      tensorboard: whether TensorBoard's event files are written.
      config: settings that wandb and TensorBoard show for the run.
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
    if tensorboard:
      writers.append(
        TensorBoardWriter(workdir, start_step=start_step, config=config)
      )
    return cls(writers)

  def write(self, step: int, row: Mapping[str, float]) -> None:
    self._each(lambda writer: writer.write(step, row))

  def say(self, text: str) -> None:
    """Prints a line for people."""
    self._each(lambda writer: writer.say(text))

  def rewind(self, step: int) -> None:
    """Forgets the rows after a step; they are about to be written again."""
    self._each(lambda writer: writer.rewind(step))

  def show(self, step: int, folder: PathLike) -> None:
    """Shows the sounds and videos of a folder."""
    self._each(lambda writer: writer.show(step, folder))

  def close(self) -> None:
    self._each(lambda writer: writer.close())

  def _each(self, action: Callable[[Writer], Any]) -> None:
    for writer in self._writers:
      try:
        action(writer)
      except Exception as error:
        if writer not in self._failed:
          self._failed.add(writer)
          _log.warning(
            "%s cannot be written (%s); training goes on",
            writer.name,
            _reason(error),
          )


def _reason(error: Exception) -> str:
  """Returns one line on what was raised."""
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  text = " ".join(str(error).split())[:200]
  return (
    text if isinstance(error, OSError) else f"{type(error).__name__}: {text}"
  )


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
