"""Sounds of a few fixed validation clips, from the weights of a run in progress.

Each clip has noise of its own, the same every time, so that two steps of a run
differ by their weights alone. The clips are divided over the mesh as a batch is,
and the weights are used where they lie.
"""

import contextlib
import dataclasses
import functools
import math
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.codec import frozen as codecs
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.parallel import sharding
from v2a_jax.sampling.draw import Draw
from v2a_jax.sampling.windows import Windows
from v2a_jax.training.step import cast_floats


class Sampler:
  """Makes the sounds; every process of the run calls it.

  Attributes:
    sample_rate: sample rate of the sounds in Hz.
    clips: what the loader gives of the clips, [n ...] by name.
  """

  def __init__(self, experiment: Experiment, mesh: jax.sharding.Mesh):
    """Reads the first `eval_samples` clips of the validation split."""
    self._experiment, self._mesh = experiment, mesh
    self.sample_rate = experiment.codec.config.sample_rate
    count = experiment.run.eval_samples
    data = dataclasses.replace(experiment.data, batch_size=count)
    alone = dataclasses.replace(experiment, data=data)
    with contextlib.closing(alone.open_loader("val")) as loader:
      self.clips = dict(next(loader))
    # Filled up by repetition, so that they divide over the mesh.
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    rows = np.arange(math.ceil(count / parts) * parts) % count
    spread = functools.partial(_put, layout=sharding.batch_sharding(mesh))
    batch = jax.tree.map(lambda x: x[rows], self.clips)
    self._batch = experiment.make_batch(jax.tree.map(spread, batch))
    self._seeds = spread(rows)
    self._codec = jax.device_put(
      jax.tree.map(np.asarray, codecs.load(experiment.run.codec).state),
      sharding.replicated(mesh),
    )

  def __call__(self, params: Any, buffers: Any) -> np.ndarray:
    """Returns the sounds, float32 [n samples channels], on every process."""
    batch = self._batch
    sounds = self._run(
      params, buffers, self._codec, batch.cond, batch.duration, self._seeds
    )
    count = self._experiment.run.eval_samples
    return np.asarray(sounds, np.float32)[:count]

  @functools.cached_property
  def _run(self):
    experiment = self._experiment
    codec, target = experiment.codec, experiment.representation
    graphdef = experiment.abstract[0]
    rate = codec.config.latent_rate
    length = round(experiment.data.seconds * rate)
    dtype = experiment.run.compute_dtype or None

    def run(params, buffers, state, cond, duration, seeds):
      model = nnx.merge(graphdef, cast_floats(params, dtype), buffers)
      steps = jnp.arange(length, dtype=jnp.float32)
      draw = Draw(
        keys=jax.vmap(jax.random.key)(seeds),
        times=(steps + 0.5) / rate,
        windows=Windows(length, length),
        mask=steps / rate < duration[:, None],
      )
      made = experiment.sampler(model, experiment.objective, cond, draw)
      return codec.merge(state).decode(target.latents(state, made))

    return jax.jit(run, out_shardings=sharding.replicated(self._mesh))


def _put(array: np.ndarray, *, layout: jax.sharding.Sharding) -> jax.Array:
  """Puts rows that every process has onto the devices that hold them."""
  array = np.asarray(array)
  return jax.make_array_from_callback(array.shape, layout, array.__getitem__)
