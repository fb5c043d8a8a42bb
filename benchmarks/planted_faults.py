"""Precision and recall of the filters on faults that were put into clips.

  python -m benchmarks.planted_faults CLIPS -o DIR --seed 1

Takes the videos of the folder CLIPS and procedural scenes of 128 pixels, puts one
fault into some of them, adds copies of others (in other encodings, and the same
files once more), builds a data set, and one of held-out clips of which half are
copies, measures as `v2a data measure --against` and `v2a data annotate --labeller
sync` do, and compares the clips that each expression refuses, or that the build
has dropped, with those that have the fault. Clips that
have a fault of their own (`gh_` clips are clipped, say) count as false alarms,
so precision is a lower bound; their names are printed.

The thresholds were chosen with --seed 0; docs/data_at_scale.md has the table of
--seed 1, in which other clips have the faults.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import soxr

from data_pipelines import build
from data_pipelines.clips import ClipOptions
from data_pipelines.columns import admit, measure, records
from data_pipelines.scenes import make_scene
from v2a_jax import media

OFFSET = 0.5  # seconds
# What each fault is found by: an expression that clips without it fulfil.
FOUND_BY = {
  "silence": "silence < 0.98",
  "clipping": "clipping < 0.001",
  "low-pass": "missing(cutoff) or cutoff > 5000",
  "still": "still < 0.9",
  "offset": "not (agreement > 0.7 and abs(offset) > 0.2)",
  "copy": "not duplicate",
  "same sound": "missing(sound_of)",
  "same picture": "missing(frames_of)",
  "leak": "not leak",
}
# What a copy has, too: the sound and the picture of another; what is held out
# comes first, so that its copies are duplicates.
ALSO = {
  "copy": ("leak",),
  "same sound": ("copy", "leak"),
  "same picture": ("copy", "leak"),
}
FAULTS = ("silence", "clipping", "low-pass", "still", "offset")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("clips", type=pathlib.Path)
  parser.add_argument("-o", "--output", type=pathlib.Path, required=True)
  parser.add_argument("--scenes", type=int, default=90)
  parser.add_argument("--each", type=int, default=16, help="clips of a fault")
  parser.add_argument("--seed", type=int, default=1)
  parser.add_argument("--without_sync", action="store_true")
  args = parser.parse_args()
  folder, dataset = args.output / "clips", args.output / "ds"
  held_out = args.output / "held_out"
  if not (args.output / "truth.json").is_file():
    truth = plant(args, folder, held_out)
    (args.output / "truth.json").write_text(json.dumps(truth, indent=1))
  truth = json.loads((args.output / "truth.json").read_text())
  options = ClipOptions(val_fraction=0.0, test_fraction=0.0, max_seconds=0.0)
  manifest = build.build_folder(folder, out=dataset, options=options)
  others = args.output / "others"
  build.build_folder(held_out, out=others, options=options)
  measure.measure(dataset, against=[others])
  if not args.without_sync:
    call = "data annotate --labeller sync --name sync".split()
    subprocess.run(
      [sys.executable, "-m", "launch.cli", *call[:2], str(dataset), *call[2:]],
      check=True,
    )
  show(dataset, truth, without=["offset"] * args.without_sync)
  planted = sum(fault == "same file" for fault in truth.values())
  print(f"same file: {planted} planted, dropped: {manifest['drops']}")


def plant(args, folder: pathlib.Path, held_out: pathlib.Path) -> dict[str, str]:
  """Writes the clips; returns the fault of each file by its stem, "" for none."""
  rng = np.random.default_rng(args.seed)
  for path in (folder, held_out):
    path.mkdir(parents=True, exist_ok=True)
  sources = sorted(args.clips.glob("*.mp4"))
  names = [*sources, *range(args.scenes)]
  order = rng.permutation(len(names))
  copies = ("copy", "copy", "same sound", "same picture", "leak", "same file")
  truth = {}
  for place, number in enumerate(order):
    frames, times, sound, rate = read(names[number], args.seed)
    stem = getattr(names[number], "stem", f"scene_{names[number]}")
    fault = FAULTS[place // args.each] if place < 5 * args.each else ""
    again = (place - 5 * args.each) // (args.each // 2)
    kind = copies[again] if 0 <= again < len(copies) else ""
    if fault:
      frames, sound = add_fault(fault, frames, times, sound, rate, rng)
    write(folder / f"{stem}.mp4", frames, times, sound, rate)
    truth[stem] = fault or ("leak" if kind == "leak" else "")
    if kind == "same file":
      shutil.copy(folder / f"{stem}.mp4", folder / f"z_{stem}.mp4")
      truth[f"z_{stem}"] = kind
    elif kind in ("copy", "leak"):
      where, name = folder, f"z_{stem}"
      if kind == "leak":
        where, name = held_out, stem
        write(where / f"other_{place}.mp4", *read(2000 + place, args.seed))
      else:
        truth[name] = kind
      write(where / f"{name}.mp4", halved(frames), times, 0.6 * sound, rate, 32)
    elif kind:
      other = read(args.scenes + place, args.seed)  # A scene of its own.
      length = min(times[-1], other[1][-1], len(sound) / rate, 8.0)
      if kind == "same sound":
        frames, times = other[0], other[1]
      else:
        sound, rate = other[2], other[3]
      kept = times <= length
      cut = sound[: round((times[kept][-1] + 0.04) * rate)]
      write(folder / f"z_{stem}.mp4", frames[kept], times[kept], cut, rate, 28)
      truth[f"z_{stem}"] = kind
  return truth


def read(name, seed: int):
  """Returns frames, their times, sound and its rate of a clip or a scene."""
  if isinstance(name, int):
    scene = make_scene(10_000 * (seed + 1) + name, size=128)
    times = np.arange(len(scene.frames)) / scene.fps
    return scene.frames, times, scene.audio, scene.sample_rate
  info = media.probe(name)
  video = media.read_video(name)
  rate = info.sample_rate
  samples = media.read_audio(name, sample_rate=rate).samples
  return video.frames, video.times - video.times[0], samples, rate


def halved(frames):
  """Returns frames of half the height and width."""
  height, width = (size // 4 * 4 for size in frames.shape[1:3])
  parts = frames[:, :height, :width].reshape(
    len(frames), height // 2, 2, width // 2, 2, 3
  )
  return np.round(parts.mean((2, 4), dtype=np.float32)).astype(np.uint8)


def add_fault(fault: str, frames, times, sound, rate: int, rng):
  """Returns frames and sound of a clip with a fault."""
  if fault == "silence":
    sound = (1e-5 * rng.normal(size=sound.shape)).astype(np.float32)
  elif fault == "clipping":
    level = np.quantile(np.abs(sound), 0.99) + 1e-4
    sound = 0.7 * np.clip(sound / level, -1, 1)
  elif fault == "low-pass":
    slow = min(8000, rate / 2)
    sound = soxr.resample(soxr.resample(sound, rate, slow), slow, rate)
  elif fault == "still":
    frames = np.broadcast_to(frames[len(frames) // 2], frames.shape)
  elif fault == "offset":
    by = round(OFFSET * rate)
    late = rng.random() < 0.5
    gap = np.zeros((by, sound.shape[1]), np.float32)
    sound = np.concatenate([gap, sound] if late else [sound[by:], gap])
    sound = sound[: len(sound) - by] if late else sound
  return frames, sound


def write(path, frames, times, sound, rate: int, crf: int = 23) -> None:
  frames = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]
  media.encode_video(
    np.ascontiguousarray(frames),
    times,
    path=path,
    audio=np.ascontiguousarray(np.clip(sound, -1, 1), np.float32),
    sample_rate=rate,
    crf=crf,
  )


def show(dataset, truth: dict[str, str], without=()) -> None:
  """Prints a table in Markdown, and the false alarms."""
  ids = records.open_records(dataset).table["id"].to_pylist()
  print(f"\n{len(ids)} clips\n")
  print("| fault | admitted by | planted | found | precision | recall |")
  print("|---|---|---|---|---|---|")
  wrong = {}
  rows = [(fault, fault, ids) for fault in FOUND_BY if fault not in without]
  if "offset" not in without:
    drawn = [id for id in ids if "scene" in id]
    filmed = [id for id in ids if "scene" not in id]
    rows += [("offset, scenes", "offset", drawn)]
    rows += [("offset, filmed", "offset", filmed)]
  for name, fault, among in rows:
    text = FOUND_BY[fault]
    mask = admit.admitted(dataset, text).mask
    refused = {id for id, good in zip(ids, mask) if not good} & {*among}
    planted = {id for id in among if truth[id] in (fault, *ALSO.get(fault, ()))}
    # Of a pair of copies either may be called the copy.
    mark = "z_" if fault in ALSO else ""
    wanted = {id.removeprefix(mark) for id in planted}
    plain = {id.removeprefix(mark) for id in refused}
    right = plain & wanted
    wrong[name] = (sorted(plain - wanted), sorted(wanted - plain))
    precision = len(right) / len(plain) if plain else float("nan")
    print(
      f"| {name} | `{text}` | {len(wanted)} | {len(plain)} |"
      f" {precision:.2f} | {len(right) / len(wanted):.2f} |"
    )
  for fault, (alarms, missed) in wrong.items():
    print(f"{fault}: false alarms {alarms}; missed {missed}")


if __name__ == "__main__":
  main()
