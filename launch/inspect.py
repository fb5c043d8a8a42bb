"""`v2a inspect`: what a config would build, before anything is built.

Parameters, FLOPs, memory and shapes come from tracing (`v2a_jax/inspection.py`);
no weight is allocated, no data and no accelerator is looked for, so the config
of a cluster can be read on a laptop.
"""

from collections.abc import Iterator
import json
import math
import textwrap
from typing import Any

from absl import flags

from launch import cli
from launch import config as config_lib
from launch.parsing import UsageError

HELP = """usage: v2a inspect --config=FILE [--config.key=value ...] [--json]

Says in seconds what a config would build: parameters by part, FLOPs of a clip,
memory of a device, shapes of every stage. Allocates no weights, reads no data.

  --config=FILE          a file with get_config(), such as configs/ar_tiny.py
  --config.key=value     overrides a key of it, dotted: --config.model.depth=4
  --devices=N            lay the mesh over N devices, which need not be here; by
                         default the fewest that config.mesh can take
  --json                 for programs
  --debug                show the traceback of an error

example:
  v2a inspect --config=configs/diffusion_tiny.py --config.model.width=1024 \\
    --config.mesh.fsdp=8
"""
PREFIXES = ("", "k", "M", "G", "T", "P")
SMALL = 0.01  # Parts of less than this share are shown together.
FLOPS = {
  "conditioner": "forward pass of the condition encoders",
  "backbone": "forward pass of the backbone",
  "encode": "codec, one crop",
  "quantize": "codec, one crop",
  "decode": "codec, one crop",
  "forward": "the loss, once",
  "target": "frozen codec and teacher",
  "training": "one step: forward, backward and target",
}
MEMORY = {
  "parameters": "float32",
  "average": "of the parameters",
  "optimizer": "its moments",
  "buffers": "measured, not trained",
  "frozen_codec": "on every device",
  "gradients": "during a step",
  "activations": "during a step; an estimate, see below",
}


def main(argv: list[str]) -> int:
  if {"-h", "--help", "--helpfull"} & set(argv):
    print(HELP, end="")
    return 0
  values = flags.FlagValues()
  flags.DEFINE_bool("json", False, "for programs", flag_values=values)
  flags.DEFINE_integer("devices", None, "of the mesh", flag_values=values)
  config = config_lib.parse(argv, values=values)
  if values.devices is not None and values.devices < 1:
    raise UsageError(f"--devices={values.devices}: at least 1")
  # Here, so that a mistyped flag is answered before jax is imported.
  import jax

  # Tracing needs no device; one that another program holds could block it.
  jax.config.update("jax_platforms", "cpu")
  from v2a_jax.experiment import cost
  from v2a_jax.experiment.experiment import Experiment

  experiment = Experiment.from_config(config)
  found = cost.inspect(experiment, devices=values.devices)
  print(json.dumps(found, indent=2) if values.json else describe(found))
  return 0


def describe(found: dict[str, Any]) -> str:
  """The same, as a table for a person."""
  axes = ", ".join(f"{axis} {n}" for axis, n in found["mesh"].items())
  return "\n".join(
    [
      f"config      {found['name']}: {found['model']}, {found['objective']}",
      f"batch       {found['batch_size']} clips of {found['seconds']:g} s",
      f"mesh        {axes}",
      "",
      "parameters",
      *_parameter_lines(found["parameters"]),
      "",
      "FLOPs of a clip",
      *_flops_lines(found["flops"]),
      *_encoder_lines(found["encoder"]),
      "",
      f"memory of a device, {found['memory']['clips']} clips at a time",
      *_memory_lines(found["memory"]),
      "",
      "shapes of a batch",
      *_shape_lines(found["shapes"]),
    ]
  )


def _parameter_lines(found: dict[str, Any]) -> Iterator[str]:
  parts, total = found["parts"], found["total"]
  for top in (part for part in parts if "/" not in part):
    yield _line(f"  {top}", _short(parts[top]), _share(parts[top], total))
    inner = {p: n for p, n in parts.items() if p.startswith(f"{top}/")}
    large = {p: n for p, n in inner.items() if n >= SMALL * total}
    for part, count in sorted(large.items(), key=lambda item: -item[1]):
      about = _share(count, total) + _depth(part, found["layers"])
      yield _line(f"    {part.partition('/')[2]}", _short(count), about)
    if rest := parts[top] - sum(large.values()):
      yield _line("    the rest", _short(rest), _share(rest, total))
  yield _line("  together", _short(total), f"{total:,}")
  if found["frozen"]:
    yield _line("  frozen", _short(found["frozen"]), "not trained")
  if found["frozen_codec"]:
    yield _line("  frozen codec", _short(found["frozen_codec"]), "not trained")


def _depth(part: str, layers: dict[str, int]) -> str:
  depth = sum(n for p, n in layers.items() if f"{p}/".startswith(f"{part}/"))
  return f"  depth {depth}" if depth else ""


def _flops_lines(found: dict[str, int]) -> Iterator[str]:
  for name, about in FLOPS.items():
    if flops := found.get(name):
      if name == "training" and found["recomputed"]:
        about += f"; {_short(found['recomputed'])} more are recomputed"
      yield _line(f"  {name}", _short(flops), about)


def _encoder_lines(found: dict[str, dict]) -> Iterator[str]:
  """The streams that the conditioner is made of."""
  for name, cost in found.items():
    parts = [f"{_short(cost['parameters'])} parameters"]
    parts += [f"{cost['training_share']:.0%} of a step"]
    about = f"{cost['share']:4.0%} of forward, {', '.join(parts[::-1])}"
    yield _line(f"    of {name}", _short(cost["flops"]), about)


def _memory_lines(found: dict[str, Any]) -> Iterator[str]:
  for name, about in MEMORY.items():
    if found[name]:
      shown = name.replace("_", " ")
      yield _line(f"  {shown}", _short(found[name], "B"), about)
  kept = _short(found["residuals"], "B")
  yield _line("    residuals", kept, "of them, kept for the backward pass")
  yield _line("  together", _short(found["total"], "B"), "")
  yield textwrap.fill(
    f"Activations are {found['activations_are']}.",
    width=78,
    initial_indent="  ",
    subsequent_indent="  ",
  )


def _shape_lines(found: dict[str, dict]) -> Iterator[str]:
  for name, array in found.items():
    shape = " ".join(map(str, array["shape"]))
    yield f"  {name:<18}  [{shape}] {array['dtype']}"


def _line(name: str, value: str, about: str) -> str:
  return f"{name:<16}  {value:>9}  {about}".rstrip()


def _share(count: int, total: int) -> str:
  return f"{count / total:4.0%}"


def _short(number: float, unit: str = "") -> str:
  """Three digits with a decimal prefix: 1.23 G."""
  power = min(int(math.log10(max(number, 1))) // 3, len(PREFIXES) - 1)
  value = number / 1000**power
  digits = 2 - int(math.log10(max(value, 1))) if power else 0
  return f"{value:.{max(digits, 0)}f} {PREFIXES[power]}{unit}".rstrip()


if __name__ == "__main__":
  raise SystemExit(cli.main_of("inspect"))
