"""KL divergence against its closed form."""

import numpy as np
import pytest
from scipy import stats

from v2a_jax.evaluation.metrics.kl_divergence import kl_divergence


def test_kl_is_from_the_true_sound_to_the_row():
  rng = np.random.default_rng(0)
  true, row = rng.normal(size=(5, 7)), rng.normal(size=(5, 7))
  p, q = np.exp(true), np.exp(row)
  expected = [stats.entropy(a / a.sum(), b / b.sum()) for a, b in zip(p, q)]
  np.testing.assert_allclose(kl_divergence(true, row), expected)
  np.testing.assert_allclose(kl_divergence(true, true + 3.0), 0, atol=1e-12)


def test_kl_survives_extreme_logits():
  kl = kl_divergence([[1000.0, 0.0]], [[0.0, 1000.0]])
  assert np.isfinite(kl).all() and kl[0] == pytest.approx(1000.0)
