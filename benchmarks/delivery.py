"""Delivers soundtracks for real clips and measures what arrives.

  python benchmarks/delivery.py CLIPS -o OUT [--dress] [--loudness -23]
  python benchmarks/delivery.py CLIPS -o OUT --container mov --audio_codec pcm

Every clip, also a broken one that can be decoded, gets one soundtrack of the
bundled model, over its whole length or its first minute. In the delivered
files: length, picture, what the file says of it (time code, title, time of
creation, chapters, language, rotation, colours), watermark, loudness and true
peak. One line a clip, and at the end the failures and how many clips had what.

Most clips say little. With --dress each is first copied, packet by packet, into
a QuickTime file with all of that but colours, of which it has its own.
"""

import argparse
import collections
from fractions import Fraction
import pathlib
import tempfile
import time
from typing import Any

import av

from v2a_jax import media, watermark
from v2a_jax.soundtrack import loudness
from v2a_jax.soundtrack.tracker import Soundtracker

RATE = 48_000
_COLOURS = ("color_range", "color_primaries", "color_trc", "colorspace")
_UNSAID = (None, "", "und", 0, [], (2, 2, 2))  # 2: unspecified


def said(path: pathlib.Path) -> dict[str, Any]:
  """Returns what a file says of its picture and of itself, by name."""
  info = media.probe(path)
  with av.open(str(path)) as container:
    tags = {k.lower(): v for k, v in container.metadata.items()}
    (colours,) = (s.codec_context for s in container.streams.video[:1])
    range_, *kinds = (int(getattr(colours, name)) for name in _COLOURS)
    return {
      "title": tags.get("title"),
      "creation time": tags.get("creation_time"),
      "chapters": [_chapter(c) for c in container.chapters()],
      "time code": info.timecode,
      "language": info.language,
      "rotation": info.rotation,
      "range of colours": range_,
      "colours": tuple(kinds),
    }


def _chapter(chapter: dict[str, Any]) -> tuple[float, float, str]:
  ends = (float(chapter[k] * chapter["time_base"]) for k in ("start", "end"))
  start, end = (round(seconds, 3) for seconds in ends)
  return start, end, chapter["metadata"].get("title", "")


def dress(clip: pathlib.Path, out: pathlib.Path) -> None:
  """Copies a clip into a QuickTime file that says much of itself."""
  with av.open(str(clip)) as source, av.open(str(out), "w") as target:
    target.metadata.update(
      title=f"Reel of {clip.stem}, Über & Co.",
      creation_time="2024-05-06T07:08:09.000000Z",
    )
    kinds = (source.streams.video[:1], source.streams.audio[:1])
    copies = {
      stream.index: target.add_stream_from_template(stream, opaque=True)
      for (stream,) in filter(None, kinds)
    }
    video, *audio = copies.values()
    video.set_display_rotation(90)
    video.metadata["timecode"] = "01:02:03:04"
    for stream in audio:
      stream.metadata["language"] = "ita"
    ms = {"time_base": Fraction(1, 1000)}
    end = source.duration // 1000
    target.set_chapters(
      [
        ms
        | {"id": i, "start": i * end // 2, "end": (i + 1) * end // 2}
        | {"metadata": {"title": title}}
        for i, title in enumerate(("Before", "After"))
      ]
    )
    for packet in source.demux([source.streams[i] for i in copies]):
      if packet.dts is not None:
        packet.stream = copies[packet.stream.index]
        target.mux(packet)


def same(name: str, found: Any, wanted: Any) -> bool:
  """Says whether what was delivered says the same as the source."""
  if name == "chapters" and len(found) == len(wanted):
    # Of a millisecond, in which the ends of chapters are written.
    ends = zip(sum(found, ()), sum(wanted, ()))
    near = lambda a, b: a == b or isinstance(a, float) and abs(a - b) < 0.0021
    return all(near(a, b) for a, b in ends)
  return found == wanted or (found in _UNSAID and wanted in _UNSAID)


def examine(tracker, clip: pathlib.Path, out, args, had) -> list[str]:
  """Delivers a soundtrack; returns what is wrong with it.

  What the clip says of itself is counted in `had`, and what is lost in names
  that begin with "lost".
  """
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
  before, after = said(clip), said(video)
  for name, value in before.items():
    had[name] += value not in _UNSAID
    if not same(name, after[name], value):
      had[f"lost {name}"] += 1
      wrong.append(f"{name} {after[name]!r}, not {value!r}")
  for name in ("", "video_"):
    found = row[f"{name}loudness_lufs"]
    if found is not None and abs(found - args.loudness) > 0.5:
      wrong.append(f"{name}loudness {found} LUFS")
    if row[f"{name}true_peak_dbtp"] > loudness.PEAK:
      wrong.append(f"{name}true peak {row[f'{name}true_peak_dbtp']} dBTP")
  for path in (video, wave):
    if not watermark.detect(read(path).samples, RATE).found:
      wrong.append(
        f"no watermark in {path.suffix}, {float(takes.seconds):.2f} s"
      )
  shown = [row[k] for k in ("loudness_lufs", "true_peak_dbtp")]
  shown += [row[k] for k in ("video_loudness_lufs", "video_true_peak_dbtp")]
  codec = media.probe(video).audio_codec
  print(clip.name, video.suffix, codec, *shown, *wrong, flush=True)
  return wrong


def dressed(tracker, clip: pathlib.Path, args, had) -> list[str]:
  """Examines a clip, with --dress a copy of it."""
  if not args.dress:
    return examine(tracker, clip, args.output, args, had)
  with tempfile.TemporaryDirectory() as folder:
    copy = pathlib.Path(folder) / f"{clip.stem}.mov"
    dress(clip, copy)
    return examine(tracker, copy, args.output, args, had)


def main() -> None:
  """Runs it."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("clips", type=pathlib.Path)
  parser.add_argument("-o", "--output", required=True)
  parser.add_argument("--loudness", type=float, default=-23.0)
  parser.add_argument("--container", default="mp4")
  parser.add_argument("--audio_codec", default="aac")
  parser.add_argument("--seconds", type=float, default=60.0)
  parser.add_argument("--dress", action="store_true")
  args = parser.parse_args()
  tracker = Soundtracker.load()
  counts = {"delivered": 0, "wrong": 0, "refused": 0}
  had = collections.Counter()
  start = time.time()
  for clip in sorted(args.clips.iterdir()):
    try:
      wrong = dressed(tracker, clip, args, had)
    except ValueError as error:
      counts["refused"] += 1
      print(f"refused: {error}", flush=True)
      continue
    counts["wrong" if wrong else "delivered"] += 1
  print(counts, dict(had), f"{time.time() - start:.0f} s")


if __name__ == "__main__":
  main()
