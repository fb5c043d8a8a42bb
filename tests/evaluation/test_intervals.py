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
  estimate = intervals.ratio(hits, events).within((0, 1))
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


def test_a_share_is_inside_its_interval_even_at_its_ends():
  """Against Wilson's closed form."""
  for count in (0, 3, 10):
    estimate = intervals.share([True] * count + [False] * (10 - count))
    z2 = stats.norm.ppf(0.975) ** 2
    p = count / 10
    middle = (p + z2 / 20) / (1 + z2 / 10)
    half = np.sqrt(z2 * (p * (1 - p) / 10 + z2 / 400)) / (1 + z2 / 10)
    assert estimate.value == p
    assert estimate.low == pytest.approx(middle - half, abs=1e-9)
    assert estimate.high == pytest.approx(middle + half, abs=1e-9)


def test_the_error_of_a_difference_of_ratios_is_the_delta_methods():
  rng = np.random.default_rng(0)
  a, b, c, d = rng.uniform(1, 2, (4, 50))
  columns = np.stack([a, b, c, d], 1)
  products = np.stack(
    [columns[:, i] * columns[:, j] for i in range(4) for j in range(i, 4)], 1
  )
  _, error = intervals._with_error(columns.sum(0), products.sum(0), 50, (1, -1))
  one, two = a.sum() / b.sum(), c.sum() / d.sum()
  linear = (a - one * b) / b.mean() - (c - two * d) / d.mean()
  assert error == pytest.approx(linear.std(ddof=1) / np.sqrt(50))


@pytest.mark.parametrize("clips", [8, 16])
def test_few_and_skewed_clips_are_covered(clips):
  """Percentiles and BCa cover 85 to 87 % here."""
  rng, covered = np.random.default_rng(3), 0
  for _ in range(300):
    estimate = intervals.mean(rng.exponential(size=clips), draws=500)
    covered += estimate.low <= 1 <= estimate.high
  assert covered >= 270


def test_many_clips_are_resampled_in_parts():
  values = np.random.default_rng(0).normal(size=30_000)
  estimate = intervals.mean(values, draws=200)
  error = values.std() / np.sqrt(30_000)
  assert estimate.high - estimate.low == pytest.approx(3.92 * error, rel=0.2)
