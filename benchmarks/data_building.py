"""How does building scale: workers, changed captions, a million records?

  python -m benchmarks.data_building --clips 24 --sounds 10000

* the time of a build with one worker over that with two, in turn, of clips made
  here (456 x 256 pixels, which are scaled down to 128 and encoded again)
* seconds to bring a data set of `--sounds` short sounds up to date after every
  caption has changed, and how many were decoded
* memory and seconds to open, to read the first batch and to resume, of data sets
  of 10,000, 100,000 and 1,000,000 records: hard links to the shard of the sounds
* the same to write columns of ten numbers for each record, and to choose records
  by two of them

On two cores of an AMD EPYC that others used too (load 5):

  24 clips by one worker / by two: 1.06 (1.03 to 1.10), while others took the
    second core; see docs/data_at_scale.md
  10,000 sounds: 40 s; new captions: 7.3 s, none decoded
  17,978 records: first batch 0.11 s, resumed 0.11 s, 16 MB more memory
  107,868 records: 0.11 s, 0.20 s, 18 MB
  1,006,768 records: 0.13 s, 0.24 s, 29 MB

At a load of 12 to 19:

  12 clips by one worker / by two: 1.06 (0.95 to 1.25)
  100,800 rows added: 38 s, 6 MB; sorted: 8 s, 53 MB; chosen by two: 1.1 s, 49 MB
  1,000,800 rows added: 255 s, 68 MB; sorted: 132 s, 62 MB; chosen: 11 s, 148 MB
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import pyarrow as pa
import soundfile

from benchmarks.data_reading import make_clip
from data_pipelines.assemble import OutputOptions
from data_pipelines.build import build_folder
from data_pipelines.clips import ClipOptions
from data_pipelines.columns import records, store, view
from data_pipelines.loader import make_loader
from data_pipelines.loader_config import LoaderConfig
from data_pipelines.manifest import MANIFEST, read_manifest


def build(folder: pathlib.Path, out: pathlib.Path, workers=2, **options):
  """Builds quietly; returns the seconds and the lines that were logged."""
  lines: list[str] = []
  table = folder / "captions.csv"
  start = time.perf_counter()
  build_folder(
    folder,
    out=out,
    captions_csv=table if table.exists() else None,
    options=ClipOptions(**options),
    output=OutputOptions(workers=workers),
    log=lines.append,
  )
  return time.perf_counter() - start, lines


def compare_workers(folder: pathlib.Path, clips: int, rounds: int) -> None:
  """Prints the ratio of one worker's time to two workers'."""
  source = folder / "clips"
  source.mkdir()
  for i in range(clips):
    make_clip(source / f"{i:03d}.mp4", 4.0, seed=i)
  build(source, folder / "warm", short_side=128)
  ratios = []
  for i in range(rounds):
    one, _ = build(source, folder / f"one{i}", workers=1, short_side=128)
    two, _ = build(source, folder / f"two{i}", workers=2, short_side=128)
    ratios.append(one / two)
  print(
    f"{clips} clips by one worker / by two: {statistics.median(ratios):.2f}"
    f" (from {min(ratios):.2f} to {max(ratios):.2f})",
    flush=True,
  )


def change_captions(folder: pathlib.Path, count: int) -> pathlib.Path:
  """Prints how long new captions of every record take; returns the data set."""
  source, out = folder / "sounds", folder / "built"
  rng = np.random.default_rng(0)
  source.mkdir()
  for i in range(count):
    samples = rng.normal(0, 0.1, 1600).astype(np.float32)
    soundfile.write(source / f"{i:06d}.wav", samples, 16_000)

  def caption(words):
    rows = (f"{i:06d}.wav,{words} number {i}\n" for i in range(count))
    (source / "captions.csv").write_text("file,caption\n" + "".join(rows))

  options = dict(allow_audio_only=True, min_seconds=0.05)
  caption("sound")
  first, _ = build(source, out, **options)
  caption("noise")
  again, lines = build(source, out, **options)
  (line,) = [line for line in lines if "taken over" in line]
  print(f"{count} sounds: {first:.1f} s; new captions: {again:.1f} s, {line}")
  return out


def multiply(built: pathlib.Path, out: pathlib.Path, count: int) -> int:
  """Makes a data set of at least `count` records; returns their number."""
  out.mkdir()
  manifest = json.loads((built / MANIFEST).read_text())
  shard = next(s for s in manifest["shards"] if s["split"] == "train")
  times = -(-count // shard["records"])
  names = [
    f"v2a-train.array_record-{i:05d}-of-{times:05d}" for i in range(times)
  ]
  for name in names:
    os.link(built / shard["file"], out / name)
  total = times * shard["records"]
  manifest["shards"] = [shard | {"file": name} for name in names]
  manifest["splits"] = {"train": total}
  (out / MANIFEST).write_text(json.dumps(manifest))
  info = json.loads((built / "dataset_info.json").read_text())
  split = next(s for s in info["splits"] if s["name"] == "train")
  split |= {"shardLengths": [str(shard["records"])] * times}
  info["splits"] = [split]
  (out / "dataset_info.json").write_text(json.dumps(info))
  for name in ("tokenizer.model", "features.json"):
    shutil.copy(built / name, out)
  return total


def megabytes() -> float:
  """Returns the most memory that this process has had, in MiB."""
  text = pathlib.Path("/proc/self/status").read_text()
  return int(text.partition("VmHWM:")[2].split()[0]) / 1024


def write_columns(path: str) -> None:
  """Prints seconds and memory of writing a row for each record."""
  manifest = read_manifest(path)
  count = manifest["splits"]["train"]
  empty = dict.fromkeys(records.SCHEMA.names) | {"split": "train", "tags": []}
  parts = []
  for first in range(0, count, 10_000):
    ids = [f"clip{i}" for i in range(first, min(first + 10_000, count))]
    rows = [empty | {"id": id, "key": records.key_of(id, "")} for id in ids]
    parts.append(pa.Table.from_pylist(rows, records.SCHEMA))
  records.write_records(pathlib.Path(path), manifest, parts)
  before, start = megabytes(), time.perf_counter()
  rng = np.random.default_rng(0)
  with store.Journal(path, "measures") as journal:
    for i in range(count):
      row = {f"m{j}": value for j, value in enumerate(rng.random(10))}
      journal.add(f"clip{i}", "", row | {"by": "a benchmark"})
    added, adding = time.perf_counter() - start, megabytes() - before
    journal.finish()
  print(
    f"{count:,} rows added: {added:.0f} s, {adding:.0f} MB more memory; sorted:"
    f" {time.perf_counter() - start - added:.0f} s,"
    f" {megabytes() - before - adding:.0f} MB more",
    flush=True,
  )


def choose_by_columns(path: str) -> None:
  """Prints seconds and memory of choosing clips."""
  import tensorflow_datasets  # noqa: F401  # is read with, and takes 0.1 GB

  before, start = megabytes(), time.perf_counter()
  opened, _ = view.open_view(path, "train", admit="m0 < 0.9 and not m1 < 0.1")
  print(
    f"{len(opened):,} chosen: {time.perf_counter() - start:.2f} s,"
    f" {megabytes() - before:.0f} MB more memory",
    flush=True,
  )


def read(path: str) -> None:
  """Prints seconds and memory of opening, reading and resuming."""
  import tensorflow_datasets  # noqa: F401  # is read with, and takes 0.1 GB

  config = LoaderConfig(
    paths=(path,), batch_size=32, seconds=0.1, fps=5, frame_size=4
  )
  before, start = megabytes(), time.perf_counter()
  with make_loader(config) as loader:
    next(loader)
    first = time.perf_counter() - start
    for _ in range(100):
      next(loader)
    count = loader.num_examples
  start = time.perf_counter()
  with make_loader(config, start_step=count // 64) as loader:
    next(loader)
  print(
    f"{count:,} records: first batch after {first:.2f} s, resumed in the middle"
    f" of the epoch after {time.perf_counter() - start:.2f} s,"
    f" {megabytes() - before:.0f} MB more memory",
    flush=True,
  )


CHILDREN = (read, write_columns, choose_by_columns)


def main() -> None:
  """Prints all figures."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--clips", type=int, default=24)
  parser.add_argument("--sounds", type=int, default=10_000)
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--only", choices=("workers", "size"))
  parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.child:
    name, path = args.child
    {f.__name__: f for f in CHILDREN}[name](path)
    return
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    if args.only != "size":
      compare_workers(folder, args.clips, args.rounds)
    if args.only == "workers":
      return
    built = change_captions(folder, args.sounds)
    for count in (10_000, 100_000, 1_000_000):
      out = folder / str(count)
      multiply(built, out, count)
      for child in CHILDREN:  # In processes of their own, for their memory.
        command = [sys.executable, "-m", "benchmarks.data_building", "--child"]
        subprocess.run([*command, child.__name__, str(out)], check=True)


if __name__ == "__main__":
  main()
