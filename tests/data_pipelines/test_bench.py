"""How fast a data set is read, by stage: `v2a data bench`."""

import dataclasses
import re

import numpy as np
import pytest

from data_pipelines.bench import measure
from tests.data_pipelines.samples import RATE, clip_record, film_config, write
from tests.launch.commands import v2a
from v2a_jax import media


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  records = [clip_record(i, seconds=2.0) for i in range(8)]
  return write(tmp_path_factory.mktemp("data") / "ds", records)


def test_what_is_measured_adds_up(path):
  config = film_config(path, fps=10, frame_size=(16, 24))
  speed = measure(config, batches=2)
  assert min(speed.wall.values()) > 0
  assert speed.core_seconds <= sum(speed.wall.values()) * 1.1
  frames, sound = 10 * 16 * 24 * 3, RATE * 4
  assert frames + sound < speed.batch_bytes < frames + sound + 500
  blind = measure(dataclasses.replace(config, frames=False), batches=2)
  assert blind.wall["video"] == 0
  (line,) = [s for s in speed.lines(64, 0.5) if "clips a step" in s]
  cores = float(re.search(r"([\d.]+) cores", line)[1])
  assert cores == pytest.approx(128 * speed.core_seconds, abs=0.06)


def test_the_speed_is_that_of_decoding_not_of_a_cache(tmp_path):
  noise = np.random.default_rng(0).integers(0, 255, (20, 240, 320, 3), np.uint8)
  film = media.encode_video(noise, fps=20)
  records = [clip_record(i, video=film) for i in range(4)]
  path = write(tmp_path / "ds", records)
  config = film_config(path, cache_mb=500, num_threads=0)
  speed = measure(config, batches=3)
  assert speed.clips_per_second < 3 / sum(speed.wall.values())


def test_the_command_says_what_bounds_and_how_many_cores(path):
  run = v2a(
    *("data", "bench", path, "--config=configs/diffusion_tiny.py"),
    *("--config.data.seconds=1.0", "--batches=1", "--step_time=0.2"),
  )
  assert run.returncode == 0, run.stderr
  assert re.search(r"^bound: decode: (pictures|sound)$", run.stdout, re.M)
  assert re.search(r"40.0 clips/s: [\d.]+ cores and [\d.]+ MB/s", run.stdout)
