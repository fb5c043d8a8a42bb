"""The record of a run, written for wandb and TensorBoard after training."""

import json
import pathlib
import struct

import pytest

from launch.sweep import plan
from tests.launch.commands import refused, succeeds
from tests.training import event_rows
from v2a_jax.training.writers import run_record


@pytest.fixture
def run(tmp_path, capsys):
  """The workdir of a run of a sweep, as training leaves it."""
  folder = tmp_path / "depths"
  words = ["sweep", "plan", "--quick", "--config=configs/diffusion_tiny.py"]
  succeeds(capsys, *words, "--sweep=depth", "-o", folder)
  workdir = folder / plan.read(folder).points[0].name
  workdir.mkdir()
  rows = [
    {"step": 10, "train/loss": 2.0, "perf/mfu": None},
    {"step": 20, "train/loss": 1.0},
    {"step": 20, "eval/loss": 1.5},
  ]
  text = "".join(json.dumps(row) + "\n" for row in rows)
  (workdir / "metrics.jsonl").write_text(text)
  (workdir / "config.json").write_text('{"seed": 7}')
  return workdir


def records(file):
  """Yields the messages of a wandb file: LevelDB's log format after a header."""
  from wandb.proto import wandb_internal_pb2

  data, at, parts = file.read_bytes(), 7, b""
  while at < len(data):
    if 32768 - at % 32768 < 7:
      at += 32768 - at % 32768  # What is left of a block is padding.
      continue
    _, length, kind = struct.unpack("<IHB", data[at : at + 7])
    parts += data[at + 7 : at + 7 + length]
    at += 7 + length
    if kind in (1, 4):  # Whole, or the last part.
      yield wandb_internal_pb2.Record.FromString(parts)
      parts = b""


def recorded(folder):
  """Returns the run, its config and its history as wandb has them."""
  (file,) = pathlib.Path(folder).glob("run-*.wandb")
  found = list(records(file))
  about = next(r.run for r in found if r.WhichOneof("record_type") == "run")
  history = []
  for record in found:
    if record.WhichOneof("record_type") == "history":
      row = {
        "".join(item.nested_key) or item.key: json.loads(item.value_json)
        for item in record.history.item
      }
      mine = lambda key: key == "_step" or key[0] != "_"
      history.append({k: v for k, v in row.items() if mine(k)})
  config = {u.key: json.loads(u.value_json) for u in about.config.update}
  return about, config, history


def test_wandb_gets_history_config_group_and_tags_once(run, capsys):
  for _ in range(2):
    shown = succeeds(capsys, "metrics", run, "--to", "wandb")
  words = shown.split()
  assert words[:3] == ["next:", "wandb", "sync"]
  (folder,) = (run / "wandb_from_metrics" / "wandb").glob("offline-run-*")
  assert pathlib.Path(words[3]) == folder
  about, config, history = recorded(folder)
  assert about.run_id == run_record(run)["wandb_id"]
  assert about.display_name == run.name
  assert about.run_group == "depths"
  assert list(about.tags) == ["diffusion_tiny", "depth=2"]
  assert config["config"] == {"seed": 7}
  assert history == [
    {"_step": 10, "train/loss": 2.0},
    {"_step": 20, "train/loss": 1.0, "eval/loss": 1.5},
  ]


def test_tensorboard_gets_the_rows_once(run, capsys):
  for _ in range(2):
    shown = succeeds(capsys, "metrics", run, "--to", "tensorboard")
  assert shown == f"next: tensorboard --logdir {run / 'tensorboard'}\n"
  found = event_rows.scalars(run, "train/loss")
  assert found == [(10, 2.0), (20, 1.0)]
  assert event_rows.scalars(run, "eval/loss") == [(20, 1.5)]


def test_what_is_no_run_or_target_is_one_line(run, tmp_path, capsys):
  line = refused(capsys, "metrics", tmp_path, "--to", "wandb")
  assert f"no {tmp_path / 'metrics.jsonl'}: name a workdir" in line
  line = refused(capsys, "metrics", run, "--to", "tensorbord")
  assert "did you mean tensorboard?" in line
