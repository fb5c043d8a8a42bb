"""Delivers soundtracks for real clips and measures what arrives.

  python benchmarks/delivery.py CLIPS -o OUT [--loudness -23]

Every clip, also a broken one that can be decoded, gets one soundtrack of the
bundled model. In the delivered files: length, picture, time code, watermark,
loudness and true peak. One line a clip, and the failures at the end.
"""

import argparse
import pathlib
import time

from v2a_jax import media, watermark
from v2a_jax.soundtrack import loudness
from v2a_jax.soundtrack.tracker import Soundtracker

RATE = 48_000


def examine(tracker, clip: pathlib.Path, out, args) -> list[str]:
  """Delivers a soundtrack; returns what is wrong with it."""
  options = dict(container=args.container, audio_codec=args.audio_codec)
  takes = tracker(
    clip, num_candidates=1, sampler={"num_steps": 4}, duration=args.seconds
  )
  done = takes.save(out, loudness=args.loudness, **options)
  (row,), wrong = done.rows, []
  whole = media.limited(media.video_duration)(clip)
  video, wave = done.videos[0], done.waves[0]
  read = lambda path: media.limited(media.read_audio)(path, sample_rate=RATE)
  length = {"wav": len(read(wave).samples), "video": len(read(video).samples)}
  wanted = {"wav": round(takes.seconds * RATE), "video": round(whole * RATE)}
  if length["wav"] != wanted["wav"]:
    wrong.append(f"wave of {length['wav']} samples, not {wanted['wav']}")
  if abs(length["video"] - wanted["video"]) > 1:
    wrong.append(f"sound of {length['video']} samples, not {wanted['video']}")
  if media.video_packets_digest(video) != media.video_packets_digest(clip):
    wrong.append("other packets")
  before, after = media.probe_limited(clip), media.probe_limited(video)
  if before.timecode != after.timecode:
    wrong.append(f"time code {after.timecode}, not {before.timecode}")
  for name in ("", "video_"):
    found = row[f"{name}loudness_lufs"]
    if found is not None and abs(found - args.loudness) > 0.5:
      wrong.append(f"{name}loudness {found} LUFS")
    if row[f"{name}true_peak_dbtp"] > loudness.PEAK + 0.05:
      wrong.append(f"{name}true peak {row[f'{name}true_peak_dbtp']} dBTP")
  for path in (video, wave):
    if not watermark.detect(read(path).samples, RATE).found:
      wrong.append(
        f"no watermark in {path.suffix}, {float(takes.seconds):.2f} s"
      )
  shown = [row[k] for k in ("loudness_lufs", "true_peak_dbtp")]
  shown += [row[k] for k in ("video_loudness_lufs", "video_true_peak_dbtp")]
  print(clip.name, video.suffix, after.audio_codec, *shown, *wrong, flush=True)
  return wrong


def main() -> None:
  """Runs it."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("clips", type=pathlib.Path)
  parser.add_argument("-o", "--output", required=True)
  parser.add_argument("--loudness", type=float, default=-23.0)
  parser.add_argument("--container", default="mp4")
  parser.add_argument("--audio_codec", default="aac")
  parser.add_argument("--seconds", type=float, default=10.0)
  args = parser.parse_args()
  tracker = Soundtracker.load()
  counts = {"delivered": 0, "wrong": 0, "refused": 0}
  start = time.time()
  for clip in sorted(args.clips.iterdir()):
    try:
      wrong = examine(tracker, clip, args.output, args)
    except ValueError as error:
      counts["refused"] += 1
      print(f"refused: {error}", flush=True)
      continue
    counts["wrong" if wrong else "delivered"] += 1
  print(counts, f"{time.time() - start:.0f} s")


if __name__ == "__main__":
  main()
