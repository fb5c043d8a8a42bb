"""What a run leaves behind: rows, a progress line, speeds."""

import io
import json
import logging
import os
import socket

import jax
import pytest

from v2a_jax.basics import growing
from v2a_jax.parallel import console
from v2a_jax.training import hosts, throughput, writers


def read_rows(workdir):
  text = (workdir / "metrics.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def test_rows_of_lost_steps_are_dropped_on_resume(tmp_path):
  first = writers.JsonlWriter(tmp_path, start_step=0)
  for step in (1, 2, 3):
    first.write(step, {"train/loss": step / 2})
  first.close()
  with (tmp_path / "metrics.jsonl").open("a") as file:
    file.write('{"step": 4, "tra')  # Killed while writing.
  again = writers.JsonlWriter(tmp_path, start_step=2)
  again.write(3, {"train/loss": float("nan")})
  again.close()
  assert read_rows(tmp_path) == [
    {"step": 1, "train/loss": 0.5},
    {"step": 2, "train/loss": 1.0},
    {"step": 3, "train/loss": None},
  ]


def test_a_pipe_instead_of_a_file_of_the_run_is_refused(tmp_path):
  """Nobody writes to it, or reads it: opened as a file it is waited for."""
  for name in ("metrics.jsonl", "hosts/0.log"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / name)
  words = "{} is not a regular file"
  with pytest.raises(OSError, match=words.format("metrics.jsonl")):
    writers.JsonlWriter(tmp_path, start_step=1)
  with pytest.raises(OSError, match=words.format("metrics.jsonl")):
    growing.open_append(tmp_path / "metrics.jsonl")
  with pytest.raises(OSError, match=words.format("0.log")):
    with hosts.log_file(tmp_path):
      pass
  with pytest.raises(OSError, match=words.format("0.log")):
    with console.native_output_to(tmp_path / "hosts" / "0.log"):
      pass


def test_a_run_keeps_its_id(tmp_path):
  first = writers.run_record(tmp_path)
  assert writers.run_record(tmp_path) == first
  assert {"wandb_id", "started", "host"} == first.keys()


def test_the_progress_line():
  row = {
    "train/loss": 1.23456,
    "perf/examples_per_sec": 8.06,
    "perf/mfu": 0.12,
    "perf/eta_seconds": 62.2,
  }
  line = "step 20/100  loss 1.235  8.1 clips/s  MFU 12.0 %  ETA 1:02"
  log = io.StringIO()
  writers.ProgressWriter(100, stream=log).write(20, row)
  assert log.getvalue() == line + "\n"
  del row["perf/mfu"]
  assert "MFU n/a" in writers.format_progress(20, 100, row)

  class Terminal(io.StringIO):
    def isatty(self):
      return True

  screen = Terminal()
  progress = writers.ProgressWriter(100, stream=screen)
  progress.write(1, {})
  progress.write(2, {})
  assert "\n" not in screen.getvalue() and screen.getvalue().count("\r") == 2


def test_speed_and_utilisation(monkeypatch):
  now = [10.0]
  monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])
  meter = throughput.Throughput(batch_size=6, num_devices=2, peak=9e9)
  meter.flops_per_step = 6e9
  meter.start(1)
  # The host notices steps in pairs, but each takes a second.
  for step, seconds in ((2, 12.0), (3, 12.0), (4, 14.0), (5, 14.0)):
    now[0] = seconds
    meter.tick(step)
    row = meter.metrics()
    assert row["perf/mfu"] <= 6e9 / 9e9
  assert row["perf/step_time"] == 1.0
  assert row["perf/examples_per_sec"] == 6.0
  assert row["perf/mfu"] == pytest.approx(6e9 / 18e9)
  assert meter.eta(25) == 20.0
  with meter.paused():
    now[0] += 100.0  # an evaluation
  for step in range(6, 14):
    now[0] += 1.0
    meter.tick(step)
  assert meter.metrics()["perf/step_time"] == 1.0


def test_a_cpu_has_a_measured_peak():
  peak, source = throughput.peak_flops(jax.devices()[0])
  assert peak > 0 and source == "measured matrix product"


@pytest.mark.parametrize(
  "kind,teraflops",
  [
    # As libtpu describes v4, v5e, v5p and v6e.
    ("TPU v4", 275),
    ("TPU v5 lite", 197),
    ("TPU v5", 459),
    ("TPU v6 lite", 918),
    ("NVIDIA A100-SXM4-80GB", 312),
    ("NVIDIA A100 80GB PCIe", 312),
    ("NVIDIA H100 80GB HBM3", 989.5),
    ("NVIDIA H100 PCIe", 756),
    ("NVIDIA H100 NVL", 835.5),
    ("NVIDIA H200", 989.5),
    ("NVIDIA H200 NVL", 835.5),
    ("NVIDIA GH200 480GB", 989.5),
    ("NVIDIA B200", 2250),
    ("NVIDIA GB200", 2500),
    ("NVIDIA L4", 121),
    ("NVIDIA L40", 181),
    ("NVIDIA L40S", 362),
    ("NVIDIA A10", 125),
    ("Tesla V100-PCIE-16GB", 112),
    ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", None),
    ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
    ("NVIDIA H20", None),
    ("NVIDIA T400 4GB", None),
  ],
)
def test_the_peak_of_a_device_is_its_own(kind, teraflops):
  name = throughput.find_peak(kind)
  found = throughput.PEAK_FLOPS[name] / 1e12 if name else None
  assert found == teraflops


def test_wandb_without_a_network_is_one_line(tmp_path, monkeypatch, caplog):
  with socket.socket() as closed:
    closed.bind(("localhost", 0))
    server = f"http://localhost:{closed.getsockname()[1]}"
  monkeypatch.setenv("WANDB_BASE_URL", server)
  monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
  for name in ("http_proxy", "https_proxy", "all_proxy"):
    monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv(name.upper(), raising=False)
  writer = writers.WandbWriter(tmp_path, run_id="abc", mode="online")
  writer.write(1, {"train/loss": 1.0})
  writer.close()
  (said,) = [r.message for r in caplog.records if r.levelno >= logging.WARNING]
  assert f"wandb is not online ({server}: Connection refused)" in said
  assert list((tmp_path / "wandb").glob("offline-run-*-abc"))


def test_a_damaged_record_of_the_run_is_named_and_replaced(tmp_path, caplog):
  (tmp_path / "run.json").write_text('{"wandb_id": "a')
  record = writers.run_record(tmp_path)
  assert "run.json is not JSON" in caplog.text
  assert writers.run_record(tmp_path) == record
