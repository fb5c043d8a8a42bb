"""KL and IS against their closed forms."""

import numpy as np
import pytest
from scipy import stats

from v2a_jax.evaluation.metrics import semantic


def test_kl_is_from_the_true_sound_to_the_row():
  rng = np.random.default_rng(0)
  true, row = rng.normal(size=(5, 7)), rng.normal(size=(5, 7))
  p, q = np.exp(true), np.exp(row)
  expected = [stats.entropy(a / a.sum(), b / b.sum()) for a, b in zip(p, q)]
  np.testing.assert_allclose(semantic.kl_divergence(true, row), expected)
  np.testing.assert_allclose(
    semantic.kl_divergence(true, true + 3.0), 0, atol=1e-12
  )


def test_kl_survives_extreme_logits():
  kl = semantic.kl_divergence([[1000.0, 0.0]], [[0.0, 1000.0]])
  assert np.isfinite(kl).all() and kl[0] == pytest.approx(1000.0)


def test_inception_score_of_sure_and_varied_clips_is_their_number():
  sure = 100.0 * np.eye(8)
  assert semantic.inception_score(sure).extras["plug_in"] == pytest.approx(8.0)


def test_inception_score_of_equal_clips_is_one():
  estimate = semantic.inception_score(np.tile([1.0, 2.0, 0.5], (10, 1)))
  assert estimate.value == pytest.approx(1.0)
  assert estimate.low == pytest.approx(1.0)


def test_inception_score_formula_and_interval():
  logits = np.random.default_rng(1).normal(size=(40, 6)) * 2
  q = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  expected = np.exp(np.mean([stats.entropy(row, q.mean(0)) for row in q]))
  estimate = semantic.inception_score(logits)
  assert estimate.extras["plug_in"] == pytest.approx(expected)
  assert estimate.low < estimate.value < estimate.high
  assert estimate.value > expected  # Few clips bias it downwards.
