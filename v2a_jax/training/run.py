"""What `train` needs: the numbers of a run, and what an experiment offers."""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
from typing import Any, Protocol

from flax import nnx
import jax
import numpy as np

from v2a_jax.basics.paths import PathLike
from v2a_jax.basics.settings import SettingError, check, choose
from v2a_jax.objectives.base import Objective
from v2a_jax.parallel.mesh import MeshConfig, ParallelConfig
from v2a_jax.training.optimizer import OptimizerConfig
from v2a_jax.training.retention import Retention

HostBatch = Mapping[str, np.ndarray]

COMPUTE_DTYPES = ("", "bfloat16")
WANDB_MODES = ("offline", "online", "disabled")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
  """How long and how a run trains; the top-level keys of a config.

  Attributes:
    seed: random seed of the initial weights and of everything drawn in training.
    num_train_steps: number of steps; also the horizon of the schedule.
    train_seconds: wall-clock limit in seconds of training, earlier runs in the
      same workdir included; 0 for none. The cosine ends with the steps or with
      the time, whichever comes first, so that a run that is stopped by time has
      come to its low rates; its rates depend on the clock, so that two such runs
      are not equal bit for bit.
    accumulate: number of microbatches whose gradients make one step.
    ema_decay: decay of the moving average of the weights; 0 keeps none.
    posthoc_averages: whether checkpoints get two more averages of the weights,
      from which `v2a weights export --average_length` makes one of any length;
      keep checkpoints all along the run for it with `keep_period`.
    compute_dtype: dtype that parameters are cast to in a step, `bfloat16` or ""
      for none; the state stays float32.
    max_skipped_steps: number of consecutive bad steps, not finite or with a loss
      that jumped, after which a run goes back to its last good checkpoint.
    spike_factor: a loss has jumped if it is higher than the median of the last
      100 by more than so many times that median; 0 for never.
    max_rollbacks: number of times that a run goes back, and skips the batches
      that led there; the next time ends it.
    stall_seconds: number of seconds that the run may stand still, waiting for
      data or for a step; then it saves what it can and ends with status 75, to
      be started again; 0 for ever.
    lost_seconds: number of seconds in which the loss of one of several processes
      ends the others, with status 75; they notice it within half of it.
    log_every: steps between rows of metrics.
    eval_every: steps between evaluations of the validation loss; 0 for never.
    eval_batches: number of validation batches in each of them.
    eval_samples: number of validation clips, the first ones, for which sound is
      made in each of them, into `<workdir>/samples`; 0 for none.
    checkpoint_every: steps between checkpoints.
    keep: number of newest checkpoints that are kept; also kept is the newest
      whose weights a later step has found good.
    keep_period: checkpoints at multiples of so many steps are kept for good; 0
      for none.
    keep_best: number of checkpoints of the best validation results that are
      kept; only steps that are evaluated have one, so that `checkpoint_every`
      and `eval_every` should share multiples.
    keep_best_metric: validation result that they are ranked by: `eval/<metric>`
      of the weights, `eval_mean/<metric>` of their average.
    keep_best_mode: `min` if lower is better, `max` if higher is.
    checkpoint_dir: folder on each machine that checkpoints are saved to first;
      they are copied to the workdir in the background. "" for a folder of
      temporary files if the workdir is on s3://, else for none.
    profile: (first step, number of steps) to trace into `<workdir>/profile`; ()
      for none.
    wandb_mode: `offline`, `online` or `disabled`.
    tensorboard: whether event files for TensorBoard are written, to
      `<workdir>/tensorboard`.
  """

  seed: int = 0
  num_train_steps: int = 1000
  train_seconds: float = 0.0
  accumulate: int = 1
  ema_decay: float = 0.999
  posthoc_averages: bool = False
  compute_dtype: str = ""
  max_skipped_steps: int = 10
  spike_factor: float = 10.0
  max_rollbacks: int = 2
  stall_seconds: float = 1800.0
  lost_seconds: float = 120.0
  log_every: int = 10
  eval_every: int = 0
  eval_batches: int = 4
  eval_samples: int = 0
  checkpoint_every: int = 1000
  keep: int = 3
  keep_period: int = 0
  keep_best: int = 0
  keep_best_metric: str = "eval_mean/loss"
  keep_best_mode: str = "min"
  checkpoint_dir: str = ""
  profile: tuple[int, ...] = ()
  wandb_mode: str = "offline"
  tensorboard: bool = False

  def __post_init__(self):
    check(
      self,
      seed="[0, 4294967295]",
      num_train_steps="[1, inf)",
      train_seconds="[0, inf)",
      accumulate="[1, inf)",
      ema_decay="[0, 1)",
      max_skipped_steps="[1, inf)",
      spike_factor="[0, inf)",
      max_rollbacks="[0, inf)",
      stall_seconds="[0, inf)",
      lost_seconds="[1, inf)",
      log_every="[1, inf)",
      eval_every="[0, inf)",
      eval_batches="[1, inf)",
      eval_samples="[0, 64]",
      checkpoint_every="[1, inf)",
      keep="[1, inf)",
      keep_period="[0, inf)",
      keep_best="[0, inf)",
      profile="[0, inf)",
    )
    choose(
      self,
      compute_dtype=COMPUTE_DTYPES,
      wandb_mode=WANDB_MODES,
      keep_best_mode=("min", "max"),
    )
    self._check_best()
    if self.eval_samples and not self.eval_every:
      raise SettingError(
        f"eval_samples={self.eval_samples} are made in evaluations: set eval_every"
      )
    if self.profile and (len(self.profile) != 2 or self.profile[1] < 1):
      raise SettingError(
        f"profile={self.profile!r} is not (first step, number of steps)"
      )

  def _check_best(self):
    """Refuses to keep the best where nothing would tell which they are."""
    if self.keep_best and not self.eval_every:
      raise SettingError(
        f"keep_best={self.keep_best} needs validation results: set eval_every"
      )
    averaged = self.keep_best_metric.startswith("eval_mean/")
    if self.keep_best and averaged and not self.ema_decay:
      raise SettingError(
        f"keep_best_metric={self.keep_best_metric!r} is of the average, which"
        " ema_decay=0 does not keep: name an eval/ metric"
      )

  @property
  def retention(self) -> Retention:
    """Which checkpoints are kept."""
    return Retention(
      newest=self.keep,
      period=self.keep_period,
      best=self.keep_best,
      metric=self.keep_best_metric,
      mode=self.keep_best_mode,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Position:
  """How far a run has come; a new one is at 0.

  Attributes:
    step: number of steps done.
    examples: number of clips of the global order that were read.
    train_seconds: wall-clock seconds in `train`, over all restarts.
  """

  step: int = 0
  examples: int = 0
  train_seconds: float = 0.0


class Trainable(Protocol):
  """What `train` needs of an experiment.

  Attributes:
    run: numbers of the run.
    objective: gives the loss.
    optimizer: settings of the optimizer.
    mesh: sizes of the mesh's axes.
    parallel: how the devices share the work.
    target: `target(frozen, batch) -> batch` fills in what is learned, inside
      the step; None where the objective needs nothing filled in.
    batch_size: number of rows of a global batch.
    meta: JSON-able facts stored in each checkpoint, such as the config.
  """

  run: RunConfig
  objective: Objective
  optimizer: OptimizerConfig
  mesh: MeshConfig
  parallel: ParallelConfig
  target: Callable[[Any, Any], Any] | None
  batch_size: int
  meta: Mapping[str, Any]

  def make_model(self, rngs: nnx.Rngs) -> nnx.Module:
    """Makes the model; is traced, so it reads no values."""
    ...

  def frozen(self) -> Any:
    """Returns the arrays that `target` needs, such as a codec's state."""
    ...

  def first_weights(self) -> Mapping | None:
    """Returns the weights of a new run, host arrays by name; None for fresh."""
    ...

  def make_batch(self, arrays: Mapping[str, Any]) -> Any:
    """Makes what the objective sees of a loader's arrays."""
    ...

  def step_flops(self, step: Any) -> float:
    """Returns the FLOPs of a step on a global batch, given its jaxpr."""
    ...

  def open_loader(
    self, split: str, *, step: int, index: int, count: int
  ) -> Iterator[HostBatch]:
    """Opens an endless iterator over one shard's rows of the global batches.

    Args:
      split: `train` or `val`.
      step: the batch to begin with.
      index: which shard, from 0.
      count: number of shards.
    """
    ...


class Samples(Protocol):
  """Makes sounds of fixed clips from the weights of a run, as files."""

  def __call__(
    self,
    params: Any,
    buffers: Any,
    *,
    mesh: jax.sharding.Mesh,
    folder: PathLike,
  ) -> None:
    """Makes them on all processes, and writes them on process 0.

    Args:
      params: weights, as they lie on the mesh.
      buffers: arrays of the model that training does not touch.
      mesh: device mesh.
      folder: folder for the `.wav` and `.mp4` files of this step.
    """
    ...
