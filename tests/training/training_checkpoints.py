"""A small train state, saved and restored, for the tests of checkpoints.

Run as a script it does so as one of several processes: it saves the steps 1 and
2, damages what process 1 wrote of the second, and restores.

  python tests/training/training_checkpoints.py '{"workdir": ..., ...}'
"""

import contextlib
import functools
import json
import os
import pathlib
import resource
import socket
import subprocess
import sys
import time

from etils import epath
import jax
from toy_training import Net

from v2a_jax.parallel import distributed, sharding
from v2a_jax.parallel import mesh as mesh_lib
from v2a_jax.training import checkpoint, digests
from v2a_jax.training.optimizer import OptimizerConfig, make_optimizer
from v2a_jax.training.state import make_init


def make_mesh(count, **axes):
  config = mesh_lib.MeshConfig(**axes)
  return mesh_lib.make_mesh(config, jax.devices()[:count])


def init_fn(hidden=8):
  optimizer = make_optimizer(OptimizerConfig(), 10)
  make_model = functools.partial(Net, hidden=hidden)
  return make_init(make_model, optimizer, seed=0, ema=True)


def make_state(count=8):
  """A state on devices; its average is the weights plus one."""
  mesh = make_mesh(8, fsdp=2, tensor=2) if count == 8 else make_mesh(count)
  state, _ = sharding.init_sharded(init_fn(), mesh)
  return state.replace(ema=jax.tree.map(lambda x: x + 1, state.ema))


def save(checkpoints, step, state, validation=None):
  checkpoints.save(
    step,
    state.replace(step=state.step + step),
    data={"at": step},
    meta={"name": "toy"},
    validation=validation,
  )


def flip_a_bit(folder, part="state/"):
  """Damages the largest file, of those with `part` in their name."""
  folder = epath.Path(folder)
  files = [folder / x for x in digests.list_files(folder) if part in x]
  largest = max(files, key=lambda path: path.stat().length)
  data = bytearray(largest.read_bytes())
  data[len(data) // 2] ^= 1
  largest.write_bytes(bytes(data))


def restore(
  workdir,
  mesh=None,
  hidden=8,
  zero1=False,
  change=lambda state: state,
  local="",
):
  """Restores into a layout; `change` changes the shapes that are asked for."""
  abstract = change(jax.eval_shape(init_fn(hidden)))
  layout = sharding.state_shardings(abstract, mesh or make_mesh(1), zero1=zero1)
  checkpoints = checkpoint.Checkpoints(workdir, local=local)
  try:
    return checkpoints.restore(abstract, layout), layout
  finally:
    checkpoints.close()


def run_two_processes(**settings):
  """Runs this file as two processes; returns what each printed."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  path = os.pathsep.join([str(pathlib.Path(__file__).parents[2]), *sys.path])
  processes = [
    subprocess.Popen(
      [
        sys.executable,
        __file__,
        json.dumps(settings | {"place": (port, 2, i)}),
      ],
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      env=os.environ | {"PYTHONPATH": path},
    )
    for i in range(2)
  ]
  try:
    outputs = [process.communicate(timeout=120)[0] for process in processes]
  finally:
    for process in processes:
      process.kill()
  assert [p.returncode for p in processes] == [0, 0], "\n".join(outputs)
  return outputs


def slow_down(call, seconds):
  """Returns a function that waits before it does what `call` does."""

  def slow(*args, **settings):
    time.sleep(seconds)
    return call(*args, **settings)

  return slow


@contextlib.contextmanager
def small_disk(size):
  """Lets this process write no file of more bytes, as on a full disk."""
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def main(place, workdir, damage, local="", slow_disk=0.0, full_disk=None):
  """Saves twice, damages the second if told so, and restores.

  Process 0 waits for `slow_disk` seconds whenever it makes a folder. The disk of
  process `full_disk` is full during the first save.
  """
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", 4)
  port, count, index = place
  if slow_disk and index == 0:
    os.mkdir = slow_down(os.mkdir, slow_disk)
  distributed.initialize(
    f"localhost:{port}",
    count,
    index,
    timeouts=distributed.Timeouts(join=60),
  )
  local = local and f"{local}/{index}"  # As if on another machine.
  checkpoints = checkpoint.Checkpoints(workdir, local=local)
  if full_disk is None:
    save(checkpoints, 1, make_state())
  else:
    with small_disk(200) if full_disk == index else contextlib.nullcontext():
      save(checkpoints, 1, make_state())
      assert not checkpoints.wait()
  save(checkpoints, 2, make_state())
  checkpoints.close()
  if damage and index == 0:
    flip_a_bit(checkpoints.root / "2", "ocdbt.process_1/")
  restored, _ = restore(workdir, make_mesh(8, fsdp=4), local=local)
  same = jax.tree.map(
    lambda a, b: (a == b).all(), restored.state.params, make_state().params
  )
  print(
    f"restored {restored.step}, {jax.tree.reduce(lambda a, b: a & b, same)}"
  )


if __name__ == "__main__":
  main(**json.loads(sys.argv[1]))
