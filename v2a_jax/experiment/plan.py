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

import functools
import re
import time
from typing import Any

import jax

from v2a_jax.experiment import cost, parallelism
from v2a_jax.experiment.sections import ConfigError
from v2a_jax.parallel import collectives, sharding
from v2a_jax.parallel import mesh as mesh_lib
from v2a_jax.parallel.topology import Chip, Topology, describe_devices
from v2a_jax.training.program import Program, make_program
from v2a_jax.training.throughput import peak_flops

_TEMPORARIES = re.compile(r"HLO temporaries \(([\d.]+)([KMGT]?)\)")
_USED = re.compile(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm")
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
    What `plan_step` returns, with `topology`, `chips` and `chosen`: why the
    mesh is as it is, where the config leaves that open.

  Raises:
    ConfigError: the mesh does not cover the devices, or the batch does not
      divide over it.
    TopologyError: the topology cannot be described here.
  """
  devices = describe_devices(topology)
  experiment, chosen = parallelism.settle(
    experiment,
    len(devices),
    capacity=topology.chip.hbm_bytes,
    num_slices=topology.num_slices,
  )
  try:
    mesh = mesh_lib.make_mesh(experiment.mesh, devices)
  except ValueError as error:
    raise ConfigError(f"config.{error}") from None
  found = plan_step(
    experiment, mesh, topology.chip, peak=peak_flops(devices[0])[0]
  )
  where = {"topology": str(topology), "chips": topology.num_chips}
  return where | {"chosen": chosen} | found


def plan_step(
  experiment, mesh: jax.sharding.Mesh, chip: Chip, *, peak: float
) -> dict[str, Any]:
  """Compiles the training step on a mesh and reads it.

  Args:
    experiment: an `Experiment`; its data need not be there.
    mesh: mesh over real or described devices.
    chip: memory and rates of a device.
    peak: FLOP/s of a device in the dtype of its matrix units.

  Returns:
    `mesh`, `batch_size`, `clips` of a device at a time, `compile_seconds`,
    `fits`, and where it does not `remedies`, overrides that need less memory.
    `memory`: bytes of a device by kind (`state_memory`), `capacity`, and
    `together` unless a compiler that gave up does not say. The rest only where it compiled, in `memory` `temporaries`,
    `results` and `program`. `collectives`: rows of kind, dtype, shape, group, times and
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
  }
  memory = found["memory"]
  start = time.monotonic()
  try:
    with jax.set_mesh(mesh):
      compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    memory |= _wanted(str(error), sum(memory.values()))
    memory["capacity"] = chip.hbm_bytes
    found["compile_seconds"] = time.monotonic() - start
    return found | _does_not_fit(experiment, mesh, clips)
  found["compile_seconds"] = time.monotonic() - start
  sizes = compiled.memory_analysis()
  results = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
  arguments = sizes.argument_size_in_bytes
  temporaries = sizes.temp_size_in_bytes
  code = sizes.generated_code_size_in_bytes
  # A frozen codec's decoder is held too, though no argument of the program.
  held = max(arguments, sum(memory.values()))
  together = held + results + temporaries + code
  memory |= {
    "temporaries": temporaries,
    "results": results,
    "program": code,
    "together": together,
    "capacity": chip.hbm_bytes,
  }
  fits = together <= chip.hbm_bytes
  found |= {"fits": True} if fits else _does_not_fit(experiment, mesh, clips)
  moved = collectives.read(compiled.as_text())
  found["collectives"] = summarise(moved)
  found["moved"] = sum(c.moved for c in moved)
  touched = arguments + sizes.output_size_in_bytes + 2 * temporaries
  return found | _bound(
    experiment, mesh, chip, peak=peak, moved=found["moved"], touched=touched
  )


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


def _bound(
  experiment, mesh, chip: Chip, *, peak, moved, touched
) -> dict[str, Any]:
  """Bounds the time of a step from below."""
  needed, run = cost.flops_of_clip(experiment)
  share = experiment.batch_size / mesh.size
  bounds = {
    "compute": run * share / peak,
    "memory": touched / chip.hbm_rate,
    "links": moved / chip.link_rate,
  }
  seconds = max(bounds.values())
  return {
    "flops": needed * share,
    "bounds": bounds,
    "step_seconds": seconds,
    "mfu": needed * share / peak / seconds,
    "clips_a_day": 86_400 * experiment.batch_size / seconds,
  }


def _does_not_fit(experiment, mesh, clips: int) -> dict[str, Any]:
  """Names overrides that need less memory; whether enough is not compiled."""
  data, fsdp = mesh.shape["data"], mesh.shape["fsdp"]
  remedies = []
  if data > 1:
    remedies.append(f"--config.mesh.data=1 --config.mesh.fsdp={data * fsdp}")
  if clips % 2 == 0:
    remedies.append(f"--config.accumulate={2 * experiment.run.accumulate}")
  if getattr(experiment.model, "remat", "full") != "full":
    remedies.append("--config.model.remat=full")
  return {"fits": False, "remedies": remedies or ["a topology of more chips"]}


def _wanted(message: str, held: int) -> dict[str, int]:
  """Reads the memory that a program wanted off the compiler's error.

  Args:
    message: the error.
    held: bytes of the program's arguments.

  Returns:
    `temporaries` and `together`, or one, or neither, as the error says.
  """
  size = lambda match: int(float(match[1]) * _UNITS[match[2]])
  if match := _TEMPORARIES.search(message):
    return {"temporaries": size(match), "together": held + size(match)}
  if match := _USED.search(message):
    return {"together": size(match)}
  return {}
