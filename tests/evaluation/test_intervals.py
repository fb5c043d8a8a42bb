"""Intervals against closed forms, their coverage, and degenerate cases."""

import json

import numpy as np
import pytest
from scipy import stats

from v2a_jax.evaluation import intervals


def test_mean_is_close_to_students_interval():
  values = np.random.default_rng(0).normal(3.0, 2.0, 80)
  estimate = intervals.mean(values)
  student = stats.t.interval(
    0.95, 79, values.mean(), values.std(ddof=1) / np.sqrt(80)
  )
  assert estimate.value == pytest.approx(values.mean())
  assert (estimate.low, estimate.high) == pytest.approx(student, abs=0.1)
  assert estimate.n == 80


def test_ratio_is_of_sums_not_mean_of_ratios():
  hits, events = np.array([1.0, 0.0, 90.0]), np.array([1.0, 1.0, 98.0])
  estimate = intervals.ratio(hits, events, bounds=(0, 1))
  assert estimate.value == pytest.approx(0.91)
  assert estimate.low < 0.91 < estimate.high


def test_ratio_interval_covers():
  """Of 60 simulated sets about 95 % must contain the true ratio."""
  rng = np.random.default_rng(1)
  covered = 0
  for _ in range(60):
    events = rng.poisson(5, 40) + 1.0
    hits = rng.binomial(events.astype(int), 0.7)
    estimate = intervals.ratio(hits, events)
    covered += estimate.low <= 0.7 <= estimate.high
  assert covered >= 52


def test_same_seed_same_interval():
  values = np.random.default_rng(0).exponential(size=30)
  first, again = intervals.mean(values, seed=3), intervals.mean(values, seed=3)
  assert first == again
  assert intervals.mean(values, seed=4).low != first.low


def test_undefined_clips_are_left_out_and_counted():
  estimate = intervals.mean([1.0, np.nan, 2.0, 3.0, np.nan])
  assert estimate.value == 2.0 and estimate.n == 3
  assert estimate.extras == {"undefined": 2}


def test_clips_that_all_agree_have_no_width():
  estimate = intervals.mean(np.zeros(9))
  assert (estimate.value, estimate.low, estimate.high) == (0.0, 0.0, 0.0)


def test_one_clip_has_no_interval_and_json_stays_json():
  entry = intervals.mean([0.5]).to_json()
  assert entry == {"n": 1, "value": 0.5, "low": None, "high": None}
  empty = intervals.mean([np.nan]).to_json()
  assert empty["value"] is None and empty["undefined"] == 1
  json.dumps([entry, empty], allow_nan=False)


def test_pivot_removes_a_known_bias():
  """The square of a mean is biased by var / n."""
  rng = np.random.default_rng(2)
  plug_in, corrected = [], []
  for trial in range(150):
    x = rng.normal(0.5, 1.0, 20)
    counts = intervals.clip_counts(20, draws=300, seed=trial)
    estimate = intervals.pivotal(
      x.mean() ** 2, np.square(counts @ x / 20), n=20
    )
    plug_in.append(estimate.extras["plug_in"])
    corrected.append(estimate.value)
  removed = np.mean(plug_in) - np.mean(corrected)
  assert removed == pytest.approx(1 / 20, abs=0.01)


def test_counts_draw_whole_sets():
  counts = intervals.clip_counts(7, draws=50, seed=0)
  assert counts.shape == (50, 7) and (counts.sum(axis=1) == 7).all()
