"""Measures how fast a data set is read, by stage, and what bounds it."""

from collections.abc import Iterator
import dataclasses
import math
import os
import time

import numpy as np

from data_pipelines.loader import make_loader
from data_pipelines.loader_config import LoaderConfig
from data_pipelines.manifest import read_manifest
from data_pipelines.stages import STAGES
from v2a_jax.basics import files
from v2a_jax.basics.paths import as_path, is_remote

_WHAT = {
  "read": "disk: reading records",
  "video": "decode: pictures",
  "sound": "decode: sound",
  "text": "text: tokenizing",
  "copy": "copy: writing the batch",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed:
  """What reading costs.

  Attributes:
    wall: seconds a clip of each stage of `STAGES`, by one thread.
    cpu: computing seconds of them.
    clips_per_second: of the loader as it is configured.
    workers: processes and threads of the loader.
    disk_bytes: bytes of a record.
    batch_bytes: bytes of an example in memory.
  """

  wall: dict[str, float]
  cpu: dict[str, float]
  clips_per_second: float
  workers: tuple[int, int]
  disk_bytes: float
  batch_bytes: float

  @property
  def core_seconds(self) -> float:
    """Computing seconds a clip."""
    return sum(self.cpu.values())

  @property
  def bound(self) -> str:
    """The stage that takes longest, in words."""
    return _WHAT[max(self.wall, key=lambda name: self.wall[name])]

  def lines(
    self, batch_size: int, step_seconds: float | None = None
  ) -> Iterator[str]:
    """Yields the measurement as lines for people.

    Args:
      batch_size: examples a step.
      step_seconds: wanted time of a step; None for none.
    """
    total = sum(self.wall.values())
    yield "stage                      ms a clip   of it computing   clips/s"
    for name in STAGES:
      wall, cpu = self.wall[name], self.cpu[name]
      rate = 1 / wall if wall else math.inf
      yield (
        f"{_WHAT[name]:26} {1e3 * wall:9.2f}   {1e3 * cpu:15.2f}   {rate:7.0f}"
      )
    yield f"{'all, by one core':26} {1e3 * total:9.2f} {1 / total:27.1f}"
    processes, threads = self.workers
    how = f"{processes} processes of {threads}" if processes else f"{threads}"
    cores = len(os.sched_getaffinity(0))
    yield (
      f"the loader, {how} threads on {cores} cores:"
      f" {self.clips_per_second:.1f} clips/s"
    )
    yield (
      f"a clip is {self.disk_bytes / 1e6:.2f} MB on disk,"
      f" {self.batch_bytes / 1e6:.2f} MB in a batch"
    )
    yield f"bound: {self.bound}"
    if step_seconds:
      needed = batch_size / step_seconds
      yield (
        f"{batch_size} clips a step of {step_seconds:g} s are"
        f" {needed:.1f} clips/s: {needed * self.core_seconds:.1f} cores and"
        f" {needed * self.disk_bytes / 1e6:.1f} MB/s from disk"
      )


def measure(config: LoaderConfig, *, batches: int = 4) -> Speed:
  """Reads batches, first by one thread, then as the config says.

  Shards are dropped from memory before, so that the first reads are those of
  the disk, as far as the system allows, and nothing decoded is kept: the speed is
  that of the first epoch, or of a data set larger than `cache_mb`.

  Args:
    config: how the data are read.
    batches: number of batches to read each time.

  Raises:
    DataError: see `make_loader`.
  """
  _forget(config.paths)
  config = dataclasses.replace(config, cache_mb=0.0)
  alone = dataclasses.replace(config, num_threads=0, num_workers=0)
  with make_loader(alone) as loader:
    next(loader)  # Opens shards and tokenizers.
    before = loader.spent.copy()
    for _ in range(batches):
      batch = next(loader)
    spent = (loader.spent - before) / (batches * config.batch_size)
  _forget(config.paths)
  with make_loader(config) as loader:
    ahead = 2 * max(math.prod(loader.workers), 1)
    for _ in range(ahead):  # What is read ahead is not measured.
      next(loader)
    start = time.perf_counter()
    for _ in range(batches + ahead):
      next(loader)
    seconds = time.perf_counter() - start
  shards = [s for path in config.paths for s in read_manifest(path)["shards"]]
  count = sum(shard["records"] for shard in shards)
  return Speed(
    wall=dict(zip(STAGES, spent[:, 0])),
    cpu=dict(zip(STAGES, spent[:, 1])),
    clips_per_second=(batches + ahead) * config.batch_size / seconds,
    workers=config.workers,
    disk_bytes=sum(shard["bytes"] for shard in shards) / max(count, 1),
    batch_bytes=sum(map(_nbytes, batch.values())) / config.batch_size,
  )


def _nbytes(array: np.ndarray) -> int:
  return array.nbytes


def _forget(paths) -> None:
  """Asks the system to drop the shards of data sets from memory."""
  for path in paths:
    if is_remote(path):
      continue
    for shard in read_manifest(path)["shards"]:
      file = files.open_regular(as_path(path) / shard["file"])
      try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
      finally:
        os.close(file)
