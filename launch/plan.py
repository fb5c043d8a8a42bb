"""Compile a training step for a TPU pod that is not here, and say if it fits.

Compiles the step that v2a train runs, with the shapes and layouts of every
device, and shows the compiler's memory and collectives beside the least time of
a step. Seconds to minutes; needs libtpu: pip install 'v2a_jax[plan]'. Ends with
status 3 where the step does not fit. Nothing is compiled for GPUs (h100:8),
whose compiler needs one: their figures are by arithmetic.
"""

from collections.abc import Iterator
import json
from typing import Any

from launch import config as config_lib
from launch import parsing
from launch.table import row, short

ARGUMENTS = f"""{parsing.CONFIG}
--topology NAME       chip and shape of a slice in chips, such as v5p:4x4x4,
                      v5e:4x4, v6e:8x8 or v4:4x4x4; or a machine of GPUs, such
                      as h100:8, a100, h200 or b200 (required)
--num_slices COUNT    number of such slices or machines (default 1)
--generate COUNT      plan to generate so many clips at once on one chip
                      (default: plan to train)
--json                print JSON in place of a table
"""
EXAMPLE = """v2a plan --config=configs/diffusion.py:small \\
    --topology=v5p:2x2x2 --config.mesh.fsdp=8"""
MEMORY = {
  "parameters": "float32",
  "average": "moving average of the parameters",
  "optimizer": "moments of the optimizer",
  "buffers": "statistics and weights that are not trained",
  "frozen": "the frozen codec, and the teacher if there is one",
  "batch": "frames, tokens and sound of the device's rows",
  "temporaries": "activations, gradients and gathered weights",
  "results": "what a step returns beside the state",
  "program": "the compiled code",
}
BOUNDS = {
  "compute": "FLOPs at the chip's peak",
  "memory": "what a step must read and write",
  "links": "collectives, over all links of a chip",
  "slices": "gradients between slices, over the data centre's network",
}
SHOWN = 8  # Rows of collectives in the table; --json has all.
DOES_NOT_FIT = 3


def main(argv: list[str]) -> int:
  """Runs `v2a plan`."""
  parser = parsing.Parser("v2a plan", __doc__, ARGUMENTS, EXAMPLE)
  args = parser.parse(argv)
  import jax

  # The topology's devices are described; those of this machine stay untouched.
  jax.config.update("jax_platforms", "cpu")
  from v2a_jax.experiment import plan
  from v2a_jax.experiment.experiment import Experiment
  from v2a_jax.parallel import topology

  chips = topology.parse(args.topology, num_slices=args.num_slices)
  config = config_lib.parse(args.config, args.overrides)
  found = plan.plan(
    Experiment.from_config(config), chips, generate=args.generate or 0
  )
  print(json.dumps(found, indent=2) if args.json else describe(found))
  return 0 if found["fits"] else DOES_NOT_FIT


def describe(found: dict[str, Any]) -> str:
  """Formats a plan (`experiment.plan.plan`) as a table."""
  axes = ", ".join(f"{axis} {n}" for axis, n in found["mesh"].items())
  lines = [
    f"topology    {found['topology']}: {found['chips']} chips",
    f"mesh        {axes}",
    f"batch       {found['batch_size']} clips, {found['clips']} on a device at"
    " a time",
    *([f"chosen      {found['chosen']}"] if found.get("chosen") else []),
    _origin(found),
    "",
    "memory of a device",
    *_memory_lines(found),
  ]
  if "bounds" in found:
    if found.get("closed_form"):
      lines += ["", "collectives of a step, bytes that a device sends"]
      lines += _collective_lines(found)
    lines += ["", "least time", *_time_lines(found)]
  return "\n".join(lines)


def _origin(found: dict[str, Any]) -> str:
  """Says where the figures come from."""
  if "compile_seconds" in found:
    return f"compiled    in {found['compile_seconds']:.0f} s"
  return (
    "compiled    not at all: there is no compiler for this chip here. Memory is"
    " an\n            estimate, and what is sent is by arithmetic"
  )


def _memory_lines(found: dict[str, Any]) -> Iterator[str]:
  memory = found["memory"]
  for name, about in MEMORY.items():
    if memory.get(name):
      yield row(f"  {name}", short(memory[name], "B"), about)
  if "together" in memory:
    share = memory["together"] / memory["capacity"]
    about = f"{share:.0%} of {short(memory['capacity'], 'B')}"
    yield row("  together", short(memory["together"], "B"), about)
  if found["fits"]:
    yield "  It fits."
    return
  yield "  It does not fit. Less memory is needed with"
  for remedy in found["remedies"]:
    yield f"    {remedy}"


def _collective_lines(found: dict[str, Any]) -> Iterator[str]:
  rows = found["collectives"]
  for entry in rows[:SHOWN]:
    shape = " ".join(map(str, entry["shape"]))
    about = f"{entry['times']} x {entry['dtype']}[{shape}]"
    about += f" over {entry['group']} devices" if entry["group"] else ""
    yield row(f"  {entry['kind']}", short(entry["moved"], "B"), about)
  if rest := rows[SHOWN:]:
    moved = sum(entry["moved"] for entry in rest)
    yield row(f"  {len(rest)} others", short(moved, "B"), "")
  closed = short(found["closed_form"], "B")
  about = f"{closed} by arithmetic for weights and gradients"
  yield row("  together", short(found["moved"], "B"), about)


def _time_lines(found: dict[str, Any]) -> Iterator[str]:
  for name in found["bounds"]:
    about = BOUNDS[name]
    milliseconds = f"{1000 * found['bounds'][name]:.3g} ms"
    yield row(f"  {name}", milliseconds, about)
  yield row(
    "  together",
    f"{1000 * found['step_seconds']:.3g} ms",
    "at least"
    + (f"; MFU at most {found['mfu']:.0%}" if "mfu" in found else ""),
  )
  if found.get("least_batch"):
    about = "clips, from which on computing takes longest"
    yield row("  batch", str(found["least_batch"]), about)
  a_day = short(found["clips_a_day"])
  yield row("  clips a day", a_day, "at most")
