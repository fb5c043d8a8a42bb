"""A process of tests/parallel/test_distributed.py: joins, reports, ends."""

import json
import os
import sys
import time

import jax
import numpy as np

from v2a_jax.parallel import distributed, sharding
from v2a_jax.parallel import mesh as mesh_lib


def refusals(attempts):
  """Returns the message of each attempt to join."""
  messages = []
  for environment, arguments in attempts:
    os.environ.update(environment)
    try:
      distributed.initialize(*arguments, timeouts=distributed.Timeouts(join=20))
      messages.append("")
    except ValueError as error:
      messages.append(str(error))
    for name in environment:
      del os.environ[name]
  return messages


def join(arguments, axes):
  """Joins, and sums a batch of which each process loads its part."""
  distributed.initialize(*arguments)
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(**axes))
  index, count = sharding.data_shard(mesh)
  rows = np.arange(8.0)[index::count]
  batch = sharding.shard_batch({"x": rows}, mesh)["x"]
  total = jax.jit(lambda x: x.sum(), out_shardings=sharding.replicated(mesh))(
    batch
  )
  return {
    "main": distributed.is_main_process(),
    "process": jax.process_index(),
    "part": [index, count],
    "shape": batch.shape,
    "total": float(total),
  }


def meet(arguments, timeouts, stuck):
  """Joins and comes to a barrier, but for process `stuck`."""
  timeouts = distributed.Timeouts(**timeouts)
  distributed.initialize(*arguments, timeouts=timeouts)
  if jax.process_index() == stuck:
    time.sleep(60)
  distributed.barrier("first compile")
  return [jax.process_index(), jax.process_count()]


def fail(arguments, timeouts, broken):
  """Joins; one process has an error, the other waits for it."""
  timeouts = distributed.Timeouts(**timeouts)
  distributed.initialize(*arguments, timeouts=timeouts)
  with distributed.together():
    if jax.process_index() == broken:
      raise OSError("record 7 is damaged")
    distributed.barrier("start")


if __name__ == "__main__":
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", 2)
  function, arguments = sys.argv[1], json.loads(sys.argv[2])
  print(json.dumps(globals()[function](*arguments)))
