"""Chooses how devices share the work, where `parallel.mode="auto"` leaves it open.

Of the layouts that fit into the memory of a device, the one that sends least:

  data          every device holds the whole state; one sum of gradients a step
  data, zero1   the same, but optimizer state and averaged weights are split
  fsdp n        parameters are split too, over as few devices as will do

The axes `context` and `tensor` stay as the config says. Activations are an
estimate from a trace (`cost.py`), so a layout counts as fitting where it takes
no more than `_FULL` of the memory; `v2a plan` says what it takes indeed.
"""

from collections.abc import Iterator
import dataclasses

import jax

from v2a_jax.experiment import cost
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.parallel import topology

# Compilers take up to 1.5 times the estimate (docs/scaling.md).
_FULL = 0.6


def settle(
  experiment: Experiment,
  devices: int,
  *,
  capacity: int | None,
  num_slices: int = 1,
) -> tuple[Experiment, str]:
  """Chooses data, fsdp and zero1 where the config leaves them open.

  Args:
    experiment: an `Experiment`.
    devices: number of devices.
    capacity: bytes of memory of a device; None where it is not known.
    num_slices: number of slices, which only the data axis may cross.

  Returns:
    (the experiment with `mesh` and `parallel` filled in, one line on why); the
    same experiment and "" where nothing is left open.

  Raises:
    ConfigError: the batch or the other axes do not divide over the devices.
  """
  if experiment.parallel.mode != "auto":
    return experiment, ""
  others = experiment.mesh.context * experiment.mesh.tensor
  if devices % others:
    # Names the axes and the sizes that would do.
    experiment.abstract_mesh(devices)
  candidates = list(_candidates(experiment, devices // others, num_slices))
  if capacity is None:
    return candidates[0], (
      f"parallel.mode=auto: {_words(candidates[0])}; the memory of a device is"
      " not known"
    )
  gradient, before = None, ""
  limit = _FULL * capacity
  for candidate in candidates:
    mesh = candidate.abstract_mesh(devices)
    # Layouts differ in what they hold, not in what a device works with.
    gradient = gradient or cost.gradient_of_device(candidate, mesh)
    needed = sum(cost.step_memory(candidate, mesh, gradient).values())
    words = f"{_words(candidate)} takes about {needed / 1e9:.3g} GB of a device"
    if needed <= limit:
      break
    before = f"; {words}, more than {limit / 1e9:.3g} GB ({_FULL:.0%} of it)"
  if needed > limit:
    before = f", more than {limit / 1e9:.3g} GB ({_FULL:.0%} of it); no other"
    before += " layout takes less, and v2a plan names what would"
  return candidate, f"parallel.mode=auto: {words}{before}"


def settle_here(experiment: Experiment) -> tuple[Experiment, str]:
  """Chooses for the devices that JAX has; see `settle`."""
  devices = jax.devices()
  slices = {getattr(device, "slice_index", 0) for device in devices}
  experiment, why = settle(
    experiment,
    len(devices),
    capacity=topology.memory_of(jax.local_devices()[0]),
    num_slices=len(slices),
  )
  # A batch or a head that does not divide is refused before anything compiles.
  cost.clips_at_a_time(experiment, experiment.abstract_mesh(len(devices)))
  return experiment, why


def _candidates(
  experiment: Experiment, rows: int, num_slices: int
) -> Iterator[Experiment]:
  """Yields layouts over `rows` devices, the one that sends least first."""
  for fsdp in range(1, rows + 1):
    if rows % fsdp or (rows // fsdp) % num_slices:
      continue
    data = rows // fsdp
    for zero1 in (False, True):
      if zero1 and data == 1:
        continue
      yield dataclasses.replace(
        experiment,
        mesh=dataclasses.replace(experiment.mesh, data=data, fsdp=fsdp),
        parallel=dataclasses.replace(experiment.parallel, zero1=zero1),
      )


def _words(experiment: Experiment) -> str:
  mesh = experiment.mesh
  words = f"data {mesh.data}"
  words += f", fsdp {mesh.fsdp}" if mesh.fsdp > 1 else ""
  return words + (" with zero1" if experiment.parallel.zero1 else "")
