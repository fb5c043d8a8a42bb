"""A toy experiment that trains in a second; also a process of its own.

Run as a script it trains, in one or several processes, and writes what it saw:

  python tests/training/toy_training.py '{"workdir": ..., "num_train_steps": 6}'
"""

import dataclasses
import json
import pathlib
import sys
import time
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.parallel.mesh import MeshConfig, ParallelConfig
from v2a_jax.training.optimizer import OptimizerConfig
from v2a_jax.training.run import RunConfig

BATCH = 16


def kernel(*names):
  return nnx.with_partitioning(nnx.initializers.lecun_normal(), names)


class Net(nnx.Module):
  """Two layers, and a buffer that training must not touch."""

  def __init__(self, rngs, hidden=8):
    self.layers = nnx.List(
      [
        nnx.Linear(4, hidden, kernel_init=kernel("embed", "mlp"), rngs=rngs),
        nnx.Linear(hidden, 4, kernel_init=kernel("mlp", "embed"), rngs=rngs),
      ]
    )
    self.gain = nnx.Variable(jnp.full((1,), 2.0))

  def __call__(self, x):
    first, second = self.layers
    return second(jax.nn.gelu(first(x))) * self.gain[0]


@dataclasses.dataclass(frozen=True)
class Regression:
  """Mean squared error, of inputs with noise drawn per example."""

  noise: float = 0.1
  poison: int | None = None

  def loss(self, model, batch, *, key, train):
    # By the example's number, so that the order of rows does not matter.
    draw = lambda i: jax.random.normal(jax.random.fold_in(key, i), (4,))
    noise = self.noise * jax.vmap(draw)(batch["example"]) if train else 0.0
    losses = jnp.mean((model(batch["x"] + noise) - batch["y"]) ** 2, axis=-1)
    if self.poison is not None:
      bad = batch["example"] >= self.poison * BATCH
      losses = jnp.where(bad, jnp.nan, losses)
    return losses, {"error": jnp.sqrt(losses)}

  def evaluate(self, model, batch, *, key):
    losses, metrics = self.loss(model, batch, key=key, train=False)
    odd = batch["example"] % 2 == 1
    return metrics | {"loss": losses, "odd": jnp.where(odd, losses, jnp.nan)}


class Loader:
  """An endless loader of numbers, with the interface of the real one."""

  def __init__(
    self, step, index, count, *, seen=None, delay=0.0, hang=None, fail=None
  ):
    self._step, self._index, self._count, self._fail = step, index, count, fail
    self._seen, self._delay, self._hang = seen, delay, hang
    self.closed = False

  def __iter__(self):
    return self

  def __next__(self):
    if self._step == self._fail:
      raise OSError(f"record {self._step * BATCH} is damaged")
    time.sleep(1000 if self._step == self._hang else self._delay)
    every = np.arange(self._step * BATCH, (self._step + 1) * BATCH)
    self._step += 1
    rows = every[self._index :: self._count]
    if self._seen is not None:
      self._seen.append(rows.tolist())
    return rows_of(rows)

  def close(self):
    self.closed = True


def rows_of(rows):
  x = np.stack([np.random.default_rng(i).normal(size=4) for i in rows])
  x = x.astype(np.float32)
  return {"x": x, "y": x[:, ::-1] * 0.5, "example": rows.astype(np.int32)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy:
  """An experiment as `train` needs it (`training.run.Trainable`)."""

  run: RunConfig
  make_model: Any
  open_loader: Any
  objective: Any = Regression()
  optimizer: OptimizerConfig = OptimizerConfig(
    learning_rate=1e-2, weight_decay=0.1
  )
  mesh: MeshConfig = MeshConfig()
  parallel: ParallelConfig = ParallelConfig()
  target: Any = None
  batch_size: int = BATCH
  step_flops: Any = lambda step: 6.0 * 64 * BATCH
  meta: Any = dataclasses.field(default_factory=dict)
  make_batch: Any = dict
  frozen: Any = lambda: ()
  first_weights: Any = lambda: None


def experiment(
  *,
  seen=None,
  delay=0.0,
  hang_after=None,
  fail_after=None,
  hidden=8,
  **changes,
) -> Toy:
  """The toy experiment, of six steps unless changed."""
  run = dict(
    num_train_steps=6,
    ema_decay=0.9,
    log_every=1,
    checkpoint_every=3,
    wandb_mode="disabled",
  )
  names = {field.name for field in dataclasses.fields(RunConfig)}
  run |= {k: v for k, v in changes.items() if k in names}
  fields = dict(
    make_model=lambda rngs: Net(rngs, hidden),
    open_loader=lambda split, *, step, index, count: Loader(
      *(step, index, count),
      seen=seen if split == "train" else None,
      delay=delay,
      hang=hang_after,
      fail=fail_after,
    ),
  )
  fields |= {k: v for k, v in changes.items() if k not in names}
  return Toy(run=RunConfig(**run), **fields)


def losses_of(workdir) -> list[float]:
  lines = (pathlib.Path(workdir) / "metrics.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  return [row["train/loss"] for row in rows if "train/loss" in row]


def main(settings):
  """Trains as told; prints each process's batches at the end."""
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", settings.pop("devices", 8))
  from v2a_jax.parallel import distributed
  from v2a_jax.parallel.mesh import MeshConfig
  from v2a_jax.training import hosts
  from v2a_jax.training.loop import train

  if "processes" in settings:
    port, count, index = settings.pop("processes")
    distributed.initialize(
      f"localhost:{port}",
      count,
      index,
      timeouts=distributed.Timeouts(**settings.pop("timeouts", {})),
    )
    print("process", jax.process_index(), flush=True)
  hosts.HEARTBEAT_SECONDS = settings.pop("heartbeat", 5.0)
  workdir = settings.pop("workdir")
  mesh = MeshConfig(**settings.pop("mesh", {}))
  seen = []
  out = settings.pop("seen", None)
  try:
    train(experiment(seen=seen, mesh=mesh, **settings), workdir)
  finally:
    if out:
      pathlib.Path(out).write_text(json.dumps(seen))


if __name__ == "__main__":
  main(json.loads(sys.argv[1]))
