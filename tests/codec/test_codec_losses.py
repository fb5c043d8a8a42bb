"""Spectral distances, divergence and the two players' losses."""

import jax
import jax.numpy as jnp
import librosa
import numpy as np

from v2a_jax.codec import losses

RATE, SIZES = 16000, (128, 512)


def _noise(seed, batch=2):
  key = jax.random.key(seed)
  return 0.1 * jax.random.normal(key, (batch, 2048, 1))


@jax.jit
def _distance(true, made):
  return losses.spectral_distance(true, made, sample_rate=RATE, fft_sizes=SIZES)


def test_spectral_distance_is_zero_at_equality_and_only_there():
  true = _noise(0)
  for name, value in _distance(true, true).items():
    np.testing.assert_allclose(value, 0, atol=1e-6, err_msg=name)
  for name, value in _distance(true, _noise(1)).items():
    assert value.shape == (2,) and jnp.all(value > 0.1), name


def test_half_the_level_is_half_the_convergence_and_log_two():
  true = _noise(0)
  found = _distance(true, true / 2)
  np.testing.assert_allclose(found["convergence"], 0.5, atol=0.03)
  np.testing.assert_allclose(found["log_magnitude"], np.log(2), atol=0.05)
  np.testing.assert_allclose(found["mel"], np.log(2), atol=0.05)


def test_log_mel_power_is_that_of_librosa():
  true, made = _noise(0, 1), _noise(1, 1)

  def log_mel(signal, size):
    power = librosa.feature.melspectrogram(
      y=np.asarray(signal, np.float64).ravel(),
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
    np.mean(np.abs(log_mel(true, n) - log_mel(made, n))) / 2 for n in SIZES
  ]
  found = _distance(true, made)["mel"][0]
  np.testing.assert_allclose(found, np.mean(wanted), rtol=1e-4)


def test_examples_do_not_see_each_other():
  true, made = _noise(0), _noise(1)
  both, alone = _distance(true, made), _distance(true[:1], made[:1])
  for name in both:
    np.testing.assert_allclose(both[name][:1], alone[name], rtol=1e-5)


def test_silence_is_finite_with_finite_gradients():
  silence = jnp.zeros((2, 2048, 1))
  total = lambda made: sum(v.sum() for v in _distance(silence, made).values())
  assert np.isfinite(total(_noise(0)))
  assert jnp.all(jnp.isfinite(jax.jit(jax.grad(total))(silence)))


def test_magnitude_of_a_full_scale_sine_is_a_half():
  sine = jnp.sin(2 * jnp.pi * 1000 * jnp.arange(4096) / RATE)
  found = losses.magnitude(sine, n_fft=512)
  np.testing.assert_allclose(found[4:-4].max(), 0.5, atol=1e-3)


def test_kl_divergence_against_samples():
  mean, logvar = jnp.full((1, 4, 3), 0.7), jnp.full((1, 4, 3), -1.0)
  assert losses.kl_divergence(mean * 0, logvar * 0) == 0
  noise = np.random.default_rng(0).normal(size=200_000)
  draws = 0.7 + np.exp(-0.5) * noise
  log_ratio = (-0.5 * noise**2 + 0.5) - (-0.5 * draws**2)
  wanted = log_ratio.mean()
  np.testing.assert_allclose(
    losses.kl_divergence(mean, logvar), wanted, atol=0.02
  )


def test_hinge_is_zero_for_a_sure_and_right_critic():
  real, fake = [jnp.full((2, 5), 1.5)], [jnp.full((2, 5), -1.5)]
  np.testing.assert_array_equal(losses.hinge_discriminator(real, fake), 0)
  np.testing.assert_allclose(losses.hinge_generator(fake), 1.5)
  np.testing.assert_allclose(losses.hinge_discriminator(fake, real), 5.0)


def test_feature_matching_is_relative_and_zero_at_equality():
  features = [jnp.full((2, 3, 4), 2.0), jnp.full((2, 5), -7.0)]
  np.testing.assert_array_equal(losses.feature_matching(features, features), 0)
  halves = [f / 2 for f in features]
  found = losses.feature_matching(features, halves)
  np.testing.assert_allclose(found, 0.5, atol=1e-3)
