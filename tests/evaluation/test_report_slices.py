"""Scores of parts of the set: class, what is heard, sight, duration, motion."""

import json

import numpy as np
import pytest
from report_results import load, write_results

from v2a_jax.evaluation.report import page as report
from v2a_jax.evaluation.report import slices
from v2a_jax.evaluation.report.columns import columns_of


def test_parts_of_the_set_are_scored_by_class_and_speech(tmp_path):
  path = write_results(tmp_path / "a", "run", with_media=0, clips=14)
  content = json.loads(path.read_text())
  for i, clip in enumerate(content["clips"]):
    clip["label"] = ("dog", "<drum>")[i < 6] if i < 12 else "rare"
  path.write_text(json.dumps(content))
  run = load(path)
  columns, parts = slices.slices([run], columns_of([run]), colours=6)
  assert [column.id for column in columns] == ["onset_f1_50"]
  assert [(part.name, part.n) for part in parts] == [
    *(("<drum>", 6), ("dog", 6)),
    *(("with speech", 7), ("without speech", 7)),
  ]
  scores = [c["scores"]["generated"]["onset_f1_50"] for c in run["clips"][:6]]
  assert float(parts[0].cells[0].text) == pytest.approx(
    np.mean(scores), abs=0.01
  )
  page = report.write_report([path], tmp_path / "r.html")
  assert "&lt;drum&gt;" in page.read_text()
  assert "| dog | run | 6 | 0." in page.with_suffix(".md").read_text()


def test_parts_of_the_set_are_what_is_heard_and_in_sight(tmp_path):
  path = write_results(tmp_path / "a", "run", with_media=0, clips=16)
  content = json.loads(path.read_text())
  for i, clip in enumerate(content["clips"]):
    clip["transcript"] = "one two" if i < 4 else ""
    clip["heard"] = {"speech": i < 5, "music": i >= 12}
    clip["on_screen"] = None if i < 2 else 3 * (i % 4 > 0)
    clip["off_screen"] = None if i < 2 else i % 2
  path.write_text(json.dumps(content))
  run = load(path)
  _, parts = slices.slices([run], columns_of([run]), colours=6)
  found = {part.name: part.n for part in parts}
  assert found == {
    "with speech": 5,
    "without speech": 11,
    "with music": 4,
    "effects alone": 7,
    "all in sight": 4,
    "some out of sight": 7,
  }
  scores = [
    clip["scores"]["generated"]["onset_f1_50"] for clip in run["clips"][12:]
  ]
  (music,) = (part for part in parts if part.name == "with music")
  assert float(music.cells[0].text) == pytest.approx(np.mean(scores), abs=0.01)


def test_what_nothing_has_listened_to_is_neither_speech_nor_effects(tmp_path):
  path = write_results(tmp_path / "a", "run", with_media=0, clips=16)
  content = json.loads(path.read_text())
  for i, clip in enumerate(content["clips"]):
    clip["transcript"] = "one two" if i < 4 else ""
    clip["heard"] = {"music": i >= 12}
  path.write_text(json.dumps(content))
  run = load(path)
  _, parts = slices.slices([run], columns_of([run]), colours=6)
  found = {part.name: part.n for part in parts}
  assert found == {"with speech": 4, "with music": 4}


def test_parts_of_the_set_are_halved_by_duration_and_motion(tmp_path):
  path = write_results(tmp_path / "a", "run", with_media=0, clips=12)
  content = json.loads(path.read_text())
  for i, clip in enumerate(content["clips"]):
    clip["duration"] = 4.0 if i < 8 else 2.5
    clip["motion_rate"] = None if i < 2 else 0.5 * i
    clip["transcript"] = ""
    clip["heard"] = {"speech": False}
    clip["scores"]["generated"]["onset_f1_50"] = i / 12
  path.write_text(json.dumps(content))
  run = load(path)
  _, parts = slices.slices([run], columns_of([run]), colours=6)
  assert {part.name: part.n for part in parts} == {
    "without speech": 12,
    "up to 2.5 s long": 4,
    "over 2.5 s long": 8,
    "up to 3 motion peaks a second": 5,
    "over 3 motion peaks a second": 5,
  }
  # Later clips score higher: short ones and lively ones are among them.
  shades = {part.name: part.cells[0].shade for part in parts}
  assert shades["up to 2.5 s long"] == 1.0 and shades["over 2.5 s long"] < 0.5
  lively, still = (
    "over 3 motion peaks a second",
    "up to 3 motion peaks a second",
  )
  assert shades[lively] == 0.75 and shades[still] < shades["without speech"]
  page = report.write_report([path], tmp_path / "r.html").read_text()
  assert 'class="number heat" style="--shade: 1.0"' in page
