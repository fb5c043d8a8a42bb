"""Count parameters, FLOPs, memory and shapes of what a config would build.

Takes seconds, allocates no weights, and needs neither data nor an accelerator,
so the config of a cluster can be read on a laptop.
"""

from collections.abc import Iterator
import json
from typing import Any

from launch import config as config_lib
from launch import parsing
from launch.table import row, short

ARGUMENTS = f"""{parsing.CONFIG}
--devices COUNT       number of devices of the mesh, which need not be here
                      (default: the fewest that config.mesh allows)
--json                print JSON in place of a table
"""
EXAMPLE = """v2a inspect --config=configs/diffusion_tiny.py \\
    --config.model.width=1024 --config.mesh.fsdp=8"""
SMALL = 0.01  # Smaller shares of the parameters are shown together.
FLOPS = {
  "conditioner": "forward pass of the condition encoders",
  "backbone": "forward pass of the backbone",
  "encode": "codec, one crop",
  "quantize": "codec, one crop",
  "decode": "codec, one crop",
  "forward": "forward pass of the whole loss",
  "target": "frozen codec, and the teacher if there is one",
  "training": "one step: forward, backward and target",
  "recomputed": "on top of it, by config.model.remat",
}
MEMORY = {
  "parameters": "float32",
  "average": "moving average of the parameters",
  "optimizer": "moments of the optimizer",
  "buffers": "statistics that are not trained",
  "frozen_codec": "on every device",
  "gradients": "during a step",
}


def main(argv: list[str]) -> int:
  """Runs `v2a inspect`."""
  parser = parsing.Parser("v2a inspect", __doc__, ARGUMENTS, EXAMPLE)
  parser.usage = "%(prog)s --config FILE [options]"
  args = parser.parse(argv)
  config = config_lib.parse(args.config, args.overrides)
  import jax

  # Tracing needs no device; one that another program holds could block it.
  jax.config.update("jax_platforms", "cpu")
  from v2a_jax.experiment import cost
  from v2a_jax.experiment.experiment import Experiment

  costs = cost.inspect(Experiment.from_config(config), devices=args.devices)
  print(json.dumps(costs, indent=2) if args.json else describe(costs))
  return 0


def describe(costs: dict[str, Any]) -> str:
  """Formats the counts of `cost.inspect` as a table."""
  axes = ", ".join(f"{axis} {n}" for axis, n in costs["mesh"].items())
  memory = costs["memory"]
  return "\n".join(
    [
      f"config      {costs['name']}: {costs['model']}, {costs['objective']}",
      f"batch       {costs['batch_size']} clips of {costs['seconds']:g} s",
      f"mesh        {axes}",
      "",
      "parameters",
      *_parameter_lines(costs["parameters"]),
      *_latent_lines(costs["latents"]),
      "",
      "FLOPs of a clip",
      *_flops_lines(costs["flops"], costs["encoder"]),
      "",
      f"memory of a device, {memory['clips']} clips at a time",
      *_memory_lines(memory),
      "",
      "shapes of a batch",
      *_shape_lines(costs["shapes"]),
    ]
  )


def _parameter_lines(counts: dict[str, Any]) -> Iterator[str]:
  parts, total = counts["parts"], counts["total"]
  for top in (part for part in parts if "/" not in part):
    yield row(f"  {top}", short(parts[top]), _share(parts[top], total))
    inner = {p: n for p, n in parts.items() if p.startswith(f"{top}/")}
    large = {p: n for p, n in inner.items() if n >= SMALL * total}
    for part, count in sorted(large.items(), key=lambda item: -item[1]):
      about = _share(count, total) + _depth(part, counts["layers"])
      yield row(f"    {part.partition('/')[2]}", short(count), about)
    if rest := parts[top] - sum(large.values()):
      yield row("    the rest", short(rest), _share(rest, total))
  yield row("  together", short(total), f"{total:,}")
  for name in ("frozen", "frozen_codec"):
    if counts[name]:
      shown = name.replace("_", " ")
      yield row(f"  {shown}", short(counts[name]), "not trained")


def _latent_lines(latents: dict[str, Any] | None) -> Iterator[str]:
  if latents and (rank := latents["effective_rank"]):
    about = f"effective rank {rank:.1f} before whitening"
    yield row("  codec latents", str(latents["channels"]), about)


def _depth(part: str, layers: dict[str, int]) -> str:
  depth = sum(n for p, n in layers.items() if f"{p}/".startswith(f"{part}/"))
  return f"  depth {depth}" if depth else ""


def _flops_lines(flops: dict[str, int], streams: dict) -> Iterator[str]:
  for name, about in FLOPS.items():
    if flops.get(name):
      yield row(f"  {name}", short(flops[name]), about)
    for stream, cost in streams.items() if name == "conditioner" else ():
      about = (
        f"{cost['share']:4.0%} of forward, {cost['training_share']:.0%} of"
        f" training, {short(cost['parameters'])} parameters"
      )
      yield row(f"    {stream}", short(cost["flops"]), about)


def _memory_lines(memory: dict[str, Any]) -> Iterator[str]:
  for name, about in MEMORY.items():
    if memory[name]:
      shown = name.replace("_", " ")
      yield row(f"  {shown}", short(memory[name], "B"), about)
  about = "without activations: see v2a plan"
  yield row("  together", short(memory["total"], "B"), about)


def _shape_lines(stages: dict[str, dict]) -> Iterator[str]:
  for name, array in stages.items():
    shape = " ".join(map(str, array["shape"]))
    yield f"  {name:<18}  [{shape}] {array['dtype']}"


def _share(count: int, total: int) -> str:
  return f"{count / total:4.0%}"
