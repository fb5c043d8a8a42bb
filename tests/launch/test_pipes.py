"""Commands that are given a pipe where they expect a file; none waits for it."""

import os
import shutil

import numpy as np
import pytest

from launch import cli
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


@pytest.mark.parametrize(
  "args",
  [
    ["watermark", "detect", "pipe"],
    ["generate", "--from", "pipe", "-o", "out"],
    ["generate", "pipe", "-o", "out"],
    ["report", "pipe", "-o", "out.html"],
    ["data", "build", ".", "--captions", "pipe", "-o", "out"],
  ],
)
def test_a_pipe_as_input_is_refused(args, tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "clip.mp4").touch()
  pipe(tmp_path / "pipe")
  assert "pipe" in refusal(capsys, *args)
