"""A small train state, saved and restored, for the tests of checkpoints."""

import functools

import jax
from toy_training import Net

from v2a_jax.parallel import mesh as mesh_lib
from v2a_jax.parallel import sharding
from v2a_jax.training import checkpoint
from v2a_jax.training.optimizer import OptimizerConfig, make_optimizer
from v2a_jax.training.state import make_init


def make_mesh(count, **axes):
  config = mesh_lib.MeshConfig(**axes)
  return mesh_lib.make_mesh(config, jax.devices()[:count])


def init_fn(hidden=8):
  optimizer = make_optimizer(OptimizerConfig(), 10)
  make_model = functools.partial(Net, hidden=hidden)
  return make_init(make_model, optimizer, seed=0, ema=True)


def make_state():
  """A state on eight devices; its average is the weights plus one."""
  mesh = make_mesh(8, fsdp=2, tensor=2)
  state, _ = sharding.init_sharded(init_fn(), mesh)
  return state.replace(ema=jax.tree.map(lambda x: x + 1, state.ema))


def save(checkpoints, step, state):
  state = state.replace(step=state.step + step)
  checkpoints.save(step, state, data={"at": step}, meta={"name": "toy"})


def restore(workdir, mesh=None, hidden=8):
  mesh = mesh or make_mesh(1)
  abstract = jax.eval_shape(init_fn(hidden))
  layout = sharding.state_shardings(abstract, mesh)
  checkpoints = checkpoint.Checkpoints(workdir)
  try:
    return checkpoints.restore(abstract, layout), layout
  finally:
    checkpoints.close()
