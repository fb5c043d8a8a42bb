"""The inception score against its closed forms."""

import numpy as np
import pytest
from scipy import stats

from v2a_jax.evaluation.metrics.inception import inception_score


def test_inception_score_of_sure_and_varied_clips_is_their_number():
  sure = 100.0 * np.eye(8)
  assert inception_score(sure).extras["plug_in"] == pytest.approx(8.0)


def test_inception_score_of_equal_clips_is_one():
  estimate = inception_score(np.tile([1.0, 2.0, 0.5], (48, 1)))
  assert estimate.value == pytest.approx(1.0)
  assert estimate.low == pytest.approx(1.0)


def test_inception_score_formula_and_interval():
  logits = np.random.default_rng(1).normal(size=(60, 6)) * 2
  q = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  expected = np.exp(np.mean([stats.entropy(row, q.mean(0)) for row in q]))
  estimate = inception_score(logits)
  assert estimate.extras["plug_in"] == pytest.approx(expected)
  assert estimate.low < estimate.value < estimate.high
  assert estimate.value > expected  # Few clips bias it downwards.
