"""Bounds the time of a program from below.

Each resource needs its time, and the slowest decides (Williams, Waterman and
Patterson, "Roofline", 2009):

  t >= max(F / P, B / M, C / L)

for the FLOPs F of a chip and its peak P; the bytes B that a program must read or
write in memory at rate M; and the bytes C that a chip sends, at rate L.
"""

from collections.abc import Mapping
import math
from typing import Any

import jax
import jax.numpy as jnp

from v2a_jax.experiment import cost
from v2a_jax.training.program import Program


def time_of(
  bounds: Mapping[str, float], clips: int, *, flops: float
) -> dict[str, Any]:
  """Returns the time that the slowest resource needs, and clips a day.

  Args:
    bounds: seconds that a resource needs, by name.
    clips: number of clips of the program's batch.
    flops: FLOPs of a device.
  """
  seconds = max(bounds.values())
  return {
    "flops": flops,
    "bounds": bounds,
    "step_seconds": seconds,
    "clips_a_day": 86_400 * clips / seconds,
  }


def time_of_step(
  experiment, mesh, bounds: Mapping[str, float], *, peak: float
) -> dict[str, Any]:
  """Returns `time_of` a training step, its MFU and `least_batch`.

  Args:
    experiment: an `Experiment`.
    mesh: mesh of the step.
    bounds: seconds of `links`, and if there are any of `slices` and `memory`.
    peak: FLOP/s of a device.
  """
  needed, run = cost.flops_of_clip(experiment)
  share = experiment.batch_size / mesh.size
  compute = run * share / peak
  found = time_of(
    {"compute": compute, **bounds}, experiment.batch_size, flops=needed * share
  )
  least = None
  if mesh.shape["context"] * mesh.shape["tensor"] == 1:
    sending = max(bounds["links"], bounds.get("slices", 0.0))
    least = math.ceil(experiment.batch_size * sending / compute)
  return found | {
    "mfu": needed * share / peak / found["step_seconds"],
    "least_batch": least,
  }


def sent_between_slices(program: Program, mesh, num_slices: int) -> float:
  """Returns the least bytes that a device sends to other slices in a step.

  Gradients are summed and split within each slice, so that every device has a
  part of them to sum with the other slices.
  """
  size = jnp.dtype(program.rows.reduce_dtype).itemsize
  whole = sum(x.size * size for x in jax.tree.leaves(program.state.params))
  return 2 * (num_slices - 1) / num_slices * whole / mesh.size * num_slices
