"""`v2a generate`: soundtracks for silent videos, ranked, muxed, marked."""

import argparse
import pathlib
import sys

from launch import cli, parsing

GUIDED = ("video", "prompt", "transcript", "negative_prompt")


def main(argv: list[str]) -> int:
  args = _parser().parse(argv)
  videos = [parsing.existing(video, "video") for video in args.videos]
  # Here, so that a mistyped flag is answered before jax is imported.
  from v2a_jax.media import MediaError
  from v2a_jax.soundtrack import Soundtracker

  tracker = Soundtracker.load(args.checkpoint, step=args.step)
  failed = 0
  for video in videos:
    try:
      _generate(tracker, video, args)
    except MediaError as error:
      # One file that cannot be read does not cost the others their sound.
      if len(videos) == 1:
        raise
      failed += 1
      print(f"v2a generate: {error}", file=sys.stderr, flush=True)
  if failed:
    print(f"{len(videos) - failed} of {len(videos)} videos have sound now")
  return 1 if failed else 0


def _generate(tracker, video: pathlib.Path, args) -> None:
  takes = tracker(
    video,
    prompt=args.prompt,
    negative_prompt=args.negative_prompt,
    transcript=args.transcript,
    speech=args.speech,
    music=args.music,
    effects=args.effects,
    num_candidates=args.num_candidates,
    seed=args.seed,
    duration=args.duration,
    sampler=sampler_overrides(args),
  )
  delivery = takes.save(
    args.output,
    keep=args.keep,
    loudness=args.loudness,
    key=args.key,
    mark=args.watermark,
  )
  for path, take in zip(delivery.videos, takes.candidates):
    score = f"{takes.score_name} {take.score:.3f}"
    print(f"{path}  {score}  seed {take.seed}", flush=True)


def sampler_overrides(args: argparse.Namespace) -> dict:
  """What was typed of the sampler; what was not stays as the model has it."""
  guidance = {name: getattr(args, f"guidance_{name}") for name in GUIDED}
  guidance = {k: v for k, v in guidance.items() if v is not None}
  plain = {k: getattr(args, k) for k in ("num_steps", "temperature")}
  found = {k: v for k, v in plain.items() if v is not None}
  return found | ({"guidance": guidance} if guidance else {})


def _parser() -> parsing.Parser:
  parser = parsing.make_parser(
    "v2a generate",
    about=(
      "Soundtracks for silent videos. Several candidates are made for each,"
      "\nranked, and muxed beside the untouched picture; a .json beside them"
      "\nholds every setting. Without --checkpoint the bundled tiny model is"
      "\nused."
    ),
    example=(
      'v2a generate clip.mp4 -p "rain on a tin roof" -n music'
      " --num_candidates 4 -o out"
    ),
  )
  add = parser.add_argument
  add("videos", nargs="+", metavar="VIDEO", help="any container PyAV opens")
  add("-o", "--output", required=True, help="folder; one subfolder a video")
  add("-p", "--prompt", default="", help="what should be heard")
  add("-n", "--negative_prompt", default="", help="what should not be heard")
  add("--transcript", default="", help="what should be said")
  for name in ("speech", "music", "effects"):
    add(
      f"--{name}",
      action=argparse.BooleanOptionalAction,
      help=f"ask for {name}, or for none; not said: either",
    )
  add("--num_candidates", type=int, default=4, help="(default 4)")
  add("--keep", type=int, help="write only the best so many")
  add(
    "--seed", type=int, default=0, help="candidate i has seed + i (default 0)"
  )
  add("--duration", type=float, help="seconds of the video, from its start")
  add("--checkpoint", help="a work directory of v2a train, or a bundle")
  add("--step", type=int, help="of the checkpoints there; the newest")
  for name in GUIDED:
    add(f"--guidance_{name}", type=float, help=f"how closely to follow {name}")
  add("--num_steps", type=int, help="of the diffusion sampler")
  add("--temperature", type=float, help="of the token sampler")
  add("--loudness", type=float, help="LUFS to bring it to; -23, say")
  add("--key", help="of the watermark; $V2A_WATERMARK_KEY by default")
  add(
    "--watermark",
    action=argparse.BooleanOptionalAction,
    default=True,
    help="mark the sound as generated (the default)",
  )
  return parser


if __name__ == "__main__":
  raise SystemExit(cli.main_of("generate"))
