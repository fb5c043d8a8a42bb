"""Detect the watermark and the signature of sound from v2a generate."""

import dataclasses
import json

from launch import parsing

ARGUMENTS = """
FILE...               video or audio file
--key TEXT            key of the watermark (default: $V2A_WATERMARK_KEY, or the
                      published key)
--read_limits FACTOR  how many times the usual work and memory reading a file may
                      take (default 1)
--json                print one JSON object a line for each file
"""
EXAMPLE = "v2a watermark detect out/clip/clip__c01_s0000.mp4"


def main(argv: list[str]) -> int:
  """Runs `v2a watermark`."""
  return parsing.run_command(
    "v2a watermark", __doc__, {"detect": detect}, argv, example=EXAMPLE
  )


def detect(argv: list[str]) -> int:
  """Look for the watermark in the sound of files.

  It is also said where in a file it is, to about 0.12 s. What lies outside may
  be marked, too, but too weakly to be sure. Each of several marked files that
  were joined has a place and a payload of its own.

  Of files with a C2PA manifest it is also said who signed them and their
  footage, and whether they have changed since.

  The exit status is 0 if every file has the watermark, 1 if one does not, 2
  after an error.
  """
  parser = parsing.Parser(
    "v2a watermark detect", detect.__doc__, ARGUMENTS, EXAMPLE
  )
  args = parser.parse(argv)
  files = [parsing.existing(file, "file") for file in args.file]
  from v2a_jax import media, watermark
  from v2a_jax.soundtrack import provenance

  limits = media.Limits().scaled(args.read_limits)
  missed = 0
  for file in files:
    info = media.probe_limited(file, limits=limits)
    if not info.has_audio:
      raise parsing.UsageError(f"{file} has no sound")
    sound = media.limited(media.read_audio)(
      file, sample_rate=info.sample_rate, limits=limits
    )
    result = watermark.detect(sound.samples, info.sample_rate, key=args.key)
    signed = provenance.read(file)
    missed += not result.found
    if args.json:
      row = {"file": str(file), **dataclasses.asdict(result)}
      row["signed"] = signed and dataclasses.asdict(signed)
      print(json.dumps(row), flush=True)
      continue
    print(f"{file}: {describe(result)}", flush=True)
    if signed:
      print(f"{file}: {signed}", flush=True)
  return 1 if missed else 0


def describe(result) -> str:
  """Puts a `watermark.Detection` into words."""
  examined = f"{result.seconds_examined:.1f} s examined"
  if not result.found:
    return f"no watermark of this key (score {result.score:.1f}, {examined})"
  chance = f"{result.false_positive_probability:.1e}"
  payloads = {place.payload for place in result.places}
  places = ", ".join(
    f"{place.start:.1f}-{place.end:.1f} s"
    + (f" (payload {_payload(place)})" if len(payloads) > 1 else "")
    for place in result.places
  )
  return (
    f"watermark found, score {result.score:.1f}, probability by chance at most"
    f" {chance}, at {places}, payload {_payload(result)}, {examined}"
  )


def _payload(found) -> str:
  return "unreadable" if found.payload is None else str(found.payload)
