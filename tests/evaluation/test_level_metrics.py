"""Level, silence, clipping and length of plain signals."""

import numpy as np
import pytest

from v2a_jax.evaluation.clips import Clip
from v2a_jax.evaluation.metrics import duration_error, silent
from v2a_jax.evaluation.metrics.base import Sample
from v2a_jax.evaluation.metrics.clipped import is_clipped
from v2a_jax.evaluation.metrics.level_error import level_dbfs, level_error

TONE = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)[:, None]


def sample(waveform, true=TONE) -> Sample:
  """A sample as the scorer makes it, of a clip without events."""
  seconds = len(true) / 16000
  clip = Clip(id="tone", audio=true, seconds=seconds, motion=np.zeros(0))
  common = dict(clip=clip, sample_rate=16000, features={})
  truth = Sample(waveform=true, **common)
  return Sample(waveform=waveform, truth=truth, **common)


def test_level_of_a_tone():
  assert level_dbfs(TONE) == pytest.approx(-3.0103, abs=1e-3)
  assert level_dbfs(0.1 * TONE) == pytest.approx(-23.0103, abs=1e-3)
  assert level_dbfs(np.zeros((9, 2))) == pytest.approx(-120.0)


def test_silence():
  is_silent = lambda w: silent.SilentClips().get_state(sample(w))
  # Where the true sound is silent, silence is right and noise no merit.
  quiet = sample(TONE, true=np.zeros_like(TONE))
  assert silent.SilentClips().get_state(quiet) is None
  assert is_silent(np.zeros((100, 1)))
  assert is_silent(0.001 * TONE) and not is_silent(0.01 * TONE)


def test_clipping():
  assert is_clipped(np.clip(3 * TONE, -1, 1))
  assert not is_clipped(0.99 * TONE)


def test_level_error_does_not_reward_or_punish_the_depth_of_silence():
  assert level_error(0.1 * TONE, TONE) == pytest.approx(20.0)
  deep = level_error(np.zeros_like(TONE), TONE)
  assert deep == level_error(1e-5 * TONE, TONE)


def test_duration_error_is_in_seconds():
  metric = duration_error.DurationError()
  states = [metric.get_state(sample(TONE[:n])) for n in (16000, 12000)]
  assert metric.compute(states).value == pytest.approx(0.125)
