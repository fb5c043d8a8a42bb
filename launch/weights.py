"""`v2a weights`: networks that come from elsewhere, and those that leave."""

import json

from launch import cli, parsing
from v2a_jax.basics.text import did_you_mean


def main(argv: list[str]) -> int:
  args = _parser().parse(argv)
  if args.command == "export":
    from v2a_jax.experiment import export

    print(export.export(args.workdir, args.output, step=args.step))
    return 0
  from v2a_jax.weights import registry as weights

  if args.command == "list":
    rows = weights.listing()
    print(json.dumps(rows, indent=2) if args.json else describe(rows))
    return 0
  if args.name not in weights.WEIGHTS:
    hint = did_you_mean(args.name, weights.WEIGHTS)
    known = ", ".join(weights.WEIGHTS)
    raise parsing.UsageError(
      f"no weights are named {args.name!r}{hint or f'; there are: {known}'}"
    )
  if args.command == "fetch":
    print(weights.fetch(args.name, out=args.output))
  else:
    print(weights.convert(args.name, args.file, out=args.output))
  return 0


def describe(rows: list[dict[str, str]]) -> str:
  """A paragraph for each entry: state, what it is, where from."""
  return "\n".join(
    f"{row['name']}: {row['state']} {row['path']}\n"
    f"  {row['about']}\n"
    f"  {row['licence']}, {row['url']}\n"
    f"  sha256 {row['sha256']}"
    for row in rows
  )


def _parser() -> parsing.Parser:
  parser = parsing.make_parser(
    "v2a weights",
    about=(
      "Networks that come from elsewhere. They are looked for in the folders of"
      "\n$V2A_WEIGHTS and in the cache, and checked by sha256. Only `fetch` uses"
      "\nthe network."
    ),
    example="v2a weights list",
  )
  commands = parser.add_subparsers(dest="command", required=True)
  command = parsing.add_command(
    commands,
    "list",
    about="What is known, what is here, and where from.",
    example="v2a weights list --json",
  )
  command.add_argument("--json", action="store_true", help="for programs")
  command = parsing.add_command(
    commands,
    "fetch",
    about="Download weights into the cache.",
    example="v2a weights fetch mn04",
  )
  command.add_argument("name", help="as listed")
  command.add_argument("-o", "--output", help="folder; the cache by default")
  command = parsing.add_command(
    commands,
    "convert",
    about="Write a downloaded file as safetensors; prints its path.",
    example="v2a weights convert mn04 ~/Downloads/mn04_as_mAP_432.pt",
  )
  command.add_argument("name", help="as listed")
  command.add_argument("file", nargs="?", help="looked for by default")
  command.add_argument("-o", "--output", help="folder; the cache by default")
  command = parsing.add_command(
    commands,
    "export",
    about=(
      "Write a run's averaged weights as a bundle: safetensors, config,"
      "\ntokenizer, card. A codec is calibrated on its training data first."
    ),
    example="v2a weights export runs/diffusion_tiny -o my_bundle",
  )
  command.add_argument("workdir", help="of `v2a train`")
  command.add_argument("-o", "--output", required=True, help="its folder")
  command.add_argument("--step", type=int, help="of the checkpoints there")
  return parser


if __name__ == "__main__":
  raise SystemExit(cli.main_of("weights"))
