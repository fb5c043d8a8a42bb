"""Plans training on a pod without having one: compiles the step that will run.

The program is that of `training/program.py`, lowered with the shapes and layouts
of a run and compiled ahead of time for the devices of a topology. Memory and
collectives are the compiler's word; FLOPs are counted (`cost.py`). The time of a
step is bounded from below (Williams, Waterman and Patterson, "Roofline", 2009):

  t >= max(F / P, B / M, C / L)

for the FLOPs F of a chip and its peak P; the bytes B that a step must read or
write in memory at rate M, which are at least its arguments and results and
twice its temporaries; and the bytes C that a chip sends, at rate L.
"""

import dataclasses
import functools
import re
import time
from typing import Any

import jax

from v2a_jax.experiment import cost
from v2a_jax.experiment.sections import ConfigError
from v2a_jax.parallel import collectives, sharding
from v2a_jax.parallel import mesh as mesh_lib
from v2a_jax.parallel.topology import Topology, describe_devices
from v2a_jax.training.program import Program, make_program
from v2a_jax.training.throughput import peak_flops

_NEEDED = re.compile(r"Used ([\d.]+[KMGT]?) of ([\d.]+[KMGT]?) (\w+)")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def lower_step(
  experiment, mesh: jax.sharding.Mesh
) -> tuple[Program, jax.stages.Lowered]:
  """Lowers the step that `train` runs on a mesh; allocates nothing.

  Args:
    experiment: an `Experiment`; its data need not be there.
    mesh: mesh over real or described devices.

  Returns:
    (the programs of the run, its step lowered for a global batch).

  Raises:
    ConfigError: the batch does not divide over the mesh.
  """
  cost.clips_at_a_time(experiment, mesh)

  def placed(tree, layout):
    put = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout)
    return jax.tree.map(put, tree)

  with jax.set_mesh(mesh):
    program = make_program(experiment, mesh)
    state = jax.tree.map(placed, program.state, program.shardings)
    frozen = placed(experiment.abstract_frozen, sharding.replicated(mesh))
    batch = placed(
      experiment.blank_batch(experiment.batch_size),
      sharding.batch_sharding(mesh),
    )
    return program, program.step.lower(state, frozen, batch)


def plan(experiment, topology: Topology) -> dict[str, Any]:
  """Compiles the training step of an experiment for a topology.

  Args:
    experiment: an `Experiment`; its data need not be there.
    topology: chips that it is planned for.

  Returns:
    What `plan_step` returns, with `topology` and `chips`.

  Raises:
    ConfigError: the mesh does not cover the devices, or the batch does not
      divide over it.
    TopologyError: the topology cannot be described here.
  """
  devices = describe_devices(topology)
  chip = topology.chip
  try:
    mesh = mesh_lib.make_mesh(experiment.mesh, devices)
  except ValueError as error:
    raise ConfigError(f"config.{error}") from None
  rates = Rates(
    peak=peak_flops(devices[0])[0],
    memory=chip.hbm_rate,
    link=chip.link_rate,
    capacity=chip.hbm_bytes,
  )
  found = plan_step(experiment, mesh, rates)
  return {"topology": str(topology), "chips": topology.num_chips} | found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rates:
  """What one device can do at most.

  Attributes:
    peak: FLOP/s in the dtype of the matrix units.
    memory: bytes a second of its memory.
    link: bytes a second that it sends to others.
    capacity: bytes of its memory.
  """

  peak: float
  memory: float
  link: float
  capacity: int


def plan_step(
  experiment, mesh: jax.sharding.Mesh, rates: Rates
) -> dict[str, Any]:
  """Compiles the training step on a mesh and reads it.

  Returns:
    `mesh`, `batch_size`, `clips` of a device at a time, `compile_seconds`,
    `fits`, and `reason` where it does not. `memory`: bytes of a device by kind
    (`state_memory`), and where the program compiled `temporaries`, `together`
    and `capacity`. `collectives`: rows of kind, dtype, shape, group, times and
    moved bytes, and `moved` together. `flops` of a step on a device, `bounds`
    in seconds by resource, `step_seconds`, `mfu` at that time, and
    `clips_a_day`.
  """
  clips = cost.clips_at_a_time(experiment, mesh)
  program, lowered = lower_step(experiment, mesh)
  found = {
    "mesh": dict(mesh.shape),
    "batch_size": experiment.batch_size,
    "clips": clips,
    "memory": state_memory(experiment, program, mesh),
    "fits": True,
  }
  start = time.monotonic()
  try:
    with jax.set_mesh(mesh):
      compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    found["compile_seconds"] = time.monotonic() - start
    return found | {"fits": False} | _over(str(error), rates)
  found["compile_seconds"] = time.monotonic() - start
  sizes = compiled.memory_analysis()
  results = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
  arguments = sizes.argument_size_in_bytes
  temporaries = sizes.temp_size_in_bytes
  code = sizes.generated_code_size_in_bytes
  # A frozen codec's decoder is held too, though no argument of the program.
  held = max(arguments, sum(found["memory"].values()))
  together = held + results + temporaries + code
  found["memory"] |= {
    "temporaries": temporaries,
    "results": results,
    "program": code,
    "together": together,
    "capacity": rates.capacity,
  }
  found["fits"] = together <= rates.capacity
  if not found["fits"]:
    found["reason"] = f"needs {together} of {rates.capacity} bytes"
  moved = collectives.read(compiled.as_text())
  found["collectives"] = summarise(moved)
  found["moved"] = sum(c.moved for c in moved)
  touched = arguments + sizes.output_size_in_bytes + 2 * temporaries
  return found | _bound(experiment, mesh, rates, found["moved"], touched)


def state_memory(
  experiment, program: Program, mesh: jax.sharding.Mesh
) -> dict[str, int]:
  """Returns the bytes of a device that a step's arguments take, by kind."""
  device_bytes = functools.partial(cost.device_bytes, program)
  frames = experiment.blank_batch(experiment.batch_size)
  rows = mesh.shape["data"] * mesh.shape["fsdp"]
  return {
    "parameters": device_bytes("params"),
    "average": device_bytes("ema"),
    "optimizer": device_bytes("opt_state"),
    "buffers": device_bytes("buffers"),
    "frozen": cost.tree_bytes(experiment.abstract_frozen),
    "batch": cost.tree_bytes(frames) // rows,
  }


def summarise(moved: list[collectives.Collective]) -> list[dict[str, Any]]:
  """Joins equal collectives to one row each; most bytes first."""
  rows: dict[tuple, dict[str, Any]] = {}
  for c in moved:
    row = rows.setdefault(
      (c.kind, c.dtype, c.shape, c.group),
      {
        "kind": c.kind,
        "dtype": c.dtype,
        "shape": list(c.shape),
        "group": c.group,
        "times": 0,
        "moved": 0.0,
      },
    )
    row["times"] += c.times
    row["moved"] += c.moved
  return sorted(rows.values(), key=lambda row: -row["moved"])


def _bound(experiment, mesh, rates: Rates, moved, touched) -> dict[str, Any]:
  """Bounds the time of a step from below."""
  needed, run = cost.flops_of_clip(experiment)
  share = experiment.batch_size / mesh.size
  bounds = {
    "compute": run * share / rates.peak,
    "memory": touched / rates.memory,
    "links": moved / rates.link,
  }
  seconds = max(bounds.values())
  return {
    "flops": needed * share,
    "bounds": bounds,
    "step_seconds": seconds,
    "mfu": needed * share / rates.peak / seconds,
    "clips_a_day": 86_400 * experiment.batch_size / seconds,
  }


def _over(message: str, rates: Rates) -> dict[str, Any]:
  """Reads how much memory a program wanted off the compiler's error."""
  reason = re.search(r"[^\n]*exhaust[^\n]*", message, re.IGNORECASE)[0]
  if match := _NEEDED.search(message):
    number, unit = re.match(r"([\d.]+)([KMGT]?)", match[1]).groups()
    needed = int(float(number) * _UNITS[unit])
    return {"reason": f"the compiler needs {needed} of {rates.capacity} bytes"}
  return {"reason": reason.strip()}
