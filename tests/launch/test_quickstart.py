"""The quick start: its steps make what the next one needs, and are resumed."""

import dataclasses
import json
import pathlib

import pytest

from launch import quickstart
from v2a_jax import media
from v2a_jax.weights import bundle

SMOKE = quickstart.SCALES["smoke"]


def test_held_out_clips_are_written_without_sound(tmp_path):
  road = quickstart.Road(
    tmp_path / "out",
    dataclasses.replace(SMOKE, scenes=6, held_out=0.34),
  )
  road.render()
  videos = road.write_silent()
  assert len(videos) == 2
  for video in videos:
    info = media.probe(video)
    assert info.has_video and not info.has_audio
    assert info.duration == pytest.approx(4.0, abs=0.1)


def test_a_failing_step_ends_with_its_status(capfd):
  with pytest.raises(SystemExit) as end:
    quickstart.v2a("report", "no/such.json", "-o", "x.html")
  assert end.value.code == 2
  shown = capfd.readouterr()
  assert "$ v2a report no/such.json" in shown.out
  assert "no/such.json" in shown.err


@pytest.mark.slow
def test_the_whole_road(tmp_path, capfd):
  """Both arms trained, judged and used; then nothing is done twice."""
  try:
    bundle.find("codec_tiny")
  except bundle.BundleError as error:
    pytest.skip(f"{error}")
  args = ["--scale=smoke", f"--out={tmp_path}"]
  assert quickstart.main(args) == 0
  shown = capfd.readouterr().out
  page = tmp_path / "report.html"
  assert page.exists() and str(page) in shown
  arms = sorted((tmp_path / "eval").iterdir())
  assert len(arms) == 2
  for arm in arms:
    results = json.loads((arm / "results.json").read_text())
    assert {row["name"] for row in results["rows"]} >= {
      *("generated", "ground_truth", "codec", "shuffled_video"),
      *("silence", "noise"),
    }
  videos = sorted(tmp_path.glob("soundtracks/*/*/*.mp4"))
  assert len(videos) == 6
  for video in videos:
    info = media.probe(video)
    assert info.has_video and info.has_audio
  before = {p: p.stat().st_mtime_ns for p in files(tmp_path)}

  assert quickstart.main(args) == 0
  assert capfd.readouterr().out.count("done already") == 7
  after = {p: p.stat().st_mtime_ns for p in files(tmp_path)}
  silent = tmp_path / "silent"
  assert [p for p in after if after[p] != before.get(p)] == sorted(
    p for p in after if p.parent == silent
  )


def files(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(p for p in folder.rglob("*") if p.is_file())
