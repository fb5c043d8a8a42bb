"""`v2a train` and what follows it, with a model of a few thousand numbers."""

import json
import os
import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest

from launch import cli
from tests import small_runs
from tests.launch.commands import refused, succeeds, v2a
from v2a_jax.evaluation.schema import SCHEMA
from v2a_jax.training.restore import restore_params
from v2a_jax.weights import bundle

SMALL = small_runs.as_flags(
  small_runs.SMALL
  | {
    "data.batch_size": 8,
    "model.joint_depth": 1,
    "log_every": 1,
    "eval_every": 0,
  }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A folder with a data set in it."""
  folder = tmp_path_factory.mktemp("train")
  args = ["--num=6", "--seconds=2", "--fps=8", "--size=32", "--held_out=0.34"]
  args += ["--workers=1", "--vocab_size=512"]
  assert cli.main(["data", "scenes", "-o", str(folder / "scenes"), *args]) == 0
  return folder


def train(folder, *overrides):
  return [
    *("train", "--config=configs/diffusion_tiny.py", *SMALL),
    f"--config.data.paths=('{folder / 'scenes'}',)",
    f"--workdir={folder / 'run'}",
    *overrides,
  ]


@pytest.fixture(scope="module")
def trained(folder):
  """A workdir in which a step was taken, by a process of its own."""
  run(folder, "--config.num_train_steps=1")
  return folder / "run"


def run(folder, *overrides):
  """Trains in a process and returns what it says on the console.

  Compiled programs are kept for the next one.
  """
  env = {
    "JAX_COMPILATION_CACHE_DIR": str(folder / "programs"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  }
  process = v2a(*train(folder, *overrides), env=env)
  assert process.returncode == 0, process.stderr
  return process.stderr


def losses(workdir: pathlib.Path) -> dict[int, float]:
  rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
  return {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}


def test_a_run_leaves_checkpoint_metrics_config_and_tokenizer(trained):
  assert list(losses(trained)) == [1]
  assert 0 < losses(trained)[1] < 20
  assert (trained / "checkpoints" / "1").is_dir()
  assert (trained / "tokenizer.model").stat().st_size > 1000
  config = json.loads((trained / "config.json").read_text())
  assert config["model"]["width"] == 16
  assert config["data"]["frame_size"] == [16, 16]
  assert config["num_train_steps"] == 1


@pytest.mark.parametrize(
  "override,words",
  [
    (
      "--config.model.width=32",
      "was trained with config.model.width=16, not 32",
    ),
    (
      "--config.codec=patches:16000:64:1",
      "was trained with config.codec='codec_tiny'",
    ),
    ("--config.data.target=codes", "does not go with config.model.name='dit'"),
  ],
)
def test_a_workdir_is_not_continued_with_another_model(
  override, words, trained, capsys
):
  before = (trained / "config.json").read_bytes()
  line = refused(capsys, *train(trained.parent, override))
  assert words in line
  assert (trained / "config.json").read_bytes() == before


def test_the_same_command_continues_a_run(trained):
  first = losses(trained)[1]
  said = run(trained.parent, "--config.num_train_steps=2").splitlines()
  line = (
    "goes on from step 1 with other settings: config.num_train_steps: 1 -> 2"
  )
  assert any(x.startswith(f"{trained} {line}") for x in said)
  assert list(losses(trained)) == [1, 2]
  assert losses(trained)[1] == first
  assert sorted(os.listdir(trained / "checkpoints")) == ["1", "2"]


def test_a_bundle_holds_what_a_run_has_learned(trained, tmp_path, capsys):
  out = tmp_path / "mine"
  command = ("weights", "export", trained, "-o")
  assert succeeds(capsys, *command, out, "--dtype=bfloat16") == f"{out}\n"
  average = restore_params(trained).state["params"]
  for name, array in bundle.read_arrays(out).items():
    if name in average:
      assert array.dtype == jnp.bfloat16
      np.testing.assert_array_equal(array, average[name].astype(jnp.bfloat16))
  names = {"weights.safetensors", "config.json", "tokenizer.model"}
  assert names <= {path.name for path in out.iterdir()}
  card = (out / "CARD.md").read_text()
  assert re.search(r"`v2a train`: (\d) of \1 steps, 8 clips a step", card)
  assert "2 procedural scenes, seed 0 | CC0-1.0 (2)" in card
  assert f"v2a eval {trained} --set DATA --degraded" in card
  line = refused(capsys, *command, tmp_path / "x", "--step=9")
  assert "9" in line and str(trained) in line


def test_the_card_tells_what_was_measured_of_these_weights(
  trained, tmp_path, capsys
):
  def export(name, sha256):
    """Exports with an evaluation of the weights of a digest."""
    score = {"value": 0.5, "low": 0.25, "high": 0.75}
    entry = {"label": "Onset F1", "unit": "", "role": "quality"}
    results = {
      **{"schema": SCHEMA, "name": "a", "identity": {}, "clips": []},
      "checkpoint": {"path": "runs/a", "step": 1, "sha256": sha256},
      "set": {"path": "data/x", "split": "test", "n": 48},
      "metrics": {"onset_f1_50ms": entry},
      "rows": [{"name": "generated", "metrics": {"onset_f1_50ms": score}}],
    }
    folder = tmp_path / name
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(results))
    flags = ("--measured", folder, "-o", folder / "bundle")
    return "weights", "export", trained, *flags

  succeeds(capsys, *export("own", restore_params(trained).sha256))
  card = (tmp_path / "own" / "bundle" / "CARD.md").read_text()
  assert "48 clips of `data/x`" in card and "0.5 [0.25, 0.75]" in card
  line = refused(capsys, *export("other", "0" * 64))
  assert "runs/a at step 1 is not of these weights" in line
  assert not (tmp_path / "other" / "bundle").exists()


def test_features_are_written_by_the_encoder_of_a_run(
  trained, tmp_path, capsys
):
  scenes, out = trained.parent / "scenes", tmp_path / "cached"
  shown = succeeds(
    capsys,
    "data",
    "precompute",
    scenes,
    "--add",
    "features",
    "--checkpoint",
    trained,
    "-o",
    out,
  )
  manifest = json.loads((out / "manifest.json").read_text())
  dim = manifest["features"]["dim"]
  assert f"--config.data.features={dim} " in shown
  assert f"--config.init_from={trained} " in shown
  assert f"--config.data.paths=\"('{out}',)\"" in shown


def test_a_page_shows_what_is_in_a_data_set(folder, tmp_path, capsys):
  page = tmp_path / "scenes.html"
  shown = succeeds(capsys, "data", "report", folder / "scenes", "-o", page)
  assert shown == f"{page}\n"
  assert "<video" in page.read_text()
  shown = succeeds(capsys, "data", "report", folder / "scenes")
  assert shown == f"{folder / 'scenes' / 'report.html'}\n"


def test_a_data_set_is_not_replaced_unless_told(folder, capsys):
  scenes = folder / "scenes"
  again = ["data", "scenes", "-o", scenes, "--num=6", "--seconds=2", "--fps=8"]
  again += ["--size=32", "--held_out=0.34", "--workers=1", "--vocab_size=512"]
  assert "is already built" in succeeds(capsys, *again)
  assert cli.main([str(word) for word in [*again, "--fps=12"]]) == 2
  line = capsys.readouterr().err
  assert str(scenes) in line and "overwrite" in line


@pytest.mark.parametrize(
  "flags,words",
  [
    (["--num_processes=2"], "set all three"),
    (["--coordinator=127.0.0.1:1", "--process_id=0"], "set all three"),
    (["--process_id=-1"], "-1 is not a whole number in [0, inf)"),
    (["--config.lost_seconds=0.5"], "a timeout (lost) of 0.5 s is too short"),
  ],
)
def test_processes_that_cannot_find_one_another_say_what_is_missing(
  flags, words, folder, capsys
):
  args = train(folder, "--distributed", *flags)
  shown = v2a(*args) if "three" in words else None
  line = shown.stderr if shown else refused(capsys, *args)
  assert words in line
  assert line.startswith("v2a train: ") and line.count("\n") == 1
