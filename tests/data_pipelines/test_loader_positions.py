"""The position of a loader is one integer, whoever reads and from where."""

from collections import Counter
import dataclasses
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import zlib

import numpy as np
import pytest

from data_pipelines.loader import make_loader
from data_pipelines.schema import DataError
from tests.data_pipelines.samples import (
  assert_same,
  clip_record,
  film_config,
  loader_config,
  sound_record,
  write,
)
from tests.processes import ENVIRONMENT, all_end

NUM, BATCH = 11, 4  # an epoch is no whole number of batches


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  records = [sound_record(i, audio_caption=f"a {i}") for i in range(NUM)]
  return write(tmp_path_factory.mktemp("sets") / "ds", records)


@pytest.fixture
def config(path):
  return loader_config(path, gain_db=6.0, num_threads=0, seed=5)


def read(config, steps, **where):
  with make_loader(config, **where) as loader:
    return [next(loader) for _ in range(steps)]


def examples(batches):
  return [int(i) for batch in batches for i in batch["example"]]


def joined(parts):
  """Batches of several processes, side by side."""
  return [
    {key: np.concatenate([part[key] for part in step]) for key in step[0]}
    for step in zip(*parts)
  ]


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("start", [0, 1, 3, 9])
def test_any_number_of_processes_starts_anywhere(config, count, start):
  """Crops, captions and gains included."""
  whole = read(config, 12)
  parts = [
    read(
      config,
      12 - start,
      start_step=start,
      process_index=index,
      process_count=count,
    )
    for index in range(count)
  ]
  assert_same(joined(parts), whole[start:])


def test_a_loader_goes_on_where_another_stopped(config):
  whole = read(config, 9)
  batches, step = [], 0
  for steps in (1, 3, 2, 3):
    with make_loader(config, start_step=step) as loader:
      assert loader.step == step
      batches += [next(loader) for _ in range(steps)]
      step = loader.step
  assert step == 9
  assert_same(batches, whole)


def test_buffered_batches_do_not_count(config):
  """Threads read ahead; the position is what was handed out."""
  ahead = dataclasses.replace(config, num_threads=4)
  with make_loader(ahead) as loader:
    next(loader)
    step = loader.step
  assert step == 1
  assert_same(read(ahead, 3, start_step=1), read(config, 4)[1:])


def test_every_epoch_holds_every_record_once(config):
  """Also where a batch holds the end of one epoch and the start of another."""
  epochs = 4
  order = examples(read(config, epochs * NUM // BATCH))
  parts = [order[i * NUM : (i + 1) * NUM] for i in range(epochs)]
  for part in parts:
    assert Counter(part) == Counter(range(NUM))
  assert len({tuple(part) for part in parts}) == epochs


def test_without_shuffling_every_epoch_is_in_order(config):
  plain = dataclasses.replace(config, shuffle=False)
  order = examples(read(plain, NUM))
  assert order == [i % NUM for i in range(NUM * BATCH)]


def test_what_is_random_is_random_in_every_epoch(config):
  """The same record comes with other gains and captions later."""
  batches = read(config, 60)
  loudest = {}
  for batch in batches:
    for index, audio in zip(batch["example"], batch["audio"]):
      loudest.setdefault(int(index), set()).add(float(audio.max()))
  assert set(loudest) == set(range(NUM))
  assert all(len(levels) > 10 for levels in loudest.values())
  prompts = {tuple(row) for batch in batches for row in batch["prompt"]}
  assert len(prompts) > NUM


@pytest.mark.parametrize("seed", [0, 4294967295])
def test_every_seed_in_range_is_an_order_of_its_own(config, seed):
  other = read(dataclasses.replace(config, seed=seed), 3)
  assert examples(other) != examples(read(config, 3))
  assert_same(other, read(dataclasses.replace(config, seed=seed), 3))


def test_a_batch_may_be_larger_than_an_epoch(config):
  large = dataclasses.replace(config, batch_size=2 * NUM)
  (batch,) = read(large, 1)
  assert Counter(examples([batch])) == {i: 2 for i in range(NUM)}


def test_another_interpreter_reads_the_same(config, tmp_path):
  (tmp_path / "config").write_bytes(pickle.dumps(config))
  script = (
    "import pickle, sys\n"
    "from data_pipelines.loader import make_loader\n"
    "config = pickle.load(open(sys.argv[1], 'rb'))\n"
    "with make_loader(config, start_step=2) as loader:\n"
    "  batches = [next(loader) for _ in range(3)]\n"
    "pickle.dump(batches, open(sys.argv[2], 'wb'))\n"
  )
  subprocess.run(
    [sys.executable, "-c", script, tmp_path / "config", tmp_path / "batches"],
    check=True,
  )
  batches = pickle.loads((tmp_path / "batches").read_bytes())
  assert_same(batches, read(config, 5)[2:])


def test_an_error_in_a_worker_process_is_one_line(config, tmp_path):
  records = [sound_record(i) for i in range(4)]
  records[2] = sound_record(2, audio=b"no sound")
  bad = write(tmp_path / "bad", records)
  config = dataclasses.replace(
    config,
    **dict(paths=(bad,), num_workers=1, shuffle=False, max_bad_fraction=0.0),
  )
  with make_loader(config) as loader:
    with pytest.raises(DataError) as error:
      next(loader)
  message = str(error.value)
  assert message.startswith(f"{bad}: record 2 of 'train': ")
  assert "max_bad_fraction=0.001" in message and "\n" not in message


def test_a_bad_record_counts_once_however_often_it_is_read(config, tmp_path):
  """One of eight is bad, 0.125, wherever it comes in the second epoch."""
  records = [sound_record(i) for i in range(8)]
  records[5] = sound_record(5, audio=b"no sound")
  bad = write(tmp_path / "bad", records)
  config = dataclasses.replace(config, paths=(bad,), max_bad_fraction=0.13)
  with make_loader(config) as loader:
    batches = [next(loader) for _ in range(10)]
    assert loader.bad == [f"{bad}: record 5 of 'train'"]
  for batch in batches:
    is_bad = batch["example"] == 5
    assert not batch["audio"][is_bad].any()
    assert (batch["duration"] == 0).tolist() == is_bad.tolist()
    assert not batch["prompt_mask"][is_bad].any()
    assert (batch["presence"][is_bad] == 2).all()
  twice = dataclasses.replace(config, batch_size=16)
  with make_loader(twice) as loader:
    assert Counter(examples([next(loader)])) == {i: 2 for i in range(8)}
    assert len(loader.bad) == 1
  records[6] = sound_record(6, audio=b"no sound")
  worse = write(tmp_path / "worse", records)
  strict = dataclasses.replace(config, paths=(worse,), max_bad_fraction=0.24)
  with make_loader(strict) as loader:
    with pytest.raises(DataError, match="over max_bad_fraction=0.24"):
      for _ in range(10):
        next(loader)


def test_a_bad_record_does_not_end_a_run(config, tmp_path, caplog):
  """Without a setting; the others are those of a data set without it."""
  records = [sound_record(i) for i in range(8)]
  good = write(tmp_path / "good", records)
  records[5] = sound_record(5, audio=b"no sound")
  bad = write(tmp_path / "bad", records)
  place = lambda path: dataclasses.replace(config, paths=(path,))
  found, wanted = read(place(bad), 6), read(place(good), 6)
  assert examples(found) == examples(wanted)
  for a, b in zip(found, wanted):
    others = a["example"] != 5
    np.testing.assert_array_equal(a["audio"][others], b["audio"][others])
  assert "record 5 of 'train'" in caplog.text


def test_workers_that_are_killed_are_started_again(config, caplog):
  """The batches are those of an undisturbed loader."""
  config = dataclasses.replace(config, num_workers=2)
  wanted, found = read(config, 20), []
  with make_loader(config) as loader:
    for step in range(20):
      if step == 3:
        workers = multiprocessing.active_children()
        assert workers
        os.kill(workers[0].pid, signal.SIGKILL)
      found.append(next(loader))
  assert_same(found, wanted)
  said = [x for x in caplog.messages if "was killed" in x]
  assert said and "at most 3 times" in said[0]


ORPHANS = """
import sys, pickle, multiprocessing, time
from data_pipelines.loader import make_loader
if __name__ == "__main__":
  config = pickle.load(open(sys.argv[1], "rb"))
  loader = make_loader(config)
  next(loader)  # The second worker may start after the first batch.
  while len(workers := multiprocessing.active_children()) < 2:
    time.sleep(0.01)
  print(*[worker.pid for worker in workers], flush=True)
  time.sleep(100)
"""


def test_workers_end_with_the_process_they_work_for(config, tmp_path):
  config = dataclasses.replace(config, num_workers=2)
  (tmp_path / "config").write_bytes(pickle.dumps(config))
  script = tmp_path / "script.py"
  script.write_text(ORPHANS)
  process = subprocess.Popen(
    [sys.executable, script, tmp_path / "config"],
    stdout=subprocess.PIPE,
    env=ENVIRONMENT,
  )
  workers = list(map(int, process.stdout.readline().split()))
  assert len(workers) == 2
  process.kill()
  process.wait()
  assert all_end(workers)


KEEPS = """
import sys, pickle, tracemalloc, zlib
from data_pipelines.loader import make_loader
if __name__ == "__main__":
  config = pickle.load(open(sys.argv[1], "rb"))
  loader = make_loader(config)
  first = next(loader)
  tracemalloc.start()
  batch = next(loader)
  print(batch["frames"].nbytes, tracemalloc.get_traced_memory()[1])
  loader.close()
  print(zlib.crc32(batch["frames"]))  # It is kept to the end of the program.
"""


def test_batches_of_workers_are_not_copied_and_outlast_them(tmp_path):
  path = write(tmp_path / "ds", [clip_record(i) for i in range(4)])
  config = film_config(path, frame_size=(160, 160), num_workers=1)
  (tmp_path / "config").write_bytes(pickle.dumps(config))
  script = tmp_path / "script.py"
  script.write_text(KEEPS)
  run = subprocess.run(
    [sys.executable, script, tmp_path / "config"],
    capture_output=True,
    env=ENVIRONMENT,
    text=True,
    timeout=60,
  )
  assert run.returncode == 0 and not run.stderr
  size, allocated, digest = map(int, run.stdout.split())
  assert size == 4 * 5 * 160 * 160 * 3 and allocated < size / 2
  alone = dataclasses.replace(config, num_workers=0)
  assert zlib.crc32(read(alone, 2)[1]["frames"]) == digest
