"""The training loop, for every model and objective.

A work directory that holds checkpoints is continued; so the same command,
given again after a preemption, goes on where it stopped: with the same
weights, moments and averages, the same batches and the same random numbers.
"""

import collections
from collections.abc import Callable
import contextlib
import logging
import pathlib
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

from v2a_jax.basics.paths import as_path
from v2a_jax.parallel import distributed, sharding
from v2a_jax.parallel import mesh as mesh_lib
from v2a_jax.parallel.distributed import is_main_process
from v2a_jax.training import evaluation, hosts, logs, rollback
from v2a_jax.training.checkpoint import CheckpointError, Checkpoints
from v2a_jax.training.goodput import Goodput
from v2a_jax.training.health import Health
from v2a_jax.training.preemption import Preempted, PreemptionGuard
from v2a_jax.training.program import make_program
from v2a_jax.training.run import Position, Samples, Trainable
from v2a_jax.training.sample_files import samples_folder
from v2a_jax.training.stall import StalledError, StallGuard
from v2a_jax.training.state import TrainState, start_from
from v2a_jax.training.throughput import Throughput, peak_flops
from v2a_jax.training.waiting import DataWait

# More steps than this in flight only cost memory; very many deadlock.
_MAX_IN_FLIGHT = 2
# Processes agree on the time, which costs a message, each so many steps.
_CLOCK_EVERY = 20

_log = logging.getLogger(__name__)


def train(
  experiment: Trainable,
  workdir: str | pathlib.Path,
  *,
  samples: Samples | None = None,
) -> TrainState:
  """Trains to `num_train_steps` or `train_seconds`, whichever comes first.

  Args:
    experiment: model, data, objective and settings of the run.
    workdir: folder of checkpoints and metrics; continued if it has any.
    samples: makes sounds in each evaluation; None for none.

  Returns:
    The last state, which is also saved.

  Raises:
    Preempted: on SIGTERM, SIGINT or SIGHUP, after saving; a SystemExit of 128
      and the signal's number.
    NonFiniteError: after `max_skipped_steps` bad steps in a row, where going
      back to the last good checkpoint has not helped or there is none.
    CheckpointError: the last state cannot be saved, or none be restored.
  """
  workdir = as_path(workdir)
  with contextlib.ExitStack() as stack:
    stack.enter_context(hosts.log_file(workdir))
    guard = stack.enter_context(PreemptionGuard())
    stall = stack.enter_context(StallGuard(experiment.run.stall_seconds))
    with distributed.together():
      run = Run(
        experiment, workdir, stack, watched_by=stall.check, samples=samples
      )
      try:
        code = run.until_done_or(guard.exit_code)
      except StalledError as error:
        distributed.end_to_try_again(str(error))
    distributed.barrier("end")
  if code is not None:
    raise Preempted(code)
  return run.state


class Run:
  """A run in progress: its state, and what it reads and writes."""

  def __init__(
    self,
    experiment: Trainable,
    workdir: pathlib.Path,
    stack: contextlib.ExitStack,
    *,
    watched_by: Callable[[dict[str, Any]], None] = lambda facts: None,
    samples: Samples | None = None,
  ):
    """Restores or initialises.

    Args:
      experiment: model, data, objective and settings.
      workdir: the run's folder.
      stack: closes what is opened here.
      watched_by: is given each heartbeat, by another thread.
      samples: makes sounds in each evaluation; None for none.
    """
    self.samples = samples
    self.watched_by = watched_by
    self.experiment, self.workdir = experiment, workdir
    self.goodput, self.step = Goodput(workdir), 0
    heartbeat = hosts.Heartbeat(workdir, self.heartbeat)
    stack.callback(heartbeat.close)
    self.in_flight = collections.deque()
    self.unlogged = {}  # Metrics of the newest step, by step, without a row.
    self.compiled, self.rollbacks = None, 0
    self.examples = None  # Numbers of the records in the newest batch.
    self.validation = {}  # The newest results, by step.
    with self.goodput.phase("init"):
      self.mesh = mesh_lib.make_mesh(experiment.mesh)
      stack.enter_context(jax.set_mesh(self.mesh))
      run = experiment.run
      self.checkpoints = Checkpoints(
        workdir, keep=run.retention, local=run.checkpoint_dir
      )
      stack.callback(self.checkpoints.close)
      self.program = make_program(experiment, self.mesh)
      self.state, self.start = self._first_state()
      self.step, self.spent = self.start.step, self._share_spent(self.start)
      self.health = Health(
        self.step,
        limit=run.max_skipped_steps,
        spike_factor=run.spike_factor,
      )
      self.frozen = jax.device_put(
        jax.tree.map(np.asarray, experiment.frozen()),
        sharding.replicated(self.mesh),
      )
      self.loader = self._open_loader(stack)
      self.data_wait = DataWait(self.loader)
      self.profiler = logs.Profiler(run.profile, workdir=workdir)
      stack.callback(self.profiler.close)
      self.log = self._open_log()
      stack.callback(self.log.close)

  def _first_state(self) -> tuple[TrainState, Position]:
    """Restores the newest checkpoint, or initialises a new state."""
    program = self.program
    if self.checkpoints.latest_step() is None:
      state, _ = sharding.init_sharded(
        program.init, self.mesh, program.shardings
      )
      weights = self.experiment.first_weights()
      if weights is None:
        self.origin = "from scratch"
        return state, Position()
      self.origin = "from given weights"
      return start_from(state, weights), Position()
    restored = self.checkpoints.restore(program.state, program.shardings)
    self.origin = f"from step {restored.step}"
    return restored.state, Position(
      step=restored.step,
      examples=restored.data["global_next_index"],
      train_seconds=restored.meta["train_seconds"],
    )

  def _open_loader(self, stack: contextlib.ExitStack):
    """Opens the data where the checkpoint left it, in examples."""
    index, count = sharding.data_shard(self.mesh)
    loader = self.experiment.open_loader(
      "train",
      step=self.start.examples // self.experiment.batch_size,
      index=index,
      count=count,
    )
    stack.callback(getattr(loader, "close", lambda: None))
    return loader

  def _open_log(self) -> logs.MetricLog:
    """Opens the writers on process 0, and says what is about to run."""
    e = self.experiment
    device = self.mesh.devices.flat[0]
    peak, source = peak_flops(device)
    self.throughput = Throughput(
      batch_size=e.batch_size,
      num_devices=self.mesh.size,
      peak=peak,
    )
    if not is_main_process():
      return logs.MetricLog()
    log = logs.MetricLog.open(
      self.workdir,
      num_train_steps=e.run.num_train_steps,
      start_step=self.start.step,
      wandb_mode=e.run.wandb_mode,
      tensorboard=e.run.tensorboard,
      config=e.meta,
    )
    count = sum(x.size for x in jax.tree.leaves(self.state.params))
    axes = " x ".join(f"{n} {name}" for name, n in self.mesh.shape.items())
    log.say(
      f"training {count / 1e6:.2f} M parameters {self.origin}, on {axes}"
      f" ({device.device_kind}, {peak / 1e12:.3g} TFLOP/s per device by"
      f" {source}); the first step compiles"
    )
    for line in getattr(self.loader, "admitted", ()):
      log.say(line)
    return log

  def until_done_or(self, stop: Callable[[int], int | None]) -> int | None:
    """Trains to the end, or until `stop(step)` gives an exit code; saves.

    Returns:
      That code, or None.
    """
    every, code = self.experiment.run, None
    try:
      distributed.barrier("start")
      while code is None and not self.finished():
        self.update(self.next_batch())
        self.mend()
        if self.due(every.eval_every):
          self.evaluate()
        code = stop(self.step)
        if code is None and self.due(every.checkpoint_every):
          self.save_if_sound()
      self.conclude()
    except Exception as error:
      self.rescue(error)
      raise
    return code

  def heartbeat(self) -> dict[str, Any]:
    """Describes this process for the others; called by another thread."""
    facts = self.goodput.heartbeat(self.step)
    self.watched_by(facts)
    if is_main_process():
      self.goodput.save()
      # The first is asked for before there are any; a store may not answer.
      with contextlib.suppress(Exception):
        facts["saved"] = self.checkpoints.latest_step()
    return facts

  def position(self) -> Position:
    """Returns where the run is now."""
    done = self.step - self.start.step
    return Position(
      step=self.step,
      examples=self.start.examples + done * self.experiment.batch_size,
      train_seconds=self.start.train_seconds + self.goodput.total(),
    )

  def seconds_left(self) -> float | None:
    """Returns what is left of the time limit in seconds; None without one."""
    limit = self.experiment.run.train_seconds
    return limit - self.position().train_seconds if limit else None

  def _share_spent(self, position: Position) -> np.float32 | None:
    """Returns the share of the time limit that is over; None without one."""
    limit = self.experiment.run.train_seconds
    return np.float32(min(position.train_seconds / limit, 1)) if limit else None

  def finished(self) -> bool:
    """Decides whether to stop before the next step; all processes agree.

    They agree on the share of the time limit that is over, too.
    """
    if self.step >= self.experiment.run.num_train_steps:
      return True
    if self.spent is None:
      return False
    if jax.process_count() == 1:
      self.spent = self._share_spent(self.position())
    elif self.step % _CLOCK_EVERY == 0:
      spent = self._share_spent(self.position())
      self.spent = np.float32(multihost_utils.broadcast_one_to_all(spent))
    return bool(self.spent >= 1)

  def due(self, every: int) -> bool:
    """Says whether something that happens each `every` steps is due; 0: never."""
    return every > 0 and self.step % every == 0

  def next_batch(self):
    """Reads the next global batch and starts to move it to the devices."""
    with self.goodput.phase("data"):
      with self.data_wait.reading():
        arrays = next(self.loader)
      self.examples = arrays.get("example")
      with self.data_wait.moving():
        arrays = sharding.shard_batch(arrays, self.mesh)
        return self.experiment.make_batch(arrays)

  def update(self, batch) -> None:
    """Does one step; returns while the devices may still be at it."""
    self.profiler.before(self.step)
    first = self.compiled is None
    if first:
      self._compile(batch)
    with self.goodput.phase(self.goodput.work(self.step)):
      self.state, metrics = self.compiled(
        self.state, self.frozen, batch, self.spent
      )
      if first:
        jax.block_until_ready(metrics)
    self.step += 1
    self.goodput.done(self.step)
    if first:
      self.throughput.start(self.step)
    self.in_flight.append((self.step, metrics, self.examples))
    self._retire(_MAX_IN_FLIGHT)

  def _compile(self, batch) -> None:
    """Compiles the step; no process runs it before all have it."""
    with self.goodput.phase("compile"):
      traced = self.program.step.trace(
        self.state, self.frozen, batch, self.spent
      )
      self.throughput.flops_per_step = self.experiment.step_flops(traced.jaxpr)
      self.compiled = traced.lower().compile()
      distributed.barrier("first compile")
    seconds = self.goodput.seconds["compile"]
    _log.info("compiled the step in %.1f s", seconds)

  def _retire(self, keep: int) -> None:
    """Judges and logs steps that are done; waits for all but the `keep` newest."""
    run = self.experiment.run
    while self.in_flight:
      step, metrics, examples = self.in_flight[0]
      if len(self.in_flight) <= keep and not metrics["loss"].is_ready():
        break
      self.in_flight.popleft()
      work = self.goodput.work(step - 1)
      with self.goodput.phase(work), self.goodput.waiting():
        jax.block_until_ready(metrics)
      if step > self.start.step + 1:
        self.throughput.tick(step)
      loss, norm = jax.device_get((metrics["loss"], metrics["grad_norm"]))
      self.health.observe(step, float(loss), float(norm), examples)
      self.unlogged = {step: metrics}
      if step % run.log_every == 0:
        self._log_step(step, metrics)

  def mend(self) -> None:
    """Goes back to good weights after too many bad steps in a row.

    All processes do it after the same step, by which all have judged the one
    that failed.
    """
    failed = self.health.failed
    if failed is not None and self.step >= failed + _MAX_IN_FLIGHT:
      self._retire(0)
      rollback.go_back(self)

  def _log_step(self, step: int, metrics) -> None:
    """Writes a row on a finished step."""
    self.unlogged = {}
    metrics = jax.device_get(dict(metrics))
    row = {f"train/{name}": float(value) for name, value in metrics.items()}
    row |= self.throughput.metrics()
    row |= self.data_wait.row(row.get("perf/step_time"))
    eta = self.throughput.eta(self.experiment.run.num_train_steps)
    times = [t for t in (eta, self.seconds_left()) if t is not None]
    if times:
      row["perf/eta_seconds"] = max(min(times), 0.0)
    self.log.write(step, row | self.goodput.metrics())
    self.checkpoints.check()

  def evaluate(self) -> None:
    """Writes the losses on the validation split, of raw and mean weights."""
    self._retire(0)
    with self.goodput.phase("eval"), self.throughput.paused():
      row = evaluation.evaluate(
        self.experiment, self.program, self.state, self.frozen, self.mesh
      )
    self.log.write(self.step, row)
    self.validation = {self.step: row}
    if self.samples:
      self.make_samples()

  def make_samples(self) -> None:
    """Makes sounds with the mean weights, or the raw ones, as files; shows them."""
    state, folder = self.state, samples_folder(self.workdir, self.step)
    weights = state.params if state.ema is None else state.ema
    with self.goodput.phase("eval"), self.throughput.paused():
      self.samples(weights, state.buffers, mesh=self.mesh, folder=folder)
    self.log.show(self.step, folder)

  def save_if_sound(self) -> None:
    """Saves this step, unless it is a bad one."""
    self._retire(0)
    if self.health.suspect:
      _log.warning("step %d is not saved: it is a bad one", self.step)
    else:
      _log.info("saving step %d", self.step)
      self.save()

  def save(self) -> None:
    """Starts to save a checkpoint of this step."""
    self._retire(0)
    now = self.position()
    with self.goodput.phase("checkpoint"), self.throughput.paused():
      self.checkpoints.save(
        self.step,
        self.state,
        data={"step": now.step, "global_next_index": now.examples},
        meta={
          **self.experiment.meta,
          "train_seconds": now.train_seconds,
          "clips_seen": now.examples,
        },
        validation=self.validation.get(self.step),
        good=self.health.good,
      )

  def rescue(self, error: Exception) -> None:
    """Saves what there is before an error ends the run.

    A state that is itself ruined is not saved, nor is anything by some of the
    processes only.
    """
    new = not isinstance(error, CheckpointError) and self.step > self.start.step
    if not (new and distributed.all_fail_at(self.step)):
      if jax.process_count() > 1:
        self.checkpoints.wait()  # The others' threads still take part in it.
      if new:
        _log.error(
          "step %d is not saved: that takes all processes, and not all of them"
          " ended with an error after it",
          self.step,
        )
      return
    try:
      self._retire(0)
      if self.health.failed is not None:
        return
      self.save()
      self.checkpoints.wait()
    except Exception as second:  # The first error is the one to report.
      _log.warning("step %s could not be saved: %s", self.step, second)
    else:
      _log.warning("saved %s", self.checkpoints.root / str(self.step))
    distributed.barrier("rescued")  # None ends the others before.

  def conclude(self) -> None:
    """Logs the last step and makes sure that it is saved.

    Raises:
      NonFiniteError: its weights are ruined; those before are kept.
      CheckpointError: it is not saved.
    """
    self._retire(0)
    if self.step in self.unlogged:
      self._log_step(self.step, self.unlogged[self.step])
    if self.health.failed is not None:
      raise rollback.failure(self)
    self.save()
    with self.goodput.phase("checkpoint"):
      self.checkpoints.wait()
    newest = self.checkpoints.latest_step()
    if newest != self.step:
      raise CheckpointError(
        f"{self.checkpoints.root}: step {self.step}, the last, is not saved;"
        f" the newest checkpoint there is {newest}"
      )
    saved = self.checkpoints.root / str(self.step)
    self.log.say(f"saved {saved}; {self.goodput.summary()}")
    _log.info("done: step %d is saved", self.step)
