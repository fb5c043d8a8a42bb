"""What does reading clips cost, against what it cannot be without?

  python -m benchmarks.data_reading --rounds 9

Ratios of times that are measured in turn, in each round, with their quartiles;
computing time where one thread works, wall-clock time where loaders do. Clips
are made here (456 x 256 pixels, 25 frames a second, H.264 and stereo sound of
44.1 kHz), or taken from `--clips FOLDER`, which should hold files of 10 s.

* a read over decoding alone: `read_video` to the model's size, over a loop that
  decodes every frame and does nothing with it; and the floor of that, a loop
  that scales each frame and keeps none
* a long file: the first 8 s of 60 s over the same 8 s as a file
* peak memory of reading frames of their own size, over the bytes returned
* source clips over data sets of `v2a data precompute --media=h264|raw`
* a batch of cached frames, over one copy of its bytes
* PyTorch's DataLoader with PyAV over our loader, both with as many workers as
  cores, the same scaling and the same frames (needs torch)

On two cores of an AMD EPYC that others used too, 5 to 9 rounds (quartiles):

  read at 64 pixels, 12.5 fps / decode only    0.94 (0.92 to 0.97)
  read at 112 pixels, 12.5 fps / decode only   1.08 (0.98 to 1.11)
  read at 112 pixels, 25 fps / decode only     1.68 (1.66 to 1.70)
  decode and scale alone / decode only         1.45 (1.39 to 1.50)
  first 8 s of 60 s / of 8 s                   1.06 (1.05 to 1.10)
  peak memory / bytes returned                 1.01
  source clips / --media=h264                  2.30 (2.26 to 2.32)
  source clips / --media=raw                   8.84 (8.65 to 8.92)
  a copy of a batch / a batch of cached clips  0.50 (0.49 to 0.52)
  PyTorch / ours, both on source clips         1.05 (0.85 to 1.23)
  PyTorch on source clips / ours on raw ones   2.18 (1.96 to 2.45)

PyTorch's loader has the same decoder, scaler and number of processes as ours has
threads, so on the same files neither can be much faster.
"""

import argparse
import functools
import io
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import av
from av.video.reformatter import Interpolation, VideoReformatter
import numpy as np
import soxr

from data_pipelines import derive, stored
from data_pipelines.assemble import OutputOptions
from data_pipelines.build import build_folder
from data_pipelines.example import decode_record
from data_pipelines.loader import make_loader
from data_pipelines.loader_config import LoaderConfig
from data_pipelines.source import open_source
from v2a_jax import media

SECONDS, FPS, SIZE, RATE = 8.0, 25.0, 112, 16_000
BATCH = 8


def make_clip(path: pathlib.Path, seconds: float, seed: int = 0) -> None:
  """Writes a clip whose picture moves and is not simple to encode."""
  rng = np.random.default_rng(seed)
  big = rng.integers(0, 256, (24, 40, 3), dtype=np.uint8)
  big = big.repeat(24, 0).repeat(24, 1).astype(np.float32)
  grain = rng.normal(0, 4, (8, 256, 456, 3)).astype(np.float32)
  count = round(seconds * FPS)
  x, y = 100 + 90 * np.sin(np.arange(count) / 13), 150 + np.arange(count) % 150

  def frame(i):
    part = big[int(y[i]) : int(y[i]) + 256, int(x[i]) : int(x[i]) + 456]
    return np.clip(part + grain[i % 8], 0, 255).astype(np.uint8)

  media.encode_video(
    np.stack([frame(i) for i in range(count)]),
    fps=FPS,
    crf=26,
    gop_seconds=2.0,
    audio=rng.normal(0, 0.1, (round(seconds * 44_100), 2)),
    sample_rate=44_100,
    path=path,
  )


def decode_only(data: bytes) -> None:
  """Decodes every frame."""
  with av.open(io.BytesIO(data)) as container:
    stream = container.streams.video[0]
    stream.thread_count = 1
    for _ in container.decode(stream):
      pass


def decode_and_scale(data: bytes) -> None:
  """Decodes every frame and scales it; what no reader of them can be without."""
  scaler = VideoReformatter()
  with av.open(io.BytesIO(data)) as container:
    stream = container.streams.video[0]
    stream.thread_count = 1
    for frame in container.decode(stream):
      _scaled(scaler, frame)


def _scaled(scaler: VideoReformatter, frame: av.VideoFrame) -> av.VideoFrame:
  return scaler.reformat(
    frame,
    width=SIZE,
    height=SIZE,
    format="rgb24",
    interpolation=Interpolation.AREA,
    threads=1,
  )


def computing(call) -> float:
  """Returns the computing seconds of a call."""
  start = time.process_time()
  call()
  return time.process_time() - start


def wall(call) -> float:
  """Returns the wall-clock seconds of a call."""
  start = time.perf_counter()
  call()
  return time.perf_counter() - start


def compare(name, top, base, *, rounds, clock=computing) -> None:
  """Prints the ratio of two calls, measured in turn."""
  top(), base()
  pairs = [(clock(top), clock(base)) for _ in range(rounds)]
  ratios = [a / b for a, b in pairs]
  low, middle, high = statistics.quantiles(ratios, n=4)
  a, b = (statistics.median(times) * 1e3 for times in zip(*pairs))
  print(
    f"{name}: {middle:.2f} (quartiles {low:.2f} and {high:.2f};"
    f" {a:.1f} and {b:.1f} ms)",
    flush=True,
  )


def peak_memory(path: str) -> None:
  """Prints the growth of memory over the bytes of a read; in its own process."""
  media.read_video(path, duration=0.2)
  before = _memory("VmRSS")
  video = media.read_video(path)
  grown = _memory("VmHWM") - before
  print(f"peak memory / bytes returned: {grown / video.frames.nbytes:.2f}")


def _memory(name: str) -> int:
  """Returns an entry of this process's memory in bytes."""
  text = pathlib.Path("/proc/self/status").read_text()
  return int(text.partition(f"{name}:")[2].split()[0]) * 1024


def loader_config(path: str, **changes) -> LoaderConfig:
  """Returns the loader's settings for a data set."""
  values = dict(
    paths=(path,),
    split="all",
    batch_size=BATCH,
    seconds=SECONDS,
    fps=FPS,
    frame_size=SIZE,
    sample_rate=RATE,
    crop="start",
    shuffle=False,
  )
  return LoaderConfig(**values | changes)


def decoder(path: str):
  """Returns a function that decodes all records of a data set, one by one."""
  source, config = open_source(path, "all"), loader_config(path)
  records = list(source)
  tokenizer = config.load_tokenizer()
  window = config.window
  out = np.zeros((window.num_frames, SIZE, SIZE, 3), np.uint8)

  def decode():
    for index, record in enumerate(records):
      decode_record(
        record,
        window=window,
        tokenizer=tokenizer,
        index=index,
        out=out,
      )

  return decode


class TorchClips:
  """The clips as a data set of PyTorch, read by PyAV."""

  def __init__(self, path: str):
    self._source = open_source(path, "all")

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int):
    import torch

    record, scaler = self._source[index], VideoReformatter()
    frames = np.zeros((round(SECONDS * FPS), SIZE, SIZE, 3), np.uint8)
    with av.open(io.BytesIO(record["video"])) as container:
      stream = container.streams.video[0]
      stream.thread_count = 1
      for i, frame in enumerate(container.decode(stream)):
        if i == len(frames):
          break
        frames[i] = _scaled(scaler, frame).to_ndarray()
    with av.open(io.BytesIO(record["audio"])) as container:
      rate = container.streams.audio[0].rate
      parts = [
        frame.to_ndarray().reshape(frame.samples, -1) / 2.0**15
        for frame in container.decode(audio=0)
      ]
    sound = np.concatenate(parts).mean(1, dtype=np.float32)
    sound = soxr.resample(sound, rate, RATE)[: round(SECONDS * RATE)]
    audio = np.zeros(round(SECONDS * RATE), np.float32)
    audio[: len(sound)] = sound
    return torch.from_numpy(frames), torch.from_numpy(audio)


def against_torch(path: str, fast: str, rounds: int) -> None:
  """Compares whole loaders, which have started."""
  try:
    import torch
  except ImportError:
    print("torch is not installed: no comparison with its DataLoader")
    return
  cores = len(os.sched_getaffinity(0))
  torch.set_num_threads(1)
  clips = TorchClips(path)
  endless = torch.utils.data.RandomSampler(
    clips, replacement=True, num_samples=10**6
  )
  theirs = torch.utils.data.DataLoader(
    clips, batch_size=BATCH, sampler=endless, num_workers=cores
  )
  frames, _ = clips[0]
  with make_loader(loader_config(path)) as ours:
    np.testing.assert_array_equal(next(ours)["frames"][0], frames)

  def timed(loader) -> float:
    """Times batches of a loader that runs alone, but for those in store."""
    for _ in range(6):
      next(loader)
    return wall(lambda: [next(loader) for _ in range(8)])

  for name, data in (("source clips", path), ("--media=raw", fast)):
    ratios = []
    for _ in range(max(rounds // 2, 3)):
      iterator = iter(theirs)
      seconds = timed(iterator)
      del iterator  # ends its workers
      with make_loader(loader_config(data, shuffle=True)) as ours:
        ratios.append(seconds / timed(ours))
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(
      f"torch DataLoader + PyAV on source clips / ours on {name}:"
      f" {middle:.2f} (quartiles {low:.2f} and {high:.2f})",
      flush=True,
    )


def main() -> None:
  """Prints the ratios."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--rounds", type=int, default=9)
  parser.add_argument("--clips", type=pathlib.Path)
  parser.add_argument("--peak", help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.peak:
    peak_memory(args.peak)
    return
  ratio = functools.partial(compare, rounds=args.rounds)
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    long, short = folder / "long.mp4", folder / "short.mp4"
    make_clip(long, 60.0), make_clip(short, 8.0)
    clips = args.clips
    if clips is None:
      clips = folder / "clips"
      clips.mkdir()
      for seed in range(4):
        make_clip(clips / f"{seed}.mp4", 10.0, seed)
    files = [path.read_bytes() for path in sorted(clips.glob("*.mp4"))]
    for size, fps in ((64, 12.5), (112, 12.5), (112, 25.0)):
      ratio(
        f"read at {size} pixels, {fps:g} fps / decode only",
        lambda size=size, fps=fps: [
          media.read_video(data, max_fps=fps, grid=0.0, size=(size, size))
          for data in files
        ],
        lambda: [decode_only(data) for data in files],
      )
    ratio(
      f"decode and scale to {SIZE} pixels alone / decode only",
      lambda: [decode_and_scale(data) for data in files],
      lambda: [decode_only(data) for data in files],
    )
    read = lambda path: media.read_video(
      path, duration=8.0, max_fps=FPS, grid=0.0, size=(SIZE, SIZE)
    )
    ratio(
      "first 8 s of a file of 60 s / of 8 s",
      lambda: read(long),
      lambda: read(short),
    )
    peak = [sys.executable, "-m", "benchmarks.data_reading", "--peak", short]
    subprocess.run(peak, check=True)
    quiet = dict(output=OutputOptions(), log=lambda _: None)
    source = folder / "source"
    build_folder(clips, out=source, **quiet)
    window = loader_config(str(source)).window
    for form in ("h264", "raw"):
      shrink = functools.partial(stored.shrink, form=form, window=window)
      derive.copy_with(
        str(source),
        out=folder / form,
        change=shrink,
        facts={stored.KEY: stored.facts_of(form, window)},
        **quiet,
      )
      ratio(
        f"source clips / --media={form}",
        decoder(str(source)),
        decoder(str(folder / form)),
      )
    config = loader_config(str(source), cache_mb=4000, num_threads=0)
    with make_loader(config) as loader:
      batch = next(loader)
      next(loader)
      ratio(
        "a copy of a batch's bytes / a batch of cached clips",
        lambda: [np.array(array) for array in batch.values()],
        lambda: next(loader),
      )
    against_torch(str(source), str(folder / "raw"), args.rounds)


if __name__ == "__main__":
  main()
