"""The signed offset: of moved sounds, of blind ones, and of none."""

import numpy as np
import pytest
from test_level_metrics import sample
from test_onsets import TIMES, _hits

from v2a_jax.evaluation import rows
from v2a_jax.evaluation.metrics import offset

RATE = 16_000
TRUE = _hits(TIMES)[:, None]


def state(metric, sound, true=TRUE):
  return metric.get_state(sample(sound, true))


@pytest.mark.parametrize(
  "metric", [offset.OnsetOffset(), offset.EnvelopeOffset()]
)
@pytest.mark.parametrize("shift", [-320, -40, 0, 25, 160])
def test_a_shift_is_measured_with_its_sign(metric, shift):
  moved = rows.delayed(TRUE, shift * RATE // 1000)
  other = moved + 1e-3 * np.random.default_rng(1).standard_normal(moved.shape)
  assert state(metric, other) == pytest.approx(shift, abs=6)


def test_the_peak_of_the_correlation_is_that_of_numpy():
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=90), rng.normal(size=70)
  expected = np.correlate(a - a.mean(), b - b.mean(), "full")
  expected /= a.std() * b.std() * np.sqrt(90 * 70)
  np.testing.assert_allclose(offset.correlation(a, b), expected, atol=1e-12)
  lag = 10 * (np.argmax(expected[19:120]) + 19 - 69)
  assert abs(offset.offset(a, b) - lag) <= 5


def test_correlation_falls_smoothly_with_the_delay():
  metric = offset.OnsetCorrelation()
  values = [
    state(metric, rows.delayed(TRUE, ms * RATE // 1000))
    for ms in (0, 10, 20, 40, 80)
  ]
  assert values[0] == pytest.approx(1.0)
  assert all(a > b + 0.03 for a, b in zip(values, values[1:]))


def test_the_true_sound_is_told_from_what_is_blind_or_late():
  late = rows.delayed(TRUE, RATE // 10)
  for rival in (
    *(late, rows.metronome(TRUE, RATE), np.zeros_like(TRUE)),
    rows.pink_noise(TRUE, RATE, seed=0),
  ):
    assert state(offset.OnsetCorrelation(), rival) < 0.4
    assert state(offset.SyncError(), rival) > 40
  assert state(offset.SyncError(), TRUE) == 0


def test_what_has_no_onsets_has_no_offset_and_the_worst_error():
  silence = np.zeros_like(TRUE)
  assert np.isnan(state(offset.OnsetOffset(), silence))
  assert np.isnan(state(offset.EnvelopeOffset(), silence))
  assert state(offset.SyncError(), silence) == offset.LARGEST
  assert state(offset.OnsetCorrelation(), silence) == 0
  assert state(offset.OnsetCorrelation(), silence[:100]) == 0
  for metric in (offset.SyncError(), offset.OnsetCorrelation()):
    assert np.isnan(state(metric, TRUE, silence))


def test_the_spread_says_whether_offsets_agree():
  agree = offset.OnsetOffset().compute([30.0, 40.0, 50.0, np.nan])
  assert agree.value == 40 and agree.extras == {"undefined": 1, "spread": 10}
  assert np.isnan(offset.OnsetOffset().compute([np.nan]).value)
