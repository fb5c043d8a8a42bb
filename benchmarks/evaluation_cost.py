"""Cost of a whole evaluation over that of what it cannot do without.

  python -m benchmarks.evaluation_cost --reference VIDEOS --num_clips 16

What it cannot do without: each picture is decoded once, in all sizes that are
looked at, each true sound once, and the sounds of all rows are embedded once by
all networks. Both are run in turn, and load and compile the networks each time; the
outputs that are judged are the true sounds.
"""

import argparse
import contextlib
import pathlib
import tempfile
import time

import numpy as np

from v2a_jax.evaluation import (
  clips,
  folders,
  formats,
  looks,
  motion,
  runner,
  systems,
)
from v2a_jax.evaluation import metrics as metrics_lib
from v2a_jax.evaluation import rows as rows_lib
from v2a_jax.hearing import embeddings
from v2a_jax.weights import registry


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--reference", required=True)
  parser.add_argument("--num_clips", type=int, default=16)
  parser.add_argument("--seconds", type=float, default=4.0)
  parser.add_argument("--embeddings", default="mn04")
  parser.add_argument("--repeats", type=int, default=3)
  args = parser.parse_args()
  truth = clips.open_truth(args.reference)
  folder = folders.read_folder(args.reference, "the outputs")
  pairs = folders.match(truth.ids(), folder.names).pairs
  system = systems.Outputs("true", folder, pairs)
  metrics = metrics_lib.choose(args.embeddings.split(","))
  times = []
  for _ in range(args.repeats):
    least, number = _timed(_least, truth, system, metrics, args)
    whole, content = _timed(_whole, truth, system, metrics, args)
    times.append((least, whole))
    print(
      f"decode and embed {least:.1f} s, whole {whole:.1f} s,"
      f" ratio {whole / least:.2f}; {number} clips,"
      f" {len(content['rows'])} rows, {len(content['metrics'])} metrics",
      flush=True,
    )
  ratios = [whole / least for least, whole in times]
  print(f"ratio {np.median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})")


def _timed(function, *args):
  start = time.perf_counter()
  found = function(*args)
  return time.perf_counter() - start, found


def _whole(truth, system, metrics, args):
  """Evaluates all rows, without media."""
  options = runner.Options(
    num_clips=args.num_clips, seconds=args.seconds, gallery_clips=0
  )
  with tempfile.TemporaryDirectory() as out:
    return runner.evaluate(
      system,
      data=truth,
      out=pathlib.Path(out) / "eval",
      options=options,
      metrics=metrics,
      log=lambda line: None,
    )


def _least(truth, system, metrics, args) -> int:
  """Decodes and embeds; returns the number of clips."""
  indices = clips.choose(range(len(truth.records)), num=args.num_clips, seed=0)
  entries = formats.survey(truth.records, indices)
  format = formats.choose(entries, rate=None, seconds=args.seconds)
  wanted = [motion.LOOK, *(m.look for m in metrics if m.look)]
  blind = [
    looks.Look(w.name, w.fps, w.size, lambda *seen: None) for w in wanted
  ]
  read = []
  for index in indices:
    record = truth.records[index]
    try:
      sound = format.read(record["audio"], seconds=args.seconds)
      looks.read(
        record["video"], blind, seconds=len(sound) / format.sample_rate
      )
    except ValueError:
      continue  # A failure of the evaluation, too.
    clip = clips.Clip(
      id=record["id"], audio=sound, seconds=len(sound) / format.sample_rate
    )
    read.append(clip)
  networks = []
  for network in {m.embedding for m in metrics if m.embedding}:
    with contextlib.suppress(registry.MissingWeightsError):
      networks.append(network())
  rows = [row for row in rows_lib.ROWS if row != "codec"]
  for start in range(0, len(read), 8):
    part = read[start : start + 8]
    for row in rows:
      sounds, rate = systems.make_row(
        row,
        system,
        part,
        donors=part,
        settings=rows_lib.Settings(),
        format=format,
      )
      for network in networks:
        embeddings.embed(network, sounds, sample_rate=rate)
  return len(read)


if __name__ == "__main__":
  main()
