"""Event files as TensorBoard reads them: restarts, rewinding, the record."""

import json
import os
import pathlib

import numpy as np
import pytest
import soundfile

from tests.training import event_rows
from v2a_jax.basics.paths import as_path
from v2a_jax.training import event_files, history

pytest.importorskip("tensorboardX")


def begin(workdir, step):
  config = {"config": {"seed": step}}
  return event_files.TensorBoardWriter(workdir, start_step=step, config=config)


def test_restarts_and_rewinding_double_no_step(tmp_path):
  first = begin(tmp_path, 0)
  for step in (1, 2, 3):
    first.write(step, {"train/loss": step, "perf/mfu": float("nan")})
  first.rewind(2)  # Back to good weights.
  first.write(3, {"train/loss": 30.0})
  # It is killed, and goes on from step 1: nothing was closed.
  again = begin(tmp_path, 1)
  again.write(2, {"train/loss": 20.0})
  again.close()
  assert event_rows.scalars(tmp_path, "train/loss") == [(1, 1.0), (2, 20.0)]
  seen = event_rows.read(tmp_path)
  assert seen.Tags()["scalars"] == ["train/loss"]
  text = seen.Tensors("config/text_summary")[-1].tensor_proto.string_val[0]
  assert '"seed": 1' in text.decode()


def test_a_full_disk_costs_no_row(tmp_path):
  writer = begin(tmp_path, 0)
  (file,) = (tmp_path / "tensorboard").iterdir()
  descriptors = pathlib.Path("/proc/self/fd")
  (mine,) = [
    int(fd.name)
    for fd in descriptors.iterdir()
    if fd.exists() and fd.resolve() == file.resolve()
  ]
  with open("/dev/full", "wb") as full:
    os.dup2(full.fileno(), mine)
  for step in range(1, 1001):  # More than any buffer holds.
    with pytest.raises(OSError, match="No space left"):
      writer.write(step, {"train/loss": step})
  with open(file, "ab") as there:
    os.dup2(there.fileno(), mine)
  writer.write(1001, {"train/loss": 1001})
  writer.close()
  rows = event_rows.scalars(tmp_path, "train/loss")
  assert [step for step, _ in rows] == [*range(1, 1002)]


def test_the_record_is_written_anew_each_time(tmp_path):
  rows = [{"step": s, "train/loss": s / 2, "perf/mfu": None} for s in (1, 2)]
  lines = [json.dumps(row) for row in rows] + ['{"step": 3, "tra']
  (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
  for _ in range(2):
    history.to_tensorboard(tmp_path)
  assert event_rows.scalars(tmp_path, "train/loss") == [(1, 0.5), (2, 1.0)]
  assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_a_run_on_a_store_has_its_event_files_there(
  gs_url, tmp_path, monkeypatch
):
  monkeypatch.setenv("V2A_CACHE", str(tmp_path / "cache"))
  workdir = as_path(f"{gs_url}/run")
  (workdir / "metrics.jsonl").write_text('{"step": 1, "train/loss": 0.5}\n')
  sound = tmp_path / "clip_0.wav"
  soundfile.write(sound, np.full(800, 0.5), 8000)
  (workdir / "samples" / "1" / sound.name).upload(sound)
  for _ in range(2):
    folder = history.to_tensorboard(workdir)
  (file,) = folder.iterdir()
  (tmp_path / "tensorboard").mkdir()
  file.download(tmp_path / "tensorboard" / file.name)
  assert event_rows.scalars(tmp_path, "train/loss") == [(1, 0.5)]
  (event,) = event_rows.read(tmp_path).Audio("samples/clip_0")
  assert event.step == 1
