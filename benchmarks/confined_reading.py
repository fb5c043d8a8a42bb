"""What does reading a clip in a confined process cost?

  python -m benchmarks.confined_reading --rounds 20

In turn, in each round: a clip of two seconds is read in this process, in a
confined child that is running, and in one that has to start. Prints the medians
and quartiles of the two ratios.

On two cores that others use too, 10 rounds: a running child takes 1.06 of the
time (quartiles 0.76 and 1.16), one that has to start 2.16 (1.92 and 2.63), which
is 0.4 s more.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import numpy as np

from v2a_jax import media
from v2a_jax.media import reader, sandbox
from v2a_jax.media.base import ReadOptions

SETTINGS = dict(sample_rate=16_000, max_fps=8.0, size=(64, 64))


def seconds(call) -> float:
  """Returns the wall-clock seconds of a call."""
  begin = time.perf_counter()
  call()
  return time.perf_counter() - begin


def in_new_child(path) -> None:
  """Reads a clip in a child that has to start."""
  running, sandbox._idle[:] = list(sandbox._idle), []
  media.read_clip(path, **SETTINGS)
  for worker in sandbox._idle:
    worker.kill()
  sandbox._idle[:] = running


def main() -> None:
  """Prints the two ratios."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--rounds", type=int, default=20)
  parser.add_argument("--height", type=int, default=256)
  args = parser.parse_args()
  rng = np.random.default_rng(0)
  shape = (50, args.height, args.height * 16 // 18 * 2, 3)
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, "clip.mp4")
    media.encode_video(
      rng.integers(0, 64, shape, dtype=np.uint8),
      fps=25,
      audio=rng.normal(0, 0.1, 32_000),
      sample_rate=16_000,
      path=path,
    )
    ways = {
      "here": lambda: reader.decode_clip(path, ReadOptions(**SETTINGS)),
      "running child": lambda: media.read_clip(path, **SETTINGS),
      "new child": lambda: in_new_child(path),
    }
    for way in ways.values():
      way()
    rounds = [
      {name: seconds(way) for name, way in ways.items()}
      for _ in range(args.rounds)
    ]
  print(f"enforced: {', '.join(media.enforced()) or 'nothing'}")
  for name in list(ways)[1:]:
    ratios = [times[name] / times["here"] for times in rounds]
    low, middle, high = statistics.quantiles(ratios, n=4)
    median = statistics.median(times[name] for times in rounds)
    print(
      f"{name}: {middle:.2f} of the time here (quartiles {low:.2f} and"
      f" {high:.2f}), {median:.3f} s"
    )


if __name__ == "__main__":
  main()
