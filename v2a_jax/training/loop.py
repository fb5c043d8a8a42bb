"""The training loop, for every model and objective.

A work directory that holds checkpoints is continued; so the same command,
given again after a preemption, goes on where it stopped: with the same
weights, moments and averages, the same batches and the same random numbers.
"""

import collections
import contextlib
import pathlib

import jax
from jax.experimental import multihost_utils
import numpy as np

from v2a_jax.parallel import mesh as mesh_lib
from v2a_jax.parallel import sharding
from v2a_jax.training.checkpoint import CheckpointError, Checkpoints
from v2a_jax.training.experiment import Experiment, Position
from v2a_jax.training.hooks import LogHook, ProfileHook, SkipWatch
from v2a_jax.training.optimizer import make_optimizer
from v2a_jax.training.preemption import Preempted, PreemptionGuard
from v2a_jax.training.state import (
  TrainState,
  abstract_model,
  make_init,
  start_from,
)
from v2a_jax.training.step import make_train_step
from v2a_jax.training.throughput import Goodput

# More steps than this in flight only cost memory; very many deadlock.
_MAX_IN_FLIGHT = 2
# Processes agree on the time, which costs a message, each so many steps.
_CLOCK_EVERY = 20


def train(experiment: Experiment, workdir: str | pathlib.Path) -> TrainState:
  """Trains to `num_train_steps` or `train_seconds`, whichever comes first.

  Returns:
    The last state, which is also saved.

  Raises:
    Preempted: on SIGTERM or SIGINT, after saving; a SystemExit of 143 or 130.
    NonFiniteError: after `max_skipped_steps` skipped updates in a row.
    CheckpointError: if the last state cannot be saved, or none be restored.
  """
  with contextlib.ExitStack() as stack:
    guard = stack.enter_context(PreemptionGuard())
    run = _Run(experiment, pathlib.Path(workdir), stack)
    code = None
    while code is None and not run.finished():
      run.update()
      run.call_hooks()
      code = guard.exit_code(run.step)
      if code is None and run.step % experiment.checkpoint_every == 0:
        run.save()
    run.conclude()
  if code is not None:
    raise Preempted(code)
  return run.state


class _Run:
  """A run in progress: its state, and what it reads and writes."""

  def __init__(self, experiment, workdir, stack: contextlib.ExitStack):
    """Restores or initialises; `stack` closes what is opened here."""
    self.experiment = experiment
    self.goodput = Goodput()
    self.in_flight = collections.deque()
    with self.goodput.phase("init"):
      self.mesh = mesh_lib.make_mesh(experiment.mesh)
      stack.enter_context(jax.set_mesh(self.mesh))
      self.checkpoints = Checkpoints(
        workdir, keep=experiment.keep, keep_period=experiment.keep_period
      )
      stack.callback(self.checkpoints.close)
      self.step_fn, self.state, self.start = self._prepare()
      self.step = self.start.step
      self.frozen = jax.device_put(
        jax.tree.map(np.asarray, experiment.frozen),
        sharding.replicated(self.mesh),
      )
      self.loader = self._open_loader(stack)
    self.log = LogHook.open(self, workdir)
    stack.callback(self.log.close)
    self.watch = SkipWatch(
      experiment.max_skipped_steps, root=self.checkpoints.root
    )
    self.profile = ProfileHook(experiment.profile, workdir=workdir)
    stack.callback(self.profile.close)

  def _prepare(self):
    """Returns (compiled step, state, position), restored if possible."""
    e = self.experiment
    optimizer = make_optimizer(e.optimizer, e.num_train_steps)
    init = make_init(e.make_model, optimizer, seed=e.seed, ema=e.ema_decay > 0)
    if self.checkpoints.latest_step() is None:
      state, shardings = sharding.init_sharded(init, self.mesh)
      if e.initial:
        state = start_from(state, e.initial(), shardings)
      start = Position()
    else:
      abstract = jax.eval_shape(init)
      shardings = sharding.state_shardings(abstract, self.mesh)
      restored = self.checkpoints.restore(abstract, shardings)
      state = restored.state
      start = Position(
        step=restored.step,
        examples=restored.data["global_next_index"],
        train_seconds=restored.meta["train_seconds"],
      )
    step = make_train_step(
      abstract_model(e.make_model)[0],
      e.objective,
      optimizer,
      target=e.target,
      seed=e.seed,
      ema_decay=e.ema_decay,
      accumulate=e.accumulate,
      compute_dtype=e.compute_dtype,
    )
    layout = (shardings, sharding.replicated(self.mesh))
    step_fn = jax.jit(step, donate_argnums=0, out_shardings=layout)
    return step_fn, state, start

  def _open_loader(self, stack: contextlib.ExitStack):
    """Opens the data where the checkpoint left it, in examples."""
    loader = self.experiment.make_loader(
      self.start.examples // self.experiment.batch_size,
      *sharding.data_shard(self.mesh),
    )
    stack.callback(getattr(loader, "close", lambda: None))
    return loader

  def position(self) -> Position:
    """Where the run is now."""
    done = self.step - self.start.step
    return Position(
      step=self.step,
      examples=self.start.examples + done * self.experiment.batch_size,
      train_seconds=self.start.train_seconds + self.goodput.total(),
    )

  def seconds_left(self) -> float | None:
    """Of the budget of time; None without one."""
    if self.experiment.train_seconds is None:
      return None
    return self.experiment.train_seconds - self.position().train_seconds

  def finished(self) -> bool:
    """Whether to stop before the next step; all processes agree."""
    if self.step >= self.experiment.num_train_steps:
      return True
    left = self.seconds_left()
    if left is None:
      return False
    if jax.process_count() == 1:
      return left <= 0
    if self.step % _CLOCK_EVERY:
      return False
    over = multihost_utils.broadcast_one_to_all(np.asarray(left <= 0))
    return bool(over)

  def update(self) -> None:
    """Does one step; returns while the device may still be at it."""
    first = self.step == self.start.step
    self.profile(self.step)
    with self.goodput.phase("data"):
      arrays = sharding.shard_batch(next(self.loader), self.mesh)
      batch = self.experiment.make_batch(arrays)
    with self.goodput.phase("compile" if first else "step"):
      self.state, metrics = self.step_fn(self.state, self.frozen, batch)
      if first:
        jax.block_until_ready(metrics)
    self.step += 1
    self.in_flight.append((self.step, metrics))
    if first:
      self.log.start_clock(self.step)
    self._retire(_MAX_IN_FLIGHT)

  def _retire(self, keep: int, *, last: bool = False) -> None:
    """Hands out the metrics of finished steps; waits for all but `keep`."""
    while self.in_flight:
      step, metrics = self.in_flight[0]
      if len(self.in_flight) <= keep and not metrics["loss"].is_ready():
        break
      self.in_flight.popleft()
      with self.goodput.phase("step"):
        jax.block_until_ready(metrics)
      self.log(step, metrics, last=last and not self.in_flight)
      self.watch(step, metrics)

  def call_hooks(self) -> None:
    """Calls the experiment's hooks whose turn it is."""
    for every, hook in self.experiment.hooks:
      if self.step % every == 0:
        self._retire(0)
        with self.goodput.phase("eval"):
          found = hook(self.step, self.state)
        self.log.write(self.step, found or {})

  def save(self) -> None:
    """Starts to save a checkpoint of this step."""
    self._retire(0)
    now = self.position()
    with self.goodput.phase("checkpoint"):
      self.checkpoints.save(
        self.step,
        self.state,
        data={"step": now.step, "global_next_index": now.examples},
        meta={
          **self.experiment.meta,
          "train_seconds": now.train_seconds,
          "clips_seen": now.examples,
        },
      )

  def conclude(self) -> None:
    """Logs the last step and makes sure that it is saved."""
    self._retire(0, last=True)
    self.save()
    with self.goodput.phase("checkpoint"):
      self.checkpoints.wait()
    newest = self.checkpoints.latest_step()
    if newest != self.step:
      raise CheckpointError(
        f"{self.checkpoints.root}: step {self.step}, the last, is not saved;"
        f" the newest checkpoint there is {newest}"
      )
    self.log.say(f"saved {self.checkpoints.root / str(self.step)}")
