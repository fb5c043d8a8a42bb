"""`v2a eval`: scores checkpoints on held-out clips, beside their anchors."""

import pathlib

from launch import cli, parsing, sampler_flags


def main(argv: list[str]) -> int:
  args = _parser().parse(argv)
  # Here, so that a mistyped flag is answered before jax is imported.
  from v2a_jax.evaluation import rows, runner
  from v2a_jax.soundtrack.tracker import Soundtracker

  changes = sampler_flags.overrides(args)
  chosen = args.rows.split(",") if args.rows else rows.ROWS
  for checkpoint in args.checkpoints:
    out = pathlib.Path(args.output)
    if len(args.checkpoints) > 1:
      out /= pathlib.Path(checkpoint).name
      print(f"{checkpoint} -> {out}", flush=True)
    tracker = Soundtracker.load(checkpoint, step=args.step)
    tracker.experiment.sampler_with(changes)  # Refused here, not half-way.
    runner.evaluate(
      tracker,
      data=args.set,
      out=out,
      split=args.split,
      num_clips=args.num_clips or None,
      seed=args.seed,
      rows=chosen,
      batch_size=args.batch_size,
      gallery_clips=args.gallery_clips,
      weights_path=args.weights,
      sampler_overrides=changes,
      log=lambda line: print(line, flush=True),
    )
  print(f"next: v2a report {args.output} -o report.html")
  return 0


def _parser() -> parsing.Parser:
  parser = parsing.make_parser(
    "v2a eval",
    about=(
      "Scores checkpoints on held-out clips, beside anchors that say what a"
      "\nnumber is worth: the truth, the codec alone, the wrong video, silence"
      "\nand noise. Writes results.json with intervals, and what to listen to."
    ),
    example=(
      "v2a eval runs/diffusion runs/ar --set=data/scenes --split=test -o"
      " runs/eval"
    ),
  )
  add = parser.add_argument
  add(
    "checkpoints",
    nargs="+",
    metavar="CKPT",
    help="work directories of v2a train, or bundles",
  )
  add("--set", required=True, help="folder of a data set")
  add("--split", default="test", help="of it (default test)")
  add(
    "--num_clips", type=int, default=64, help="0 takes all of them (default 64)"
  )
  add(
    "-o",
    "--output",
    required=True,
    help="folder for results.json; one a checkpoint if there are several",
  )
  add("--step", type=int, help="of the checkpoints; the newest")
  add("--seed", type=int, default=0, help="(default 0)")
  add("--rows", help="only these, such as generated,ground_truth")
  add("--batch_size", type=int, default=8, help="clips at a time (default 8)")
  add(
    "--gallery_clips",
    type=int,
    default=12,
    help="clips to keep sounds of, for the report (default 12)",
  )
  add("--weights", help="of the mn04 network; looked for by default")
  sampler_flags.add_to(parser)
  return parser


if __name__ == "__main__":
  raise SystemExit(cli.main_of("eval"))
