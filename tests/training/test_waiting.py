"""A run that waits for its data says so, and which part of reading is slow."""

import json
import logging
import re

import pytest

from tests.training import toy_training
from v2a_jax.training.loop import train
from v2a_jax.training.waiting import DataWait, complaint


class SlowLoader(toy_training.Loader):
  """Takes longer than a step, nearly all of it for pictures."""

  stage_seconds = {"read": 0.0, "video": 0.0, "sound": 0.0}

  def __next__(self):
    self.stage_seconds = {
      "read": self.stage_seconds["read"] + 0.005,
      "video": self.stage_seconds["video"] + 0.05,
      "sound": 0.0,
    }
    return super().__next__()


def rows_of(workdir):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_a_run_that_waits_for_pictures_says_so(tmp_path, caplog):
  def open_loader(split, *, step, index, count):
    return SlowLoader(step, index, count, delay=0.06)

  toy = toy_training.experiment(num_train_steps=8, open_loader=open_loader)
  with caplog.at_level(logging.WARNING):
    train(toy, tmp_path)
  rows = [row for row in rows_of(tmp_path) if "perf/data_wait" in row]
  waits = [row["perf/data_wait"] for row in rows]
  assert len(waits) > 3 and all(wait >= 0.06 for wait in waits)
  said = [line for line in caplog.messages if "for data" in line]
  assert len(said) == 1  # not at each row
  assert "decoding pictures" in said[0] and "v2a data bench" in said[0]


def test_a_run_that_does_not_wait_is_quiet(tmp_path, caplog):
  waits = DataWait(toy_training.Loader(0, 0, 1))
  with waits.reading():
    pass
  with caplog.at_level(logging.WARNING):
    assert waits.row(1.0)["perf/data_wait"] < 0.2
  assert waits.row(1.0) == {} and not caplog.messages


@pytest.mark.parametrize(
  "parts,slow",
  [
    (
      {"read": 3.0, "video": 0.9, "move": 0.1},
      "75%.*reading records from disk",
    ),
    (
      {"read": 0.0, "video": 0.1, "move": 0.9},
      "90%.*moving batches to the dev",
    ),
  ],
)
def test_the_slowest_part_is_named(parts, slow):
  scale = sum(parts.values())
  parts = {name: value / scale for name, value in parts.items()}
  line = complaint(0.5, 0.8, parts)
  assert line.startswith("a step waits 0.5 s of 0.8 s for data")
  assert re.search(slow, line)
