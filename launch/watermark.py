"""`v2a watermark detect`: was this sound made by this project?"""

import dataclasses
import json

from launch import cli, parsing


def main(argv: list[str]) -> int:
  """Returns 0 where the mark is in every file, 1 where it is not."""
  args = _parser().parse(argv)
  files = [parsing.existing(file, "file") for file in args.files]
  from v2a_jax import media, watermark

  missed = 0
  for file in files:
    info = media.probe(file)
    if not info.has_audio:
      raise parsing.UsageError(f"{file} has no sound")
    sound = media.read_audio(file, sample_rate=info.sample_rate)
    found = watermark.detect(sound.samples, info.sample_rate, key=args.key)
    missed += not found.found
    if args.json:
      row = {"file": str(file), **dataclasses.asdict(found)}
      print(json.dumps(row), flush=True)
    else:
      print(f"{file}: {describe(found)}", flush=True)
  return 1 if missed else 0


def describe(found) -> str:
  """A `watermark.Detection` in words."""
  chance = f"{found.false_positive_probability:.1e}"
  seen = f"{found.seconds_examined:.1f} s examined"
  if not found.found:
    return f"no watermark of this key (score {found.score:.1f}, {seen})"
  payload = "unreadable" if found.payload is None else found.payload
  return (
    f"watermark found, score {found.score:.1f}, by chance at most {chance},"
    f" payload {payload}, {seen}"
  )


def _parser() -> parsing.Parser:
  parser = parsing.make_parser(
    "v2a watermark",
    about="The mark that everything written here carries.",
    example="v2a watermark detect out/clip/clip__c01_s0000.mp4",
  )
  commands = parser.add_subparsers(dest="command", required=True)
  command = parsing.add_command(
    commands,
    "detect",
    about="Exit status 0 if the mark is in every file, 1 if it is not.",
    example="v2a watermark detect out/clip/clip__c01_s0000.mp4",
  )
  command.add_argument("files", nargs="+", metavar="FILE", help="with sound")
  command.add_argument("--key", help="$V2A_WATERMARK_KEY by default")
  command.add_argument("--json", action="store_true", help="one object a line")
  return parser


if __name__ == "__main__":
  raise SystemExit(cli.main_of("watermark"))
