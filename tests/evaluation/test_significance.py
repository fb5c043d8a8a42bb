"""The permutation test against enumeration and theory, and Holm's correction."""

import itertools

import numpy as np
import pytest
from scipy import stats

from v2a_jax.evaluation import significance


def columns(values):
  return np.stack([values, np.ones_like(values)], 1)


@pytest.mark.parametrize("clips", [5, 8])
def test_few_clips_are_enumerated(clips):
  rng = np.random.default_rng(clips)
  a, b = rng.normal(size=(2, clips))
  signs = itertools.product([-1, 1], repeat=clips)
  sums = np.abs([np.dot(s, a - b) for s in signs])
  expected = np.mean(sums >= abs((a - b).sum()) - 1e-9)
  assert significance.swap_test(columns(a), columns(b)) == expected


def test_many_clips_agree_with_scipy():
  rng = np.random.default_rng(0)
  a = rng.normal(size=60)
  b = a + rng.normal(0.15, 0.5, size=60)
  expected = stats.permutation_test(
    (a, b),
    lambda x, y, axis: np.mean(x - y, axis=axis),
    permutation_type="samples",
    vectorized=True,
    n_resamples=20_000,
    rng=np.random.default_rng(1),
  ).pvalue
  p = significance.swap_test(columns(a), columns(b))
  assert p == pytest.approx(expected, abs=0.01)


def test_five_clips_cannot_be_told_apart_and_six_can():
  for clips, least in ((5, 1 / 16), (significance.clips_needed(), 1 / 32)):
    better = columns(np.ones(clips)), columns(np.zeros(clips))
    assert significance.swap_test(*better) == least
  assert 1 / 32 <= significance.LEVEL < 1 / 16


def test_equal_rows_are_equal():
  same = columns(np.arange(20.0))
  assert significance.swap_test(same, same) == 1
  nothing = np.zeros((20, 2))
  assert np.isnan(significance.swap_test(same, nothing))


def test_equal_models_are_named_as_often_as_the_level_says():
  rng = np.random.default_rng(4)
  named = 0
  for _ in range(400):
    counts = rng.poisson(3, (2, 10, 2)) + np.array([0, 3])
    named += significance.swap_test(*counts) <= 0.05
  assert 6 <= named <= 32


def test_holm_is_that_of_the_paper():
  p = np.array([0.01, np.nan, 0.04, 0.03])
  np.testing.assert_allclose(significance.holm(p), [0.03, np.nan, 0.06, 0.06])
  assert len(significance.holm([])) == 0


@pytest.mark.parametrize("tests, clips", [(1, 6), (8, 9), (40, 11), (100, 12)])
def test_clips_that_are_needed_can_just_be_named(tests, clips):
  """Also by the test itself, of clips that all differ the same way."""
  assert significance.clips_needed(tests) == clips
  for n, named in ((clips - 1, False), (clips, True)):
    better = np.stack([1 + 0.01 * np.arange(n), np.ones(n)], 1)
    worse = np.stack([np.zeros(n), np.ones(n)], 1)
    p = significance.swap_test(better, worse)
    assert (significance.holm([p] + [1.0] * (tests - 1))[0] <= 0.05) == named
