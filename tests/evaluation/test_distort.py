"""True sounds that are made worse: what a metric is shown, and what it says."""

import json

from flashes import RATE, clicks
import numpy as np
import pytest
from scipy import signal
import soundfile

from launch import cli
from tests.launch.commands import refused
from v2a_jax.evaluation import clips, distort
from v2a_jax.evaluation.clips import Clip
from v2a_jax.evaluation.metrics import METRICS
from v2a_jax.evaluation.options import Options


def clip(sound, position=0) -> Clip:
  seconds = len(sound) / RATE
  return Clip(position=position, id="a", audio=sound, seconds=seconds)


def made(kind, amount, sound, other=None):
  donor = clip(sound if other is None else other)
  return distort.distorted(clip(sound), donor, kind, amount, rate=RATE, seed=0)


@pytest.fixture
def sound():
  rng = np.random.default_rng(0)
  return (0.05 * rng.standard_normal((2 * RATE, 1))).astype(np.float32)


@pytest.mark.parametrize("decibels", [40, 20, 0])
def test_noise_has_its_level(sound, decibels):
  noise = made("noise", decibels, sound) - sound
  ratio = 10 * np.log10(np.mean(sound**2) / np.mean(noise**2))
  assert ratio == pytest.approx(decibels, abs=0.2)


def test_a_low_pass_leaves_nothing_above(sound):
  low = made("lowpass", 1000, sound)
  hz, power = signal.welch(low[:, 0], RATE)
  _, before = signal.welch(sound[:, 0], RATE)
  gain = 10 * np.log10(power / before)
  assert gain[(hz > 100) & (hz < 600)].min() > -1
  assert gain[hz > 2000].max() < -40
  # A sound that has no such treble stays.
  np.testing.assert_array_equal(made("lowpass", RATE, sound), sound)


def test_late_early_and_shuffled(sound):
  n = round(0.08 * RATE)
  late, early = made("late", 80, sound), made("early", 80, sound)
  np.testing.assert_array_equal(late[n:], sound[:-n])
  np.testing.assert_array_equal(early[:-n], sound[n:])
  assert not late[:n].any() and not early[-n:].any()
  other = np.full((RATE, 1), 0.5, np.float32)
  shuffled = made("shuffled", 1, sound, other)
  np.testing.assert_array_equal(shuffled[:RATE], other)
  assert len(shuffled) == len(sound) and not shuffled[RATE:].any()


def test_of_shuffled_clips_there_is_the_share_that_is_asked_for(sound):
  other = np.zeros_like(sound)
  silent = [
    not distort.distorted(
      clip(sound, i), clip(other), "shuffled", 0.25, rate=RATE, seed=0
    ).any()
    for i in range(200)
  ]
  assert 0.15 < np.mean(silent) < 0.35


@pytest.fixture
def folder(tmp_path):
  path = tmp_path / "true"
  path.mkdir()
  for i in range(4):
    times = np.array([0.3 + 0.05 * i, 1.1 + 0.1 * i])
    soundfile.write(path / f"{i}.wav", clicks(times), RATE)
  return path


def test_metrics_get_worse_with_the_distortion(folder, tmp_path):
  lines = []
  score = lambda: distort.write_curves(
    clips.open_truth(folder),
    tmp_path / "out",
    kinds=["late"],
    metrics=[m for m in METRICS if m.id in ("onset_f1_50ms", "sync_error")],
    options=Options(num_clips=None),
    log=lines.append,
  )
  curves = score()
  points = {p["amount"]: p["scores"] for p in curves["points"]}
  value = lambda amount, id_: points[amount][id_]["value"]
  assert value(None, "onset_f1_50ms") == 1 and value(None, "sync_error") == 0
  assert value(20, "onset_f1_50ms") > 0.7 > 0.3 > value(320, "onset_f1_50ms")
  found = [value(amount, "sync_error") for amount in (20, 40, 80, 160)]
  np.testing.assert_allclose(found, (20, 40, 80, 160), atol=6)
  assert json.loads((tmp_path / "out/curves.json").read_text()) == curves
  text = distort.as_markdown(curves)
  assert "late, ms" in text and text.count("\n| ") == 7
  # What is done is not done again.
  assert score() == curves
  assert sum("is there already" in line for line in lines) == 6


def test_an_unknown_distortion_is_one_line(folder, tmp_path, capsys):
  args = ["eval", "distort", "--reference", folder, "-o", tmp_path / "out"]
  words = "distortion 'reverb' is not one of noise, lowpass"
  assert words in refused(capsys, *args, "--kinds=reverb")
  for flag in ("--kinds=", "--embeddings=mn04,"):
    line = refused(capsys, *args, flag)
    assert "give names, separated by commas" in line
  for seconds in ("-1", "0.1", "nan", "inf", "all"):
    line = refused(capsys, *args, f"--seconds={seconds}")
    assert f"{seconds} is not 0.5 seconds or more" in line
  assert not (tmp_path / "out").exists()
  assert cli.main(["eval", "distort"]) == 2
