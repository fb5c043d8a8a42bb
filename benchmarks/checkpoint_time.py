"""What does a checkpoint cost a run, and how far is it from the disk's speed?

  python -m benchmarks.checkpoint_time --width 1024 --rounds 9

A train state (weights, average, two moments; float32) is trained and saved as
`v2a train` does, in turn with a plain write and fsync of as many bytes to the
same disk. Two ratios: the time that `save` keeps the run waiting over that of a
training step, and the time until the checkpoint is whole, with its digests,
over that of the plain write. Digests alone are given as a share of the save.

On two cores that others used too, width 1024 (134 MB a checkpoint), jax 0.10: a
save keeps the run waiting for 0.03 steps, from 0.02 to 0.05; it takes 3.3 times
a plain write, from 1.5 to 4.8; its digests alone are 0.29 of it, from 0.22 to
0.44; 9 rounds. With arrays packed (zstd), as Orbax does unless told otherwise,
it took 4.5 times a plain write, from 3.2 to 4.8 over 7 rounds, where unpacked
ones took 3.0, from 2.8 to 3.4 over 7.
"""

import argparse
import os
import pathlib
import tempfile
import time

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.parallel.mesh import MeshConfig, make_mesh
from v2a_jax.parallel.sharding import init_sharded
from v2a_jax.training import digests
from v2a_jax.training.checkpoint import Checkpoints
from v2a_jax.training.optimizer import OptimizerConfig, make_optimizer
from v2a_jax.training.state import make_init

LAYERS = 8


class Net(nnx.Module):
  """A stack of square layers."""

  def __init__(self, width: int, rngs: nnx.Rngs):
    self.layers = nnx.List(
      [nnx.Linear(width, width, rngs=rngs) for _ in range(LAYERS)]
    )

  def __call__(self, x):
    for layer in self.layers:
      x = x + jax.nn.gelu(layer(x))
    return x


def make_step(width: int, batch_size: int):
  """Returns (state, jitted step) of a regression on noise."""
  mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
  optimizer = make_optimizer(OptimizerConfig(), 1000)
  make_model = lambda rngs: Net(width, rngs)
  init = make_init(make_model, optimizer, seed=0, ema=True)
  graphdef = nnx.split(make_model(nnx.Rngs(0)))[0]
  x = jax.random.normal(jax.random.key(0), (batch_size, width))

  def loss(params):
    return jnp.mean((nnx.merge(graphdef, params)(x) - x[::-1]) ** 2)

  def step(state):
    grads = jax.grad(loss)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = jax.tree.map(jnp.add, state.params, updates)
    ema = jax.tree.map(lambda a, b: 0.99 * a + 0.01 * b, state.ema, params)
    return state.replace(
      step=state.step + 1, params=params, opt_state=opt_state, ema=ema
    )

  return init_sharded(init, mesh)[0], jax.jit(step)


def seconds(action) -> float:
  """Returns the seconds that a call takes."""
  began = time.perf_counter()
  action()
  return time.perf_counter() - began


def write_plainly(path: pathlib.Path, data: bytes) -> None:
  with path.open("wb") as file:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def spread(values: list[float], form: str = ".2f") -> str:
  """Formats the median and the range."""
  return (
    f"{np.median(values):{form}} (from {min(values):{form}} to"
    f" {max(values):{form}})"
  )


def measure(args, folder: pathlib.Path) -> dict[str, list[float]]:
  """Measures each round: a step, a plain write, a save, digests alone."""
  state, step = make_step(args.width, args.batch_size)
  state = jax.block_until_ready(step(state))
  # Bytes that no disk can pack, of the size that is saved.
  size = sum(x.nbytes for x in jax.tree.leaves(state))
  data = np.random.default_rng(0).bytes(size)
  print(f"{size / 1e6:.0f} MB a checkpoint", flush=True)
  checkpoints = Checkpoints(folder / "run")
  rows = {"waiting": [], "total": [], "digests": []}
  for i in range(args.rounds + 1):
    advanced = [state]
    one = seconds(
      lambda: advanced.append(jax.block_until_ready(step(advanced[0])))  # noqa: B023
    )
    state = advanced[-1]
    plain = seconds(lambda: write_plainly(folder / "plain", data))
    save = lambda: checkpoints.save(i, state, data={}, meta={})  # noqa: B023
    waiting = seconds(save)
    total = waiting + seconds(checkpoints.wait)
    path = checkpoints.root / str(i)
    hashing = seconds(lambda: digests.find_damage(path))  # noqa: B023
    if i == 0:
      continue  # Threads and folders are made the first time.
    rows["waiting"].append(waiting / one)
    rows["total"].append(total / plain)
    rows["digests"].append(hashing / total)
    print(
      f"step {one:.3f} s, plain write {plain:.3f} s, save {waiting:.3f} s"
      f" waiting, {total:.3f} s in all, digests {hashing:.3f} s",
      flush=True,
    )
  checkpoints.close()
  return rows


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--width", type=int, default=1024)
  parser.add_argument("--batch_size", type=int, default=2048)
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--folder", help="where to write; else a temporary one")
  args = parser.parse_args()
  with tempfile.TemporaryDirectory(dir=args.folder) as folder:
    rows = measure(args, pathlib.Path(folder))
  print(
    f"a save keeps the run waiting for {spread(rows['waiting'])} steps; it takes"
    f" {spread(rows['total'])} times a plain write; its digests alone are"
    f" {spread(rows['digests'])} of it; {args.rounds} rounds"
  )


if __name__ == "__main__":
  main()
