"""Ask people: make a blind listening test, and score its answers."""

import pathlib

from launch import parsing

MAKE = """
RESULTS...            results.json of v2a eval, its folder, or a folder of such
                      folders
-o, --output FILE     page to write; its name ends in .html, and the key to its
                      sounds goes beside it (required)
--kind KIND           pairs, of which a listener prefers one or neither, or rating
                      of single sounds from 1 to 5 (default pairs)
--rows NAMES          rows that are listened to besides the generated sounds,
                      separated by commas (default ground_truth)
--num_clips N         largest number of clips, drawn at random (default 12)
--loudness LUFS       loudness that all sounds are brought to, because the louder
                      of two is preferred (default -23)
--seed SEED           random seed of clips and codes, 0 to 4294967295 (default 0)
"""
MAKE_EXAMPLE = "v2a listen make runs/eval -o test.html --kind rating"
SCORE = """
KEY                   key of the test, which was written with the page
ANSWERS...            files that listeners have sent back
-o, --output FILE     JSON file for the scores (default: none)
--seed SEED           random seed of the intervals, 0 to 4294967295 (default 0)
"""
SCORE_EXAMPLE = "v2a listen score test.key.json answers-*.json"


def main(argv: list[str]) -> int:
  """Runs `v2a listen`."""
  commands = dict(make=make, score=score)
  return parsing.run_command(
    "v2a listen", __doc__, commands, argv, example=MAKE_EXAMPLE
  )


def make(argv: list[str]) -> None:
  """Write a page for listeners, and the key to its sounds.

  The page opens without a network and sends nothing. Keep the key: it says which
  sound is of which system.
  """
  parser = parsing.Parser("v2a listen make", make.__doc__, MAKE, MAKE_EXAMPLE)
  args = parser.parse(argv)
  # Here, so that a mistyped flag is answered before jax is imported.
  from v2a_jax.evaluation.listening.make import ListeningOptions, write_test

  options = ListeningOptions(
    kind=args.kind,
    rows=tuple(filter(None, args.rows.split(","))),
    num_clips=args.num_clips,
    loudness=args.loudness,
    seed=args.seed,
  )
  page, key = write_test(args.results, args.output, options)
  size = page.stat().st_size / 1e6
  print(f"{page} ({size:.1f} MB) is for the listeners; keep {key}")
  print(f"next: v2a listen score {key} ANSWERS...")


def score(argv: list[str]) -> None:
  """Say what the answers to a listening test show.

  Shares and means have 95 % intervals over listeners and clips.
  """
  parser = parsing.Parser(
    "v2a listen score", score.__doc__, SCORE, SCORE_EXAMPLE
  )
  args = parser.parse(argv)
  from v2a_jax.basics import files
  from v2a_jax.evaluation.listening import score as score_lib

  found = score_lib.score(args.key, args.answers, seed=args.seed)
  print("\n".join(score_lib.describe(found)))
  if args.output:
    files.write_json(pathlib.Path(args.output), found)
    print(args.output)
