"""`v2a generate`: soundtracks for silent videos, ranked, muxed, marked."""

import argparse
import dataclasses
import json
import pathlib
import sys
from typing import Any

from launch import cli, parsing, sampler_flags

# Fields of `request.Request` that are flags here by the same name.
REQUEST = (
  *("prompt", "negative_prompt", "transcript", "speech", "music", "effects"),
  *("num_candidates", "seed", "duration", "audio", "regenerate"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
  """One video and all that decides its sound.

  Attributes:
    video: the picture.
    request: arguments of a `Soundtracker`.
    delivery: arguments of `Soundtracks.save`.
    wanted: digests of the samples that must come out, by seed; for `--from`.
  """

  video: pathlib.Path
  request: dict[str, Any]
  delivery: dict[str, Any]
  wanted: dict[int, str] = dataclasses.field(default_factory=dict)


def main(argv: list[str]) -> int:
  args = _parser().parse(argv)
  if args.sidecar:
    checkpoint, step, jobs = read_sidecar(args)
  elif args.videos:
    checkpoint, step, jobs = args.checkpoint, args.step, typed_jobs(args)
  else:
    raise parsing.UsageError("say which video, or --from a sidecar")
  # Here, so that a mistyped flag is answered before jax is imported.
  from v2a_jax.media import MediaError
  from v2a_jax.soundtrack.tracker import Soundtracker

  tracker = Soundtracker.load(checkpoint, step=step)
  failed = 0
  for job in jobs:
    try:
      failed += not run(tracker, job, args.output)
    except MediaError as error:
      # One file that cannot be read does not cost the others their sound.
      if len(jobs) == 1:
        raise
      failed += 1
      print(f"v2a generate: {error}", file=sys.stderr, flush=True)
  if len(jobs) > 1:
    print(f"{len(jobs) - failed} of {len(jobs)} videos have sound now")
  return 1 if failed else 0


def run(tracker, job: Job, output: str) -> bool:
  """Makes one video's soundtracks; False if they are not those wanted."""
  takes = tracker(job.video, **job.request)
  delivery = takes.save(output, **job.delivery)
  for path, take in zip(delivery.videos, takes.candidates):
    score = f"{takes.score_name} {take.score:.3f}"
    print(f"{path}  {score}  seed {take.seed}", flush=True)
  if not job.wanted:
    return True
  rows = json.loads(delivery.sidecar.read_text())["candidates"]
  made = {row["seed"]: row["sha256_samples"] for row in rows}
  same = made == job.wanted
  print("bit for bit the same sound" if same else "NOT the same sound")
  return same


def typed_jobs(args: argparse.Namespace) -> list[Job]:
  request = {name: getattr(args, name) for name in REQUEST}
  request["sampler"] = sampler_flags.overrides(args)
  delivery = dict(
    keep=args.keep, loudness=args.loudness, key=args.key, mark=args.watermark
  )
  jobs = []
  for name in args.videos:
    video = parsing.existing(name, "video")
    audio = args.audio or (str(video) if args.regenerate else "")
    made = request | {"audio": audio}
    jobs.append(Job(video=video, request=made, delivery=delivery))
  return jobs


def read_sidecar(args: argparse.Namespace) -> tuple[str, int | None, list[Job]]:
  """What made the soundtracks beside a sidecar: checkpoint, step, the job.

  Raises:
    UsageError: it is no sidecar, or its video is not there.
  """
  file = parsing.existing(args.sidecar, "sidecar")
  try:
    made = json.loads(file.read_text())
    source, delivery = made["model"]["checkpoint"], dict(made["delivery"])
    video, rows = made["video"], made["candidates"]
  except (ValueError, KeyError, TypeError) as error:
    raise parsing.UsageError(
      f"{file} is no sidecar of v2a generate ({error})"
    ) from None
  if delivery.pop("own_key") and not args.key:
    raise parsing.UsageError(f"{file}: made with a key of its own; give --key")
  job = Job(
    video=parsing.existing((args.videos or [video])[0], "video"),
    request=made["request"],
    delivery=delivery | {"key": args.key},
    wanted={row["seed"]: row["sha256_samples"] for row in rows},
  )
  return args.checkpoint or source["path"], source.get("step"), [job]


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
      " --num_candidates 4 -o out\n"
      "  v2a generate --from out/clip/clip.json -o again"
    ),
  )
  add = parser.add_argument
  add("videos", nargs="*", metavar="VIDEO", help="any container PyAV opens")
  add("-o", "--output", required=True, help="folder; one subfolder a video")
  add(
    "--from",
    dest="sidecar",
    metavar="JSON",
    help="make again what a sidecar describes, and say if it is the same",
  )
  _add_request(add)
  add("--checkpoint", help="a work directory of v2a train, or a bundle")
  add("--step", type=int, help="of the checkpoints there; the newest")
  sampler_flags.add_to(parser)
  add("--keep", type=int, help="write only the best so many")
  add("--loudness", type=float, help="LUFS to bring it to; -23, say")
  add("--key", help="of the watermark; $V2A_WATERMARK_KEY by default")
  add(
    "--watermark",
    action=argparse.BooleanOptionalAction,
    default=True,
    help="mark the sound as generated (the default)",
  )
  return parser


def _add_request(add) -> None:
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
  add(
    "--seed", type=int, default=0, help="candidate i has seed + i (default 0)"
  )
  add("--duration", type=float, help="seconds of the video, from its start")
  add("--audio", default="", help="keep this sound; what it lacks is added")
  add(
    "--regenerate",
    type=span,
    nargs="+",
    default=(),
    metavar="START-END",
    help="seconds of --audio (or of the video's own sound) to make anew",
  )


def span(text: str) -> tuple[float, float]:
  """ "1.5-2" as (1.5, 2.0)."""
  start, _, end = text.partition("-")
  try:
    return float(start), float(end)
  except ValueError:
    raise argparse.ArgumentTypeError(
      f"{text!r} is no span; write seconds, like 1.5-2"
    ) from None


if __name__ == "__main__":
  raise SystemExit(cli.main_of("generate"))
