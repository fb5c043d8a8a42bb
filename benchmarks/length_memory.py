"""Measures memory and time of `v2a generate` against the length of the video.

  python benchmarks/length_memory.py 1 5 10 20 40 [--num_steps 1]

For each length in minutes it makes a video of a moving square, generates one
soundtrack with the bundled model in a process of its own, and prints the largest
resident memory, the time, and by how many samples the sound differs in length.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time

import numpy as np
import soundfile

from v2a_jax import media

FPS, SIZE, RATE = 25, 64, 48_000


def make_video(path: pathlib.Path, seconds: int) -> None:
  """Writes a square that bounces twice a second, on a dark picture."""
  frames = np.full((FPS * seconds, SIZE, SIZE, 3), 40, np.uint8)
  heights = np.abs(np.sin(np.arange(len(frames)) / 12)) * (SIZE - 8)
  for frame, height in zip(frames, heights.astype(int)):
    frame[height : height + 8, 20:28] = 220
  media.encode_video(frames, fps=FPS, path=path)


def measure(minutes: int, num_steps: int) -> dict[str, float]:
  """Generates a soundtrack; returns memory in GB, time in s, samples too many."""
  with tempfile.TemporaryDirectory() as folder:
    video = pathlib.Path(folder, "clip.mp4")
    # In a process of its own, so that its frames are not counted here.
    child = os.fork()
    if not child:
      make_video(video, 60 * minutes)
      os._exit(0)
    os.waitpid(child, 0)
    command = [
      *(sys.executable, "-m", "launch.cli", "generate", str(video)),
      *("-o", folder, "--num_candidates", "1"),
      *("--num_steps", str(num_steps)),
    ]
    began = time.monotonic()
    child = os.posix_spawn(sys.executable, command, os.environ)
    _, status, usage = os.wait4(child, 0)
    if status:
      raise SystemExit(f"{' '.join(command)} failed")
    seconds = time.monotonic() - began
    (wave,) = pathlib.Path(folder, "clip").glob("*.wav")
    extra = soundfile.info(wave).frames - 60 * minutes * RATE
    memory = usage.ru_maxrss * 1024 / 1e9
  return {"memory": memory, "seconds": seconds, "extra": extra}


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("minutes", type=int, nargs="+")
  parser.add_argument("--num_steps", type=int, default=1)
  args = parser.parse_args()
  print("| minutes | largest memory | time | samples too many |")
  print("|---:|---:|---:|---:|", flush=True)
  for minutes in args.minutes:
    row = measure(minutes, args.num_steps)
    print(
      f"| {minutes} | {row['memory']:.2f} GB | {row['seconds']:.0f} s"
      f" | {row['extra']} |",
      flush=True,
    )


if __name__ == "__main__":
  main()
