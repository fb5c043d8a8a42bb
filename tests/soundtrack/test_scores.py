"""Scores of takes: quality, agreement with the prompt, the judge of timing."""

import json

import numpy as np
import pytest
from scipy import signal

from configs import diffusion_tiny
from data_pipelines import scenes
from tests.evaluation.test_clap_score import (  # noqa: F401
  PROMPT,
  published,
  transformers,
)
from tests.launch.commands import refused
from tests.soundtrack.test_tracker import RATE, _tracker
from v2a_jax import media
from v2a_jax.evaluation import clips as clips_lib
from v2a_jax.evaluation import folders, metrics, runner, systems
from v2a_jax.evaluation.metrics import base
from v2a_jax.evaluation.options import Options
from v2a_jax.hearing.clap import Clap
from v2a_jax.soundtrack import judging, reel, scoring


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
  return _tracker(diffusion_tiny, tmp_path_factory.mktemp("diffusion"))


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
  """A scene with its true sound that the judge was not trained on."""
  made = scenes.make_scene(91_000_000_000, action="strike")
  path = tmp_path_factory.mktemp("scene") / "clip.mp4"
  media.encode_video(
    made.frames, fps=25, path=path, audio=made.audio, sample_rate=RATE
  )
  return path, made


def test_quality_falls_with_each_fault():
  rng = np.random.default_rng(0)
  fine = 0.1 * rng.standard_normal((4 * RATE, 1)).astype(np.float32)
  good = scoring.quality(fine, RATE)
  assert good > 0.99
  until = lambda share: (
    fine * (np.arange(len(fine)) < share * len(fine))[:, None]
  )
  low_pass = signal.butter(10, 4000, fs=RATE, output="sos")
  faults = {
    "silent": until(0.1),
    "clipped": np.clip(fine, -0.2, 0.2),
    "overdriven": np.clip(10 * fine, -1, 1),
    "dull": signal.sosfilt(low_pass, fine, axis=0),
  }
  for name, sound in faults.items():
    assert scoring.quality(sound, RATE) < 0.75 * good, name
  # A sound of single events is no fault, silence is one.
  assert scoring.quality(until(0.5), RATE) == pytest.approx(good, abs=0.01)
  assert scoring.quality(0 * fine, RATE) == 0
  assert scoring.quality(fine[:0], RATE) == 0
  # Level and a short length are no faults.
  assert scoring.quality(0.1 * fine, RATE) == pytest.approx(good, abs=0.01)
  assert scoring.quality(fine[:1600], RATE) > 0.99


def test_quality_of_a_long_sound_is_that_of_all_its_minutes():
  rng = np.random.default_rng(0)
  long = 0.1 * rng.standard_normal((80 * RATE, 1)).astype(np.float32)
  long[60 * RATE :] = 0
  assert scoring.quality(long, RATE) == pytest.approx(60 / 80, abs=0.01)


def test_the_judge_scores_as_it_evaluates(scene, monkeypatch):
  path, made = scene
  watched = judging.Watched(path, made.seconds)
  late = np.roll(made.audio, RATE // 4, axis=0)
  true, moved = (watched.in_time(x, RATE) for x in (made.audio, late))
  assert true > moved + 0.3
  clip = clips_lib.Clip(
    id="clip",
    video=path.read_bytes(),
    audio=made.audio,
    seconds=made.seconds,
  )
  sample = base.Sample(
    clip=clip, waveform=made.audio, sample_rate=RATE, features={}
  )
  judged = metrics.JudgedSync().get_state(sample)
  assert true == pytest.approx(judged, abs=1e-3)
  # A long video is judged piece by piece.
  for module in (judging, reel):
    monkeypatch.setattr(module, "PIECE", made.seconds / 2)
  pieces = judging.Watched(path, made.seconds)
  assert pieces.in_time(made.audio, RATE) > pieces.in_time(late, RATE) + 0.3


def evaluated(takes_folder, truth_folder, out) -> tuple[dict, list[str]]:
  folder = folders.read_folder(takes_folder, "the outputs")
  truth = clips_lib.open_truth(truth_folder)
  pairs = folders.match(truth.ids(), folder.names).pairs
  lines = []
  content = runner.evaluate(
    systems.Outputs("ours", folder, pairs),
    data=truth,
    out=out,
    options=Options(num_clips=None, rows=("generated",)),
    metrics=[
      metrics.JudgedSync(),
      metrics.SilentClips(),
      metrics.OnsetF1(milliseconds=50),
    ],
    log=lines.append,
  )
  return content, lines


def test_takes_are_not_evaluated_by_what_chose_them(tracker, scene, tmp_path):
  path, _ = scene
  takes = tracker(path, num_candidates=2, rank_by=("sync_judge", "quality"))
  done = takes.save(tmp_path / "takes", mark=False, sign=False)
  sidecar = json.loads(done.sidecar.read_text())
  assert sidecar["ranked_by"] == "sync_judge+quality"
  assert sidecar["chosen_by"].keys() == {"sync_judge", "quality"}
  assert sidecar["chosen_by"]["sync_judge"].startswith("sync_tiny ")
  for row in sidecar["candidates"]:
    assert row["scores"].keys() == {"motion_onset", "quality", "sync_judge"}
  content, lines = evaluated(tmp_path / "takes", path.parent, tmp_path / "a")
  assert content["metrics"].keys() == {"onset_f1_50ms"}
  reason = content["skipped"]["judged_sync"]
  assert "chosen by sync_judge" in reason
  assert "chosen by quality" in content["skipped"]["silent"]
  assert f"not measured: judged_sync: {reason}" in lines
  # Chosen by what no metric hears or sees, they are measured.
  sidecar["chosen_by"] = {"motion_onset": ""}
  done.sidecar.write_text(json.dumps(sidecar))
  content, _ = evaluated(tmp_path / "takes", path.parent, tmp_path / "b")
  assert {"judged_sync", "silent"} <= content["metrics"].keys()


def test_a_sidecar_that_does_not_say_is_refused(tmp_path):
  for folder in ("truth", "ours/clip"):
    (tmp_path / folder).mkdir(parents=True)
  sound = np.random.default_rng(0).normal(0, 0.1, (RATE, 1))
  media.write_wav(tmp_path / "truth/clip.wav", sound, RATE)
  media.write_wav(tmp_path / "ours/clip/clip__c01_s0000.wav", sound, RATE)
  evaluated(tmp_path / "ours", tmp_path / "truth", tmp_path / "a")
  (tmp_path / "ours/clip/clip.json").write_text("{}")
  with pytest.raises(ValueError, match="by what takes were chosen"):
    evaluated(tmp_path / "ours", tmp_path / "truth", tmp_path / "b")


def test_takes_are_ranked_by_agreement_with_the_prompt(
  tracker,
  scene,
  published,  # noqa: F811
  tmp_path,
):
  _, folder = published
  ask = dict(prompt=PROMPT, rank_by=("prompt",), clap=str(folder))
  takes = tracker(scene[0], num_candidates=3, **ask)
  network = Clap(folder)
  agreement = [
    network.agreement(PROMPT, take.samples, RATE) for take in takes.candidates
  ]
  assert agreement == sorted(agreement, reverse=True)
  assert agreement[0] > agreement[-1]
  assert [take.score for take in takes.candidates] == pytest.approx(agreement)
  done = takes.save(tmp_path, sign=False)
  sidecar = json.loads(done.sidecar.read_text())
  assert sidecar["chosen_by"] == {"prompt": f"{folder.name} {network.sha256}"}


def test_without_the_network_the_prompt_is_no_score(scene, tmp_path, capsys):
  args = ["generate", str(scene[0]), "-o", str(tmp_path / "out"), "-p", "rain"]
  args += ["--rank_by", "prompt"]
  assert "needs the folder of LAION's CLAP" in refused(capsys, *args)
  for gone in (str(tmp_path / "nowhere"), "mmaudio:16k"):
    line = refused(capsys, *args, "--clap", gone)
    assert gone in line and "CLAP" in line
  assert "tokenizer.json" in refused(capsys, *args, "--clap", str(tmp_path))
  assert not (tmp_path / "out").exists()
