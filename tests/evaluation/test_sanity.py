"""Levels and faults of plain signals."""

import numpy as np
import pytest

from v2a_jax.evaluation.metrics import sanity

TONE = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)[:, None]


def test_level_of_a_tone():
  assert sanity.level_dbfs(TONE) == pytest.approx(-3.0103, abs=1e-3)
  assert sanity.level_dbfs(0.1 * TONE) == pytest.approx(-23.0103, abs=1e-3)
  assert sanity.level_dbfs(np.zeros((9, 2))) == pytest.approx(-120.0)


def test_silence():
  assert sanity.is_silent(np.zeros((100, 1)))
  assert sanity.is_silent(0.001 * TONE) and not sanity.is_silent(0.01 * TONE)


def test_clipping():
  assert sanity.is_clipped(np.clip(3 * TONE, -1, 1))
  assert not sanity.is_clipped(0.99 * TONE)


def test_level_error_does_not_reward_or_punish_the_depth_of_silence():
  assert sanity.level_error(0.1 * TONE, TONE) == pytest.approx(20.0)
  deep = sanity.level_error(np.zeros_like(TONE), TONE)
  assert deep == sanity.level_error(1e-5 * TONE, TONE)


def test_duration_error():
  assert sanity.duration_error(TONE, 16000, 1.5) == pytest.approx(0.5)
