"""Spectral distances, divergence and adversarial losses."""

import jax
import jax.numpy as jnp
import librosa
import numpy as np
from scipy import signal, stats

from v2a_jax.codec import losses

RATE, SIZES = 16000, (128, 512)


def _noise(seed, batch=2):
  key = jax.random.key(seed)
  return 0.1 * jax.random.normal(key, (batch, 2048, 1))


@jax.jit
def _distance(true, decoded):
  return losses.spectral_distance(
    true, decoded, sample_rate=RATE, fft_sizes=SIZES
  )


def test_spectral_distance_is_zero_at_equality_and_only_there():
  true = _noise(0)
  for name, value in _distance(true, true).items():
    np.testing.assert_allclose(value, 0, atol=1e-6, err_msg=name)
  for name, value in _distance(true, _noise(1)).items():
    assert value.shape == (2,) and jnp.all(value > 0.1), name


def test_half_the_level_is_half_the_convergence_and_log_two():
  true = _noise(0)
  actual = _distance(true, true / 2)
  np.testing.assert_allclose(actual["convergence"], 0.5, atol=0.03)
  np.testing.assert_allclose(actual["log_magnitude"], np.log(2), atol=0.05)
  np.testing.assert_allclose(actual["mel"], np.log(2), atol=0.05)


def _reference(true, decoded):
  """Convergence and log magnitude of [t, channels] in float64, by numpy."""
  rows = []
  for size in SIZES:
    window = signal.get_window("hann", size)

    def magnitudes(x, size=size, window=window):
      padded = np.pad(np.asarray(x, np.float64), [(size // 2,) * 2, (0, 0)])
      starts = range(0, len(padded) - size + 1, size // 4)
      frames = np.stack([padded[i : i + size].T * window for i in starts])
      return abs(np.fft.rfft(frames)) / window.sum()

    s, t = magnitudes(true), magnitudes(decoded)
    silence = s.size * (5 * losses.FLOOR) ** 2
    logs = [np.log(x + losses.FLOOR) for x in (s, t)]
    convergence = np.sqrt(((s - t) ** 2).sum() / ((s**2).sum() + silence))
    rows.append([convergence, abs(logs[0] - logs[1]).mean()])
  return np.mean(rows, axis=0)


def _pair(x):
  return [float(x[name][0]) for name in ("convergence", "log_magnitude")]


def test_convergence_and_log_magnitude_are_those_of_float64():
  true, decoded = _noise(0, 1), _noise(1, 1)
  wanted = _reference(true[0], decoded[0])
  np.testing.assert_allclose(_pair(_distance(true, decoded)), wanted, rtol=1e-3)


def test_stereo_is_left_and_right_and_twice_mid_and_side():
  true, decoded = (
    np.concatenate([_noise(i, 1), _noise(i + 2, 1)], axis=2) for i in (0, 1)
  )
  turn = np.array([[0.5, 0.5], [0.5, -0.5]])
  single = _reference(true[0], decoded[0])
  both = _reference(true[0] @ turn, decoded[0] @ turn)
  actual = _pair(_distance(true, decoded))
  np.testing.assert_allclose(actual, (single + 2 * both) / 3, rtol=1e-3)


def test_the_phase_between_two_channels_counts():
  """In each channel both reconstructions have the same error."""
  true = jnp.concatenate([_noise(0), 0.5 * _noise(0) + 0.3 * _noise(1)], axis=2)
  good = 0.8 * true
  turned = good * jnp.array([1.0, -1.0])
  for side in (0, 1):
    one, other = (
      _distance(true[..., side : side + 1], x[..., side : side + 1])
      for x in (good, turned)
    )
    for name in one:
      np.testing.assert_allclose(one[name], other[name], rtol=1e-5)
  good, turned = _distance(true, good), _distance(true, turned)
  for name in good:
    assert jnp.all(turned[name] > 1.5 * good[name]), name


def test_panning_counts():
  sound, none = _noise(0), jnp.zeros((2, 2048, 1))
  panned = jnp.concatenate([sound, none], axis=2)
  centred = jnp.concatenate([sound, sound], axis=2) / np.sqrt(2)
  for other in (centred, panned[..., ::-1]):
    for name, value in _distance(panned, other).items():
      assert jnp.all(value > 0.2), name


def test_log_mel_power_is_that_of_librosa():
  true, decoded = _noise(0, 1), _noise(1, 1)

  def log_mel(sound, size):
    power = librosa.feature.melspectrogram(
      y=np.asarray(sound, np.float64).ravel(),
      sr=RATE,
      n_fft=size,
      hop_length=size // 4,
      n_mels=size // 8,
      pad_mode="constant",
    )
    mel = librosa.filters.mel(sr=RATE, n_fft=size, n_mels=size // 8)
    scale = (size / 2) ** 2 * (mel.sum(axis=1, keepdims=True) + 1e-8)
    return np.log(power / scale + losses.FLOOR**2)

  wanted = [
    np.mean(np.abs(log_mel(true, n) - log_mel(decoded, n))) / 2 for n in SIZES
  ]
  actual = _distance(true, decoded)["mel"][0]
  np.testing.assert_allclose(actual, np.mean(wanted), rtol=1e-4)


def test_examples_do_not_see_each_other():
  true, decoded = _noise(0), _noise(1)
  both, alone = _distance(true, decoded), _distance(true[:1], decoded[:1])
  for name in both:
    np.testing.assert_allclose(both[name][:1], alone[name], rtol=1e-5)


def test_silence_is_finite_with_finite_gradients():
  silence = jnp.zeros((2, 2048, 1))
  total = lambda decoded: sum(
    v.sum() for v in _distance(silence, decoded).values()
  )
  assert np.isfinite(total(_noise(0)))
  assert jnp.all(jnp.isfinite(jax.jit(jax.grad(total))(silence)))


def test_magnitude_of_a_full_scale_sine_is_a_half():
  sine = jnp.sin(2 * jnp.pi * 1000 * jnp.arange(4096) / RATE)
  actual = losses.magnitude(sine, n_fft=512)
  np.testing.assert_allclose(actual[4:-4].max(), 0.5, atol=1e-3)


def test_kl_divergence_is_the_integral():
  rng = np.random.default_rng(0)
  mean, logvar = rng.normal(size=(1, 2, 3)), rng.uniform(-2, 1, (1, 2, 3))
  x, step = np.linspace(-20, 20, 40_001, retstep=True)
  spread = np.exp(logvar / 2)[..., None]
  density = stats.norm.pdf(x, mean[..., None], spread)
  ratio = stats.norm.logpdf(x, mean[..., None], spread) - stats.norm.logpdf(x)
  wanted = (density * ratio).sum(axis=-1).mean() * step
  actual = losses.kl_divergence(jnp.asarray(mean), jnp.asarray(logvar))
  np.testing.assert_allclose(actual, [wanted], rtol=1e-5)


def test_hinge_is_zero_where_scores_are_beyond_the_margin():
  real, fake = [jnp.full((2, 5), 1.5)], [jnp.full((2, 5), -1.5)]
  np.testing.assert_array_equal(losses.hinge_discriminator(real, fake), 0)
  np.testing.assert_allclose(losses.hinge_generator(fake), 1.5)
  np.testing.assert_allclose(losses.hinge_discriminator(fake, real), 5.0)


def test_feature_matching_is_relative_and_zero_at_equality():
  features = [jnp.full((2, 3, 4), 2.0), jnp.full((2, 5), -7.0)]
  np.testing.assert_array_equal(losses.feature_matching(features, features), 0)
  halves = [f / 2 for f in features]
  actual = losses.feature_matching(features, halves)
  np.testing.assert_allclose(actual, 0.5, atol=1e-3)
