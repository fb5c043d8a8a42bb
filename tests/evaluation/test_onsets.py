"""Onset detection on sounds whose onsets are known, and the matching."""

import json
import pathlib

import mir_eval
import numpy as np
import pytest

from v2a_jax import media
from v2a_jax.evaluation.metrics import onsets

CLIPS = pathlib.Path(__file__).parents[2].parent / "shared" / "clips"
F1 = onsets.OnsetF1(milliseconds=50)
TIMES = np.array([0.31, 0.9, 1.02, 1.77, 2.5])


def _hits(times, rate=16000, seconds=3.0, level=0.3):
  """Decaying noise bursts over a quiet noise floor."""
  rng = np.random.default_rng(0)
  sound = 1e-4 * rng.standard_normal(round(rate * seconds))
  for time in times:
    start = round(time * rate)
    length = min(round(0.2 * rate), len(sound) - start)
    decay = np.exp(-np.arange(length) / (0.03 * rate))
    sound[start : start + length] += level * decay * rng.standard_normal(length)
  return np.clip(sound, -1, 1).astype(np.float32)


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("level", [0.3, 0.01])
def test_finds_hits_at_any_rate_and_level(rate, level):
  detected = onsets.detect(_hits(TIMES, rate, level=level), rate)
  np.testing.assert_allclose(detected, TIMES, atol=0.025)


def test_silence_and_noise_have_no_onsets():
  noise = 0.1 * np.random.default_rng(0).standard_normal((48000, 2))
  assert not len(onsets.detect(np.zeros((48000, 2), np.float32), 16000))
  assert not len(onsets.detect(noise.astype(np.float32), 16000)[1:])
  assert not len(onsets.detect(np.zeros(10, np.float32), 16000))


def test_real_hits_are_found():
  if not (CLIPS / "onsets.json").is_file():
    pytest.skip("../shared/clips is not here")
  truth = json.loads((CLIPS / "onsets.json").read_text())
  counts = []
  for name, times in truth.items():
    sound = media.read_audio(CLIPS / name, sample_rate=16000, channels=1)
    detected = onsets.detect(sound.samples, 16000)
    counts.append(onsets.match(times, detected, tolerance=0.05))
  assert F1.compute(counts).value > 0.9


def test_matching_equals_mir_eval():
  rng = np.random.default_rng(1)
  for _ in range(30):
    reference = np.sort(rng.uniform(0, 4, rng.integers(1, 9)))
    detected = np.sort(rng.uniform(0, 4, rng.integers(1, 9)))
    f, p, r = mir_eval.onset.f_measure(reference, detected, window=0.1)
    counts = onsets.match(reference, detected, tolerance=0.1)
    assert F1.value(counts) == pytest.approx(f)
    assert counts.hits / counts.detected == pytest.approx(p)
    assert counts.hits / counts.reference == pytest.approx(r)


def test_off_screen_events_neither_help_nor_hurt():
  both = onsets.match([1.0], [1.01, 2.01], tolerance=0.05, ignored=[2.0])
  only = onsets.match([1.0], [1.01], tolerance=0.05, ignored=[2.0])
  extra = onsets.match([1.0], [1.01, 3.0], tolerance=0.05, ignored=[2.0])
  assert both == only == onsets.Counts(hits=1, reference=1, detected=1)
  assert extra.detected == 2


def test_an_event_on_screen_is_matched_before_one_off_screen():
  counts = onsets.match([1.0], [1.02], tolerance=0.05, ignored=[1.02])
  assert counts == onsets.Counts(hits=1, reference=1, detected=1)


def test_micro_average_and_its_parts():
  counts = [
    onsets.Counts(3, 4, 3),
    onsets.Counts(0, 0, 2),
    onsets.Counts(0, 1, 0),
  ]
  estimate = F1.compute(counts)
  assert estimate.value == pytest.approx(2 * 3 / (5 + 5))
  for part in (onsets.OnsetPrecision, onsets.OnsetRecall):
    assert part(milliseconds=50).compute(counts).value == 3 / 5
  assert np.isnan(F1.value(onsets.Counts(0, 0, 0)))


def test_nothing_detected_is_zero_not_undefined():
  estimate = F1.compute([onsets.Counts(0, 3, 0), onsets.Counts(0, 2, 0)])
  assert estimate.value == 0.0 and (estimate.low, estimate.high) == (0.0, 0.0)


def test_difference_is_paired():
  """A row that is always a little worse is, however much clips vary."""
  rng = np.random.default_rng(0)
  events = rng.integers(4, 30, 40)
  good = [
    onsets.Counts(int(e * h), int(e), int(e))
    for e, h in zip(events, rng.random(40))
  ]
  worse = [
    onsets.Counts(max(c.hits - 1, 0), c.reference, c.detected) for c in good
  ]
  difference = F1.compute_difference(good, worse)
  assert 0 < difference.low < difference.value < difference.high < 0.15
  wide = F1.compute(good)
  assert difference.high - difference.low < (wide.high - wide.low) / 2
