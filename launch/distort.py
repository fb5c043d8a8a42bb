"""Score true sounds that are made worse on purpose, to see what metrics answer.

A metric that is worth something gets worse with the distortion; one that stays
is blind to it. The same command goes on with one that was interrupted.
"""

from launch import parsing

ARGUMENTS = """
--reference DIR       folder of true sounds, of videos with them, or of a data
                      set (required)
-o, --output DIR      folder to write curves.json and the results to (required)
--split NAME          split of the data set: train, val, test or all (default
                      test)
--kinds NAMES         distortions, separated by commas: noise, lowpass, late,
                      early, shuffled (default: all)
--num_clips N         number of clips, drawn at random; 0 for all (default 0)
--seconds LENGTH      judge so many seconds of a clip from its start, 0.5 or more
                      (default: all)
--embeddings NAMES    embeddings for set distances, separated by commas (default:
                      those of v2a eval)
--weights PATH        file or folder of the weights of embedding networks; by
                      default they are looked for in $V2A_WEIGHTS and the cache
--seed SEED           random seed of the clips and the noise, 0 to 4294967295
                      (default 0)
"""
EXAMPLE = "v2a eval distort --reference true/sounds -o runs/distorted"


def main(argv: list[str]) -> int:
  """Runs `v2a eval distort`."""
  args = parsing.Parser("v2a eval distort", __doc__, ARGUMENTS, EXAMPLE).parse(
    argv
  )
  # Here, so that a mistyped flag is answered before jax is imported.
  from v2a_jax.evaluation import clips, distort, metrics
  from v2a_jax.evaluation.options import Options

  asked = parsing.names("--embeddings", args.embeddings) or metrics.EMBEDDINGS
  kinds = parsing.names("--kinds", args.kinds) or list(distort.AMOUNTS)
  options = Options(
    split=args.split,
    num_clips=args.num_clips or None,
    seconds=args.seconds,
    seed=args.seed,
    noise_seed=args.seed,
  )
  curves = distort.write_curves(
    clips.open_truth(args.reference, args.split),
    args.output,
    kinds=kinds,
    metrics=metrics.choose(asked),
    options=options,
    weights_path=args.weights,
    log=lambda line: print(line, flush=True),
  )
  print(distort.as_markdown(curves))
  return 0
