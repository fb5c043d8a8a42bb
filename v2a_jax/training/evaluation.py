"""The validation loss of a run: the same clips and draws at every step.

Rows are named `eval/<metric>` for the weights and `eval_mean/<metric>` for their
moving average. A metric is a mean over the clips for which it is defined; the
objective gives NaN for the others, as for a part of the diffusion time that a
clip's draw does not lie in.
"""

import collections
import contextlib
import itertools

import jax
import numpy as np

from v2a_jax.parallel import sharding
from v2a_jax.training.program import Program
from v2a_jax.training.run import Trainable
from v2a_jax.training.state import TrainState


def evaluate(
  experiment: Trainable,
  program: Program,
  state: TrainState,
  frozen,
  mesh: jax.sharding.Mesh,
) -> dict[str, float]:
  """Evaluates `eval_batches` batches of the validation split.

  Args:
    experiment: opens the data.
    program: holds the compiled evaluation.
    state: the train state; its average is evaluated, too, if there is one.
    frozen: arrays that the target takes, on the devices.
    mesh: device mesh.

  Returns:
    Means over clips by name; metrics that no clip defines are left out.
  """
  trees = {"eval": state.params}
  if state.ema is not None:
    trees["eval_mean"] = state.ema
  index, count = sharding.data_shard(mesh)
  loader = experiment.open_loader("val", step=0, index=index, count=count)
  values = collections.defaultdict(list)
  with contextlib.closing(loader):
    batches = itertools.islice(loader, experiment.run.eval_batches)
    for i, arrays in enumerate(batches):
      batch = experiment.make_batch(sharding.shard_batch(arrays, mesh))
      for prefix, params in trees.items():
        metrics = program.evaluate(params, state.buffers, frozen, batch, i)
        for name, value in jax.device_get(metrics).items():
          values[f"{prefix}/{name}"].append(value)
  means = {}
  for name, parts in values.items():
    numbers = np.concatenate([np.ravel(part) for part in parts])
    numbers = numbers[~np.isnan(numbers)]
    if numbers.size:
      means[name] = float(numbers.mean(dtype=np.float64))
  return means
