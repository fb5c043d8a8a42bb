"""Onset detection on sounds whose onsets are known, and the matching."""

import json
import pathlib

import mir_eval
import numpy as np
import pytest

from v2a_jax import media
from v2a_jax.evaluation import metrics
from v2a_jax.evaluation.clips import Clip
from v2a_jax.evaluation.metrics import onsets

CLIPS = pathlib.Path(__file__).parents[2].parent / "shared" / "clips"
F1 = onsets.OnsetF1(milliseconds=50)
METRICS = metrics.choose(toolkits=True)
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


@pytest.mark.parametrize("heard", [[1.01], [1.01, 2.01], [0.2, 1.01]])
def test_an_event_off_screen_may_sound_at_any_time_or_not_at_all(heard):
  counts = onsets.match([1.0], heard, tolerance=0.05, unseen=1)
  assert counts == onsets.Counts(hits=1, reference=1, detected=1)


def test_more_sounds_than_events_count_as_wrong():
  counts = onsets.match([1.0], [1.01, 2.0, 3.0], tolerance=0.05, unseen=1)
  assert counts == onsets.Counts(hits=1, reference=1, detected=2)
  missed = onsets.match([1.0], [2.0], tolerance=0.05, unseen=1)
  assert missed == onsets.Counts(hits=0, reference=1, detected=0)


@pytest.mark.parametrize(
  "metric",
  [m for m in METRICS if m.needs_sight],
  ids=lambda metric: metric.id,
)
def test_timing_is_not_judged_where_all_that_sounds_is_off_screen(metric):
  make = lambda **known: Clip(
    id="", audio=np.zeros((0, 1)), seconds=8.0, video=b"film", **known
  )
  times = np.array([1.0])
  assert metric.judges(make()) and metric.judges(make(events=times))
  assert metric.judges(make(events=times, off_screen=times))
  assert not metric.judges(make(events=np.zeros(0), off_screen=times))


def test_all_that_judges_timing_needs_sight():
  timing = {m.id for m in METRICS if m.judges_timing}
  assert timing and timing <= {m.id for m in METRICS if m.needs_sight}


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
