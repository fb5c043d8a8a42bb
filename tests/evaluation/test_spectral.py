"""Bandwidth, loudness and spectral distances against closed forms."""

import numpy as np
import pytest
from scipy import signal
from test_level_metrics import TONE, sample

from v2a_jax.evaluation.metrics import bandwidth, loudness_error, spectral

RATE = 16_000
NOISE = 0.1 * np.random.default_rng(0).standard_normal((RATE, 2))


def low_passed(hz):
  return signal.sosfilt(
    signal.butter(12, hz, fs=RATE, output="sos"), NOISE, axis=0
  )


@pytest.mark.parametrize("hz", [1000, 2000, 4000])
def test_bandwidth_is_where_a_low_pass_ends(hz):
  # A 12th order filter reaches -60 dB at 1.78 times its corner.
  found = bandwidth.bandwidth(low_passed(hz), RATE)
  assert hz < found < 2.2 * hz
  loud = bandwidth.bandwidth(0.01 * low_passed(hz), RATE)
  assert loud == found
  assert bandwidth.bandwidth(NOISE, RATE) > 7900
  assert np.isnan(bandwidth.bandwidth(np.zeros((99, 1)), RATE))


def test_the_lost_band_is_in_octaves_and_never_negative():
  metric = bandwidth.LostBand()
  lost = metric.get_state(sample(low_passed(1200), low_passed(2400)))
  assert lost == pytest.approx(1, abs=0.15)
  assert metric.get_state(sample(NOISE, low_passed(2000))) == 0
  assert np.isnan(metric.get_state(sample(0 * NOISE, NOISE)))
  losses = [metric.get_state(sample(low_passed(f), NOISE)) for f in (3e3, 1e3)]
  assert losses[0] < losses[1]


def test_loudness_moves_with_the_gain():
  tone = np.sin(2 * np.pi * 997 * np.arange(3 * RATE) / RATE)[:, None]
  # BS.1770: a 997 Hz sine at full scale in one channel has -3.01 LUFS.
  assert loudness_error.loudness(tone, RATE) == pytest.approx(-3.01, abs=0.1)
  metric = loudness_error.LoudnessError()
  assert metric.get_state(sample(0.1 * tone, tone)) == pytest.approx(
    20, abs=0.1
  )
  assert metric.get_state(sample(0 * tone, tone)) == pytest.approx(67, abs=0.1)
  assert np.isnan(metric.get_state(sample(TONE[:100], TONE)))


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_a_gain_has_a_closed_form(gain):
  expected = abs(gain - 1) + abs(np.log(gain))
  assert spectral.mr_stft(gain * NOISE, NOISE) == pytest.approx(expected, 1e-4)
  decibels = abs(20 * np.log10(gain))
  distance = spectral.log_spectral_distance(gain * NOISE, NOISE)
  assert distance == pytest.approx(decibels, 1e-3)


def test_magnitudes_are_those_of_scipy():
  sound = NOISE[:4000, :1]
  stft = signal.ShortTimeFFT(
    signal.get_window("hann", 240), 50, RATE, mfft=512, scale_to=None
  )
  ours = spectral.magnitudes(sound, 512, 50, 240)[0]
  for frame in (10, 40, 70):
    start = 50 * frame - 120
    part = sound[start : start + 240, 0] * signal.get_window("hann", 240)
    np.testing.assert_allclose(
      ours[frame], np.abs(np.fft.rfft(part, 512)), atol=1e-5
    )
  inside = np.abs(stft.stft(sound[:, 0], p0=10, p1=60)).T
  np.testing.assert_allclose(ours[10:60], inside, atol=1e-5)


def test_distances_grow_with_noise():
  rng = np.random.default_rng(1)
  for distance in (spectral.mr_stft, spectral.log_spectral_distance):
    values = [
      distance(NOISE + level * rng.standard_normal(NOISE.shape), NOISE)
      for level in (0, 0.003, 0.03, 0.3)
    ]
    assert values[0] == 0 and values == sorted(values)
    assert np.isnan(distance(NOISE[:100], NOISE))


def test_mr_stft_is_that_of_torch():
  torch = pytest.importorskip("torch")
  rng = np.random.default_rng(2)
  x, y = rng.normal(size=(2, 6000, 1))
  terms = []
  for size, hop, window in (
    (1024, 120, 600),
    (2048, 240, 1200),
    (512, 50, 240),
  ):
    a, b = (
      torch.stft(
        torch.tensor(w[:, 0]),
        *(size, hop, window),
        window=torch.hann_window(window, dtype=torch.float64),
        return_complex=True,
      )
      .abs()
      .square()
      .clamp(min=1e-8)
      .sqrt()
      for w in (x, y)
    )
    terms.append((a - b).norm() / b.norm() + (a.log() - b.log()).abs().mean())
  assert spectral.mr_stft(x, y) == pytest.approx(float(sum(terms) / 3), 1e-4)
