"""Plans training on a pod without having one: compiles the step that will run.

The program is that of `training/program.py`, lowered with the shapes and layouts
of a run and compiled ahead of time for the devices of a topology. Memory and
collectives are the compiler's word; FLOPs are counted (`cost.py`). The time of a
step is bounded from below (`roofline.py`), where it reads or writes at least its
arguments and results and twice its temporaries.
"""

from collections.abc import Mapping
import functools
import re
import time
from typing import Any

from flax import nnx
import jax

from v2a_jax.experiment import cost, jaxprs, parallelism, roofline
from v2a_jax.experiment.sections import ConfigError
from v2a_jax.parallel import collectives, sharding
from v2a_jax.parallel import mesh as mesh_lib
from v2a_jax.parallel.topology import Chip, Topology, describe_devices
from v2a_jax.sampling.draw import Draw
from v2a_jax.sampling.windows import Windows
from v2a_jax.training.program import Program, make_program
from v2a_jax.training.throughput import PEAK_FLOPS, peak_flops

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


def plan(
  experiment, topology: Topology, *, generate: int = 0
) -> dict[str, Any]:
  """Compiles the training step of an experiment for a topology.

  Args:
    experiment: an `Experiment`; its data need not be there.
    topology: chips that it is planned for.
    generate: number of clips that are generated at once, to plan that on one
      chip instead of a step; 0 for a step.

  Returns:
    What `plan_step` returns, with `topology`, `chips` and `chosen`: why the
    mesh is as it is, where the config leaves that open.

  Raises:
    ConfigError: the mesh does not cover the devices, or the batch does not
      divide over it.
    TopologyError: the topology cannot be described here.
  """
  where = {"topology": str(topology), "chips": topology.num_chips}
  if topology.chip.gpu:
    if generate:
      raise ConfigError(
        f"there is no compiler for {topology.name} without one, so what"
        " generates cannot be planned for it"
      )
    return where | estimate_step(experiment, topology)
  devices = describe_devices(topology)
  peak = peak_flops(devices[0])[0]
  if generate:
    mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(), devices[:1])
    return where | plan_sampler(
      experiment, mesh, topology.chip, clips=generate, peak=peak
    )
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
    experiment, mesh, topology.chip, peak=peak, num_slices=topology.num_slices
  )
  return where | {"chosen": chosen} | found


def plan_step(
  experiment,
  mesh: jax.sharding.Mesh,
  chip: Chip,
  *,
  peak: float,
  num_slices: int = 1,
) -> dict[str, Any]:
  """Compiles the training step on a mesh and reads it.

  Args:
    experiment: an `Experiment`; its data need not be there.
    mesh: mesh over real or described devices.
    chip: memory and rates of a device.
    peak: FLOP/s of a device in the dtype of its matrix units.
    num_slices: number of slices of the mesh.

  Returns:
    `mesh`, `batch_size`, `clips` of a device at a time, `compile_seconds`,
    `fits`, and where it does not `remedies`, overrides that need less memory.
    `memory`: bytes of a device by kind (`state_memory`), `capacity`, and
    `together` unless a compiler that gave up does not say. The rest only where
    it compiled, in `memory` `temporaries`, `results` and `program`.
    `collectives`: rows of kind, dtype, shape, group, times and moved bytes, and
    `moved` together; `closed_form`, what weights and gradients need. `flops` of
    a step on a device, `bounds` in seconds by resource, `step_seconds`, `mfu` at
    that time, `clips_a_day`, and `least_batch`, from which on computing takes
    longer than what is sent (None where that grows with the batch too).
  """
  clips = cost.clips_at_a_time(experiment, mesh)
  program, lowered = lower_step(experiment, mesh)
  found = {
    "mesh": dict(mesh.shape),
    "batch_size": experiment.batch_size,
    "clips": clips,
    "memory": state_memory(experiment, program, mesh),
  }
  found["closed_form"] = program.rows.bytes_sent(
    program.state.params, microbatches=experiment.run.accumulate
  )
  touched = _compile(found, lowered, mesh, chip)
  if not found["fits"]:
    found["remedies"] = _remedies(experiment, mesh, clips, found["memory"])
  if touched is None:
    return found
  bounds = {"memory": touched / chip.hbm_rate}
  bounds["links"] = found["moved"] / chip.link_rate
  if num_slices > 1:
    bounds["slices"] = roofline.sent_between_slices(
      program, mesh, num_slices
    ) / (chip.slice_rate)
  return found | roofline.time_of_step(experiment, mesh, bounds, peak=peak)


def estimate_step(experiment, topology: Topology) -> dict[str, Any]:
  """Plans a training step by arithmetic, where no compiler can be asked.

  Activations are those that are alive at a time in the order of the trace; the
  sums of activations over the axes tensor and context are not counted.

  Returns:
    As `plan`, without what only a compiler knows.
  """
  chip = topology.chip
  experiment, chosen = parallelism.settle(
    experiment,
    topology.num_chips,
    capacity=chip.hbm_bytes,
    num_slices=topology.num_slices,
  )
  mesh = experiment.abstract_mesh(topology.num_chips)
  clips = cost.clips_at_a_time(experiment, mesh)
  program = make_program(experiment, mesh)
  gradient = cost.gradient_of_device(experiment, mesh)
  kinds = cost.step_memory(experiment, mesh, gradient)
  memory = state_memory(experiment, program, mesh)
  memory["temporaries"] = kinds["activations"] + kinds["gradients"]
  together = sum(memory.values())
  moved = program.rows.bytes_sent(
    program.state.params, microbatches=experiment.run.accumulate
  )
  bounds = {"links": moved / chip.link_rate}
  if topology.num_slices > 1:
    sent = roofline.sent_between_slices(program, mesh, topology.num_slices)
    bounds["slices"] = sent / chip.slice_rate
  found = {
    "chosen": chosen,
    "mesh": dict(mesh.shape),
    "batch_size": experiment.batch_size,
    "clips": clips,
    "memory": memory | {"together": together, "capacity": chip.hbm_bytes},
    "fits": together <= chip.hbm_bytes,
    "collectives": [],
    "closed_form": moved,
    "moved": moved,
  }
  if not found["fits"]:
    found["remedies"] = _remedies(experiment, mesh, clips, found["memory"])
  peak = PEAK_FLOPS[chip.gpu]
  return found | roofline.time_of_step(experiment, mesh, bounds, peak=peak)


def plan_sampler(
  experiment, mesh: jax.sharding.Mesh, chip: Chip, *, clips: int, peak: float
) -> dict[str, Any]:
  """Compiles what generates `clips` clips of one window on one device.

  The bound by memory is that of reading the weights in each of the sampler's
  passes, one after another.

  Args:
    experiment: an `Experiment` of a generator.
    mesh: mesh of one device.
    chip: memory and rates of the device.
    clips: number of clips that are generated at once.
    peak: FLOP/s of the device.

  Returns:
    As `plan_step`, without collectives and MFU; `passes`.

  Raises:
    ConfigError: no generator is trained, so nothing is sampled from.
  """
  if not experiment.trains_generator:
    name = experiment.names["model"]
    raise ConfigError(f"config.model.name={name!r} has no sampler to plan")
  graphdef, params, buffers = experiment.abstract
  times = experiment.abstract_batch(1).target_times
  windows = Windows(len(times), len(times))

  def run(params, buffers, cond, keys, times):
    model = nnx.merge(graphdef, params, buffers)
    draw = Draw(keys=keys, times=times, windows=windows)
    return experiment.sampler(model, experiment.objective, cond, draw)

  place = lambda x: jax.ShapeDtypeStruct(
    x.shape, x.dtype, sharding=sharding.replicated(mesh)
  )
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), clips))
  cond = experiment.blank_batch(clips).cond
  arguments = jax.tree.map(place, (params, buffers, cond, keys, times))
  found = {
    "mesh": dict(mesh.shape),
    "batch_size": clips,
    "clips": clips,
    "passes": getattr(experiment.sampler, "num_steps", len(times)),
    "memory": {
      "parameters": cost.tree_bytes(params),
      "buffers": cost.tree_bytes(buffers),
      "batch": cost.tree_bytes(cond),
    },
  }
  with jax.set_mesh(mesh):
    traced = jax.jit(run).trace(*arguments)
    touched = _compile(found, traced.lower(), mesh, chip)
  if not found["fits"]:
    found["remedies"] = ["fewer clips at once"]
  if touched is None:
    return found
  flops = jaxprs.count_flops(traced.jaxpr.jaxpr)
  weights = found["memory"]["parameters"] + found["memory"]["buffers"]
  bounds = {
    "compute": flops / peak,
    "memory": (touched + found["passes"] * weights) / chip.hbm_rate,
  }
  return found | roofline.time_of(bounds, clips, flops=flops)


def _compile(found: dict[str, Any], lowered, mesh, chip: Chip) -> int | None:
  """Compiles a program and notes in `found` what the compiler says of it.

  Returns:
    The fewest bytes that the program reads and writes in memory; None where it
    did not compile for want of memory.
  """
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
    found |= {"compile_seconds": time.monotonic() - start, "fits": False}
    return None
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
  moved = collectives.read(compiled.as_text())
  found |= {
    "fits": together <= chip.hbm_bytes,
    "collectives": summarise(moved),
    "moved": sum(c.moved for c in moved),
  }
  return arguments + sizes.output_size_in_bytes + 2 * temporaries


def state_memory(
  experiment, program: Program, mesh: jax.sharding.Mesh
) -> dict[str, int]:
  """Returns the bytes of a device that a step's arguments take, by kind."""
  device_bytes = functools.partial(cost.device_bytes, program)
  frames = experiment.blank_batch(experiment.batch_size)
  rows = mesh.shape["data"] * mesh.shape["fsdp"]
  return {
    "parameters": device_bytes("params"),
    "average": device_bytes("ema") + device_bytes("averages"),
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


def _remedies(
  experiment, mesh, clips: int, memory: Mapping[str, int]
) -> list[str]:
  """Names overrides that need less memory.

  Microbatches are so many, and a smaller batch so small, that the step fits if
  temporaries shrink like the clips at a time. It is not compiled for that.
  """
  data, fsdp = mesh.shape["data"], mesh.shape["fsdp"]
  remedies = []
  if data > 1:
    axes = f"--config.mesh.data=1 --config.mesh.fsdp={data * fsdp}"
    remedies.append(f"--config.parallel.mode=mesh {axes}")
  parts = _microbatches(
    clips, memory, accumulates=experiment.run.accumulate > 1
  )
  if parts > 1:
    whole = experiment.run.accumulate * parts
    remedies.append(f"--config.accumulate={whole}")
  if getattr(experiment.model, "remat", "full") != "full":
    remedies.append("--config.model.remat=full")
  if parts > 1:
    fewer = experiment.batch_size // parts
    remedies.append(f"--config.data.batch_size={fewer}")
  return remedies or ["a topology of more chips"]


def _microbatches(
  clips: int, memory: Mapping[str, int], *, accumulates: bool
) -> int:
  """Returns how many parts of a device's clips should fit one by one.

  A power of two that divides them; the largest if none should, 2 if the compiler
  does not say how much there is too much.
  """
  powers = [2**k for k in range(clips.bit_length()) if clips % 2**k == 0]
  if "together" not in memory or "temporaries" not in memory:
    return powers[:2][-1]
  sums = 0 if accumulates else memory["parameters"]  # of gradients
  held = memory["together"] - memory["temporaries"] + sums
  for parts in powers[1:]:
    if held + memory["temporaries"] / parts <= memory["capacity"]:
      return parts
  return powers[-1]


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
