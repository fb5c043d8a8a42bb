"""Several data sets read as one, in shares that the config gives."""

from collections import Counter
import dataclasses
import pathlib
import platform

import numpy as np
import pytest

from data_pipelines.loader import make_loader
from data_pipelines.schema import DataError
from tests.data_pipelines.samples import (
  loader_config,
  sound_record,
  write,
)
from v2a_jax.basics.settings import SettingError

SIZES = {"speech": 3, "music": 12}  # records; 0 to 2 and 3 to 14 of the mixture


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
  folder = tmp_path_factory.mktemp("sets")
  return tuple(
    write(folder / name, [sound_record(i) for i in range(size)])
    for name, size in SIZES.items()
  )


@pytest.fixture
def config(paths):
  config = loader_config(paths[0], num_threads=0, seed=7)
  return dataclasses.replace(config, paths=paths, weights=(3, 1))


def examples(config, steps, **where):
  with make_loader(config, **where) as loader:
    return [int(i) for _ in range(steps) for i in next(loader)["example"]]


def test_every_stretch_has_the_shares_of_the_weights(config):
  order = examples(config, 12)
  for start in range(0, 48, 8):
    speech = sum(i < 3 for i in order[start : start + 8])
    assert speech == 6
  equal = dataclasses.replace(config, weights=())
  assert Counter(examples(equal, 15)) == Counter(4 * list(range(15)))


def test_each_set_has_its_own_epochs(config):
  """The small set comes round often, each time in another order."""
  order = examples(config, 12)
  speech = [i for i in order if i < 3]
  music = [i for i in order if i >= 3]
  rounds = [tuple(speech[i : i + 3]) for i in range(0, 36, 3)]
  assert all(sorted(part) == [0, 1, 2] for part in rounds)
  assert len(set(rounds)) > 2
  assert sorted(music) == list(range(3, 15))


def test_a_mixture_is_the_same_on_any_hosts_and_from_any_step(config):
  whole = examples(config, 9)
  parts = [
    np.reshape(examples(config, 9, process_index=i, process_count=2), (9, 2))
    for i in range(2)
  ]
  assert np.concatenate(parts, axis=1).ravel().tolist() == whole
  assert examples(config, 4, start_step=5) == whole[20:]
  threads = dataclasses.replace(config, num_threads=3)
  assert examples(threads, 9) == whole


def test_validation_reads_each_set_in_its_own_order(config):
  plain = dataclasses.replace(config, shuffle=False)
  order = examples(plain, 4)
  assert [i for i in order if i < 3] == [0, 1, 2] * 4
  assert [i for i in order if i >= 3] == [3, 4, 5, 6]
  assert examples(dataclasses.replace(plain, weights=()), 3) == list(range(12))


@pytest.mark.parametrize("weight", [0, -1.0, float("nan"), float("inf")])
def test_a_set_that_would_never_be_read_is_refused_by_name(config, weight):
  with pytest.raises(SettingError, match="leave out of paths") as error:
    dataclasses.replace(config, weights=(1.0, weight))
  assert "music" in str(error.value) and "\n" not in str(error.value)


def test_a_weight_is_needed_for_each_set(config):
  with pytest.raises(SettingError, match="1 numbers for 2 paths"):
    dataclasses.replace(config, weights=(1.0,))


def test_a_set_without_records_of_the_split_is_refused(config, tmp_path):
  held_out = [sound_record(i, split="val") for i in range(4)]
  held_out += [sound_record(9)]
  other = write(tmp_path / "held", held_out)
  with pytest.raises(DataError, match="no split 'test'"):
    make_loader(dataclasses.replace(config, paths=(other, other), split="test"))


def test_a_shard_that_this_machine_lacks_is_named_with_the_machine(config):
  shard = next(pathlib.Path(config.paths[1]).glob("*.array_record-*"))
  hidden = shard.rename(shard.with_name("hidden"))
  try:
    with pytest.raises(DataError) as error:
      make_loader(config, process_index=1, process_count=2)
  finally:
    hidden.rename(shard)
  line = str(error.value)
  assert shard.name in line and platform.node() in line and "\n" not in line


def test_the_time_of_reading_is_counted_by_stage(config):
  with make_loader(config) as loader:
    next(loader)
    before = loader.spent.copy()
    batch = next(loader)
  assert "spent" not in batch
  read, video, sound, text, copied = (loader.spent - before)[:, 0]
  assert min(read, sound, text, copied) > 0 and video == 0


def test_batches_are_decoded_by_all_cores_unless_told_otherwise(
  config, monkeypatch
):
  def workers(cores, **changes):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(cores))
    changes = dict(num_threads=-1, num_workers=-1) | changes
    return dataclasses.replace(config, **changes).workers

  assert workers(1) == (0, 1) and workers(8) == (0, 8)
  assert workers(64) == (8, 8) and workers(20) == (2, 10)
  assert workers(16, num_workers=0) == (0, 16)
  assert workers(16, num_workers=3, num_threads=1) == (3, 1)
