"""The inception score against its closed forms."""

import numpy as np
import pytest
from scipy import stats

from v2a_jax.evaluation.metrics.inception import inception_score, split_score


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


def test_score_of_splits_is_that_of_torch_fidelity():
  """Its formula, spelled out: a shuffle by 2020, then ten parts."""
  logits = np.random.default_rng(3).normal(size=(47, 5)) * 2
  order = np.random.RandomState(2020).permutation(47)
  q = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  parts = [q[order][i * 47 // 10 : (i + 1) * 47 // 10] for i in range(10)]
  expected = [
    np.exp(np.mean([stats.entropy(row, part.mean(0)) for row in part]))
    for part in parts
  ]
  assert split_score(logits) == pytest.approx(np.mean(expected), rel=1e-9)
  assert np.isnan(split_score(logits[:9]))
