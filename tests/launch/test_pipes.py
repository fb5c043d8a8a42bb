"""Commands that are given a pipe where they expect a file; none waits for it."""

import os
import shutil

import numpy as np
import pytest

from launch import cli
from tests.data_pipelines.samples import sound_record, write
from v2a_jax import media
from v2a_jax.weights import bundle


def refusal(capsys, *args) -> str:
  assert cli.main([str(arg) for arg in args]) == 2
  said = capsys.readouterr().err
  assert said.count("\n") == 1, said
  return said


def pipe(path):
  path.unlink(missing_ok=True)
  os.mkfifo(path)
  return path


@pytest.mark.parametrize(
  "name, words",
  [
    ("weights.safetensors", "neither checkpoints nor weights.safetensors"),
    ("tokenizer.model", "tokenizer.model is"),
    ("sha256.json", "sha256.json does not hold the sha256"),
  ],
)
def test_a_bundle_with_a_pipe_is_refused(name, words, tmp_path, capsys):
  folder = shutil.copytree(bundle.find("diffusion_tiny"), tmp_path / "bundle")
  pipe(folder / name)
  frames = np.zeros((4, 16, 16, 3), np.uint8)
  clip = media.encode_video(frames, fps=4.0)
  (tmp_path / "clip.mp4").write_bytes(clip)
  out = tmp_path / "out"
  args = ("generate", tmp_path / "clip.mp4", "--checkpoint", folder, "-o", out)
  assert words in refusal(capsys, *args)


def test_a_data_set_with_a_pipe_is_refused(tmp_path, capsys):
  pipe(tmp_path / "manifest.json")
  words = "manifest.json is not a regular file"
  assert words in refusal(capsys, "data", "report", tmp_path)
  config = "--config=configs/diffusion_tiny.py"
  paths = f"--config.data.paths=('{tmp_path}',)"
  workdir = f"--workdir={tmp_path / 'run'}"
  assert words in refusal(capsys, "train", config, paths, workdir)


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
  records = [sound_record(0), sound_record(1)]
  return write(tmp_path_factory.mktemp("sound") / "ds", records)


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_a_data_set_that_TFDS_would_open_a_pipe_of_is_refused(
  name, data_set, tmp_path, capsys
):
  folder = shutil.copytree(data_set, tmp_path / "ds")
  pipe(folder / name)
  words = f"{name} is not a regular file"
  assert words in refusal(capsys, "data", "report", folder)


@pytest.mark.parametrize("name", ["journal.jsonl", "build.json", "lock", "x"])
def test_a_build_does_not_go_on_with_a_pipe(name, tmp_path, capsys):
  clips, work = tmp_path / "clips", tmp_path / "ds.building"
  clips.mkdir()
  media.write_wav(clips / "a.wav", np.full((16_000, 1), 0.1), 16_000)
  work.mkdir()
  pipe(work / name)
  words = f"{name} is not a regular file"
  assert words in refusal(capsys, "data", "build", clips, "-o", tmp_path / "ds")


def test_an_archive_that_is_a_pipe_is_refused(tmp_path, capsys):
  pipe(tmp_path / "clips.tar")
  said = refusal(capsys, "data", "build", tmp_path, "-o", tmp_path / "ds")
  assert "clips.tar is not a regular file" in said


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples/2/clip.wav"])
def test_a_run_with_a_pipe_is_refused(name, tmp_path, capsys):
  (tmp_path / "samples" / "2").mkdir(parents=True)
  (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train/loss": 2.0}\n')
  pipe(tmp_path / name)
  words = f"{name.split('/')[-1]} is not a regular file"
  args = ("metrics", tmp_path, "--to", "tensorboard")
  assert words in refusal(capsys, *args)


@pytest.mark.parametrize(
  "args",
  [
    ["watermark", "detect", "pipe"],
    ["generate", "--from", "pipe", "-o", "out"],
    ["generate", "pipe", "-o", "out"],
    ["report", "pipe", "-o", "out.html"],
    ["data", "build", ".", "--captions", "pipe", "-o", "out"],
    ["train", "--config=pipe", "--workdir=out"],
  ],
)
def test_a_pipe_as_input_is_refused(args, tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "clip.mp4").touch()
  pipe(tmp_path / "pipe")
  assert "pipe" in refusal(capsys, *args)
