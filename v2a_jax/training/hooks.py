"""What happens beside the updates: logging, profiling, watching for failure.

The loop hands each hook a step only after that step has been computed, so a
hook never makes the device wait.
"""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

import jax

from v2a_jax.parallel.distributed import is_main_process
from v2a_jax.training.optimizer import make_schedule
from v2a_jax.training.throughput import Throughput, peak_flops
from v2a_jax.training.writers import (
  JsonlWriter,
  ProgressWriter,
  WandbWriter,
  Writer,
  run_record,
)


class NonFiniteError(Exception):
  """Too many updates in a row had a loss or gradient that is not finite."""


class SkipWatch:
  """Ends a run whose updates are all skipped."""

  def __init__(self, max_skipped_steps: int, *, root: pathlib.Path):
    self._max = max_skipped_steps
    self._root = root

  def __call__(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
    """Looks at the finished `step`.

    Raises:
      NonFiniteError: after `max_skipped_steps` in a row.
    """
    in_row = int(metrics["skipped_in_row"])
    if in_row >= self._max:
      raise NonFiniteError(
        f"steps {step - in_row + 1} to {step}: loss"
        f" {float(metrics['loss'])}, gradient norm"
        f" {float(metrics['grad_norm'])}; {in_row} updates in a row were"
        f" skipped. Checkpoints from before are in {self._root}; lower"
        " optimizer.learning_rate or look at these batches"
      )


class LogHook:
  """Writes metrics, speed and goodput every so many steps, and at the end."""

  def __init__(
    self,
    run: Any,
    *,
    throughput: Throughput,
    writers: Sequence[Writer],
    progress: ProgressWriter | None,
  ):
    """Makes it for a run of `training/loop.py`; see `open`."""
    self._run = run
    self._every = run.experiment.log_every
    self._total = run.experiment.num_train_steps
    self._schedule = jax.jit(
      make_schedule(run.experiment.optimizer, self._total)
    )
    self._throughput = throughput
    self._writers = writers
    self._progress = progress

  @classmethod
  def open(cls, run: Any, workdir: pathlib.Path) -> "LogHook":
    """Opens the writers, on process 0, and says what is about to run."""
    e = run.experiment
    peak, source = peak_flops(run.mesh.devices.flat[0])
    throughput = Throughput(
      batch_size=e.batch_size,
      flops_per_example=e.flops_per_example,
      num_devices=run.mesh.size,
      peak=peak,
    )
    if not is_main_process():
      return cls(run, throughput=throughput, writers=(), progress=None)
    progress = ProgressWriter(e.num_train_steps)
    record = run_record(workdir)
    writers = [progress, JsonlWriter(workdir, start_step=run.start.step)]
    if e.wandb != "disabled":
      writers.append(
        WandbWriter(
          workdir, run_id=record["wandb_id"], mode=e.wandb, config=e.meta
        )
      )
    log = cls(run, throughput=throughput, writers=writers, progress=progress)
    log.say(_introduce(run, peak, source))
    return log

  def __call__(
    self, step: int, metrics: Mapping[str, jax.Array], *, last: bool = False
  ) -> None:
    """Logs the finished `step`, if it is its turn."""
    if step % self._every and not last:
      return
    found = jax.device_get(dict(metrics))
    row = {f"train/{name}": float(value) for name, value in found.items()}
    row["train/learning_rate"] = float(self._schedule(step - 1))
    row |= self._throughput.metrics(step)
    times = (self._throughput.eta(self._total), self._run.seconds_left())
    known = [max(t, 0.0) for t in times if t is not None]
    if known:
      row["perf/eta_seconds"] = min(known)
    self.write(step, row | self._run.goodput.metrics())
    self._run.checkpoints.check()

  def start_clock(self, step: int) -> None:
    """Starts to measure speed, when `step` is done and compiled."""
    self._throughput.start(step)

  def write(self, step: int, row: Mapping[str, float]) -> None:
    for writer in self._writers:
      writer.write(step, row)

  def say(self, text: str) -> None:
    if self._progress:
      self._progress.say(text)

  def close(self) -> None:
    for writer in self._writers:
      writer.close()


def _introduce(run: Any, peak: float, source: str) -> str:
  """One line on what runs where."""
  count = sum(x.size for x in jax.tree.leaves(run.state.params))
  axes = " x ".join(f"{n} {name}" for name, n in run.mesh.shape.items())
  kind = run.mesh.devices.flat[0].device_kind
  if run.start.step:
    begin = f"from step {run.start.step}"
  else:
    given = run.experiment.initial is not None
    begin = "from given weights" if given else "from scratch"
  return (
    f"training {count / 1e6:.2f} M parameters {begin}, on {axes} ({kind},"
    f" {peak / 1e12:.3g} TFLOP/s a device by {source}); the first step"
    " compiles"
  )


class ProfileHook:
  """Traces the steps [start, start + num) for xprof or Perfetto."""

  def __init__(
    self, window: tuple[int, int] | None, *, workdir: str | pathlib.Path
  ):
    start, num = window or (-1, 0)
    self._start, self._stop = start, start + num
    self._folder = str(pathlib.Path(workdir) / "profile")
    self._active = False

  def __call__(self, step: int) -> None:
    """Called before `step`."""
    if step == self._start:
      jax.profiler.start_trace(self._folder)
      self._active = True
    elif step == self._stop:
      self.close()

  def close(self) -> None:
    if self._active:
      jax.profiler.stop_trace()
      self._active = False
