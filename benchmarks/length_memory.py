"""Measures memory and time of `v2a generate` against the length of the video.

  python benchmarks/length_memory.py 1 5 10 20 40 [--num_steps 1] [FLAG...]

For each length in minutes it makes a video of a moving square, generates one
soundtrack with the bundled model in a process of its own, or as flags of `v2a
generate` say, such as --num_candidates=4. It prints the most memory that the
command and its reading processes held together, ten times a second; how much of
files was in memory as well, which the system takes back where it needs room; the
time; and by how many samples the sound differs in length.
"""

import argparse
import os
import pathlib
import subprocess
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


def held(root: int) -> tuple[int, int]:
  """Returns memory of a process and all below it: its own, of files; bytes."""
  parents, sizes = {}, {}
  for folder in pathlib.Path("/proc").glob("[0-9]*"):
    try:
      lines = (folder / "status").read_text().splitlines()
    except OSError:  # It has ended.
      continue
    fields = dict(line.split(":", 1) for line in lines)
    if "RssAnon" in fields:
      pid = int(folder.name)
      parents[pid] = int(fields["PPid"])
      sizes[pid] = [
        1024 * int(fields[name].split()[0]) for name in ("RssAnon", "RssFile")
      ]
  found, new = set(), {root}
  while new:
    found |= new
    new = {pid for pid, parent in parents.items() if parent in new} - found
  return tuple(sum(sizes[pid][i] for pid in found & {*sizes}) for i in (0, 1))


def measure(minutes: int, num_steps: int, flags: list[str]) -> dict[str, float]:
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
      *("--num_steps", str(num_steps), *flags),
    ]
    began, memory, mapped = time.monotonic(), 0, 0
    process = subprocess.Popen(command)
    while process.poll() is None:
      own, of_files = held(process.pid)
      memory, mapped = max(memory, own), max(mapped, of_files)
      time.sleep(0.1)
    if process.returncode:
      raise SystemExit(f"{' '.join(command)} failed")
    seconds = time.monotonic() - began
    wave = next(pathlib.Path(folder, "clip").glob("*.wav"))
    extra = soundfile.info(wave).frames - 60 * minutes * RATE
  return {
    "memory": memory / 1e9,
    "mapped": mapped / 1e9,
    "seconds": seconds,
    "extra": extra,
  }


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("minutes", type=int, nargs="+")
  parser.add_argument("--num_steps", type=int, default=1)
  args, flags = parser.parse_known_args()
  print("| minutes | memory | of files | time | samples too many |")
  print("|---:|---:|---:|---:|---:|", flush=True)
  for minutes in args.minutes:
    row = measure(minutes, args.num_steps, flags)
    print(
      f"| {minutes} | {row['memory']:.2f} GB | {row['mapped']:.2f} GB"
      f" | {row['seconds']:.0f} s | {row['extra']} |",
      flush=True,
    )


if __name__ == "__main__":
  main()
