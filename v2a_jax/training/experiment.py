"""Everything that `train` needs, built; no config below this point."""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
from typing import Any

from flax import nnx
import numpy as np

from v2a_jax.batch import Batch
from v2a_jax.objectives.base import Objective
from v2a_jax.parallel.mesh import MeshConfig
from v2a_jax.training.optimizer import OptimizerConfig
from v2a_jax.training.state import TrainState

HostBatch = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Position:
  """How far a run has come; a new one is at 0.

  Attributes:
    step: steps done.
    examples: clips of the global order that were read.
    train_seconds: wall-clock time in `train`, over all restarts.
  """

  step: int = 0
  examples: int = 0
  train_seconds: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
  """One training run.

  Attributes:
    make_model: `make_model(rngs)`; is traced, so it reads no values.
    objective: the loss.
    make_loader: `make_loader(start_step, shard_index, shard_count)` gives an
      endless iterator over this shard's rows of the global batches from
      `start_step` on. If it has a `close()`, that is called at the end.
    batch_size: rows of a global batch.
    optimizer: how parameters are updated.
    num_train_steps: the end, and the schedule's horizon.
    train_seconds: stops cleanly after so much time of training, earlier runs
      in the workdir included; None for no such limit.
    target: `target(frozen, batch) -> batch`, run inside the step.
    frozen: what `target` needs, such as the codec's state; replicated.
    initial: reads the weights that a new run starts from, host arrays by name
      (`names.flatten`); None for fresh ones.
    make_batch: makes what the objective sees of the loader's dict.
    mesh: the devices' axes.
    seed: of initial weights and of all randomness in training.
    accumulate: microbatches in a step.
    ema_decay: of the average of the weights; 0 keeps none.
    compute_dtype: `bfloat16` or None; see `make_train_step`.
    max_skipped_steps: so many updates in a row that are not finite end it.
    log_every: steps between rows of metrics.
    checkpoint_every: steps between checkpoints.
    keep: newest checkpoints to keep.
    keep_period: checkpoints at multiples of it are kept for good.
    flops_per_example: of a training step, from a formula; None if unknown.
    profile: (start_step, num_steps) to trace into `<workdir>/profile`.
    wandb: `offline`, `online` or `disabled`.
    hooks: (every, hook) pairs; `hook(step, state)` may return more metrics.
    meta: stored in each checkpoint; JSON, such as the resolved config.
  """

  make_model: Callable[[nnx.Rngs], nnx.Module]
  objective: Objective
  make_loader: Callable[[int, int, int], Iterator[HostBatch]]
  batch_size: int
  optimizer: OptimizerConfig
  num_train_steps: int
  train_seconds: float | None = None
  target: Callable[[Any, Any], Any] | None = None
  frozen: Any = ()
  initial: Callable[[], Any] | None = None
  make_batch: Callable[[Mapping[str, Any]], Any] = Batch.from_arrays
  mesh: MeshConfig = MeshConfig()
  seed: int = 0
  accumulate: int = 1
  ema_decay: float = 0.999
  compute_dtype: str | None = None
  max_skipped_steps: int = 10
  log_every: int = 10
  checkpoint_every: int = 1000
  keep: int = 3
  keep_period: int | None = None
  flops_per_example: float | None = None
  profile: tuple[int, int] | None = None
  wandb: str = "offline"
  hooks: tuple[tuple[int, "Hook"], ...] = ()
  meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)


Hook = Callable[[int, TrainState], Mapping[str, float] | None]
