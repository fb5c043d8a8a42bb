"""`v2a data build`: files with several sound tracks, and silent ones."""

import json

import numpy as np
import pytest

from launch import cli
from tests.data_pipelines.samples import read, write_clip
from tests.launch.commands import succeeds
from tests.media.media_synthetic import write_tracks
from v2a_jax import media


@pytest.fixture
def folder(tmp_path):
  """A clip with one track, one with two, and a silent one."""
  root = tmp_path / "clips"
  write_clip(root / "one.mp4")
  write_tracks(root / "two.mkv", tones=(400, 900), languages=("eng", "deu"))
  write_clip(root / "mute.mp4", audio=np.zeros((16_000, 1), np.float32))
  return root


def test_the_build_says_which_track_is_read_and_another_can_be_chosen(
  folder, tmp_path, capsys
):
  out = tmp_path / "ds"
  shown = succeeds(capsys, "data", "build", folder, "-o", out)
  assert "1 with sound track 0 of 2 (eng)" in shown
  args = ("data", "build", folder, "--audio_track=1", "-o", tmp_path / "other")
  shown = succeeds(capsys, *args)
  assert "1 with sound track 1 of 2 (deu)" in shown
  assert "dropped files: 2 only 1 sound track" in shown
  (record,) = read(tmp_path / "other").values()
  sound = media.read_audio(record["audio"], sample_rate=48_000).samples[:, 0]
  loudest = np.argmax(np.abs(np.fft.rfft(sound))) * 48_000 / len(sound)
  assert round(loudest, -2) == 900


def test_a_track_that_no_file_has_is_one_line(folder, tmp_path, capsys):
  (folder / "one.mp4").unlink()
  (folder / "mute.mp4").unlink()
  out = tmp_path / "ds"
  args = ("data", "build", folder, "--audio_track=2", "-o", out)
  assert cli.main([str(arg) for arg in args]) == 2
  error = capsys.readouterr().err
  assert "1 only 2 sound tracks" in error and error.count("\n") == 1
  assert not out.exists()


def test_silent_clips_are_left_out_when_asked(folder, tmp_path, capsys):
  args = ("data", "build", folder, "--drop_silent", "-o", tmp_path / "ds")
  shown = succeeds(capsys, *args)
  assert "dropped files: 1 silent" in shown
  assert sorted(read(tmp_path / "ds")) == ["one", "two"]
  counts = json.loads((tmp_path / "ds" / "manifest.json").read_text())["counts"]
  assert counts["items_seen"] == 3 and counts["items_dropped"] == 1
