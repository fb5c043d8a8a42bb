"""Counts cuts that are found where clips are joined, and others that are not there.

  python benchmarks/cuts.py CLIPS [--orders 6] [--size 32]

The first two seconds of each clip, those named below left out because they have
cuts of their own, are joined in random orders. Where PySceneDetect is installed
(`pip install scenedetect-headless`), its AdaptiveDetector sees the same frames.
"""

import argparse
import pathlib
import tempfile
import time

import numpy as np

from v2a_jax import media
from v2a_jax.soundtrack import reel, shots

FPS, NEAR = 25, 0.05  # Hz, seconds
HAVE_CUTS = ("bbb_0_30", "tf_carving_ice", "vta_0Bp8c3PfAAA")


def of_library(video: media.Video, end: float) -> list[float]:
  """Finds cuts by PySceneDetect's AdaptiveDetector; shots are as long as ours."""
  import scenedetect

  detector, found, last = scenedetect.AdaptiveDetector(min_scene_len=0), [], 0.0
  for i, frame in enumerate(video.frames):
    bgr = np.ascontiguousarray(frame[..., ::-1])
    for cut in detector.process_frame(
      scenedetect.FrameTimecode(i, float(FPS)), bgr
    ):
      when = float(video.times[cut.frame_num])
      if min(when - last, end - when) >= shots.SHORTEST:
        found.append(when)
        last = when
  return found


def of_project(video: media.Video, end: float) -> list[float]:
  """Finds cuts as `--shots` does."""
  return shots.cuts(shots.content(video.frames), video.times, end)


def main() -> None:
  """Runs it."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("clips", type=pathlib.Path)
  parser.add_argument("--orders", type=int, default=6)
  parser.add_argument("--size", type=int, default=32)
  args = parser.parse_args()
  read = dict(duration=2.0, max_fps=FPS, size=(64, 64))
  parts = [
    media.read_video(path, **read).frames
    for path in sorted(args.clips.iterdir())
    if path.stem not in HAVE_CUTS
  ]
  finders = {"project": of_project}
  try:
    import scenedetect  # noqa: F401

    finders["PySceneDetect"] = of_library
  except ModuleNotFoundError:
    pass
  rng, totals = (
    np.random.default_rng(0),
    {name: [0, 0, 0.0] for name in finders},
  )
  for _ in range(args.orders):
    order = rng.permutation(len(parts))
    ends = np.cumsum([len(parts[i]) for i in order]) / FPS
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder, "joined.mp4")
      frames = np.concatenate([parts[i] for i in order])
      media.encode_video(frames, fps=FPS, path=path)
      film = reel.Reel(path, ends[-1], fps=FPS, size=(args.size, args.size))
      pieces = [film.frames(x, x + 60) for x in np.arange(0, ends[-1], 60.0)]
    video = media.Video(
      frames=np.concatenate([piece.frames for piece in pieces]),
      times=np.concatenate([piece.times for piece in pieces]),
    )
    for name, find in finders.items():
      began = time.process_time()
      found = np.array(find(video, float(ends[-1])))
      total = totals[name]
      total[2] += time.process_time() - began
      near = np.abs(found[:, None] - ends[:-1]) < NEAR
      total[0] += near.any(axis=0).sum()
      total[1] += (~near.any(axis=1)).sum()
  joins = args.orders * (len(parts) - 1)
  for name, (hits, others, seconds) in totals.items():
    print(f"{name}: {hits} of {joins} joins, {others} others, {seconds:.1f} s")


if __name__ == "__main__":
  main()
