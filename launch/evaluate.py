"""Score checkpoints on held-out clips and write results.json.

Every score has a confidence interval. The same scores of the true sound, of the
codec alone, of another clip's video, of silence and of noise show what a number
means, and some of the sounds are kept for the report.
"""

from launch import parsing, sampler_flags
from v2a_jax.basics.paths import as_path

ARGUMENTS = """
CHECKPOINT...         workdir of v2a train, or bundle
--set DIR             folder of a data set (required)
--split NAME          split to evaluate: train, val, test or all (default test)
--num_clips N         number of clips, drawn at random; 0 for all (default 64)
-o, --output DIR      folder to write results.json to; with several checkpoints
                      each gets a subfolder (required)
--step STEP           training step of the checkpoint, or best: that of the best
                      validation result (default: the newest)
--seed SEED           random seed, 0 to 4294967295; clip i has seed + i
                      (default 0)
--rows NAMES          rows to score, separated by commas: generated,
                      ground_truth, codec, shuffled_video, shifted,
                      metronome, silence, noise
                      (default: all)
--batch_size COUNT    number of clips that are generated at a time (default 8)
--gallery_clips N     number of clips whose sounds are kept for the report
                      (default 12)
--weights PATH        file or folder of the mn04 weights; by default they are
                      looked for in $V2A_WEIGHTS and the cache
"""
EXAMPLE = "v2a eval runs/diffusion runs/ar --set data/scenes -o runs/eval"


def main(argv: list[str]) -> int:
  """Runs `v2a eval`."""
  arguments = ARGUMENTS + sampler_flags.ARGUMENTS
  args = parsing.Parser("v2a eval", __doc__, arguments, EXAMPLE).parse(argv)
  names = [as_path(path).resolve().name for path in args.checkpoint]
  if twins := [name for name in names if names.count(name) > 1]:
    raise parsing.UsageError(
      f"two checkpoints are named {twins[0]}, and results are written to a"
      " subfolder of that name: evaluate them one by one, each with its own -o"
    )
  last = args.seed + args.num_clips - 1
  if last > parsing.MAX_SEED:
    raise parsing.UsageError(
      f"--seed {args.seed} with {args.num_clips} clips needs seeds up to {last},"
      f" the largest is {parsing.MAX_SEED}"
    )
  # Here, so that a mistyped flag is answered before jax is imported.
  from v2a_jax.evaluation import rows, runner
  from v2a_jax.soundtrack.tracker import Soundtracker

  changes = sampler_flags.overrides(args)
  for checkpoint, name in zip(args.checkpoint, names):
    out = as_path(args.output)
    if len(names) > 1:
      out /= name
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
      rows=args.rows.split(",") if args.rows else rows.ROWS,
      batch_size=args.batch_size,
      gallery_clips=args.gallery_clips,
      weights_path=args.weights,
      sampler_overrides=changes,
      log=lambda line: print(line, flush=True),
    )
  print(f"next: v2a report {args.output} -o report.html")
  return 0
