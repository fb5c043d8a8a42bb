"""Paths, predictions and weightings against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from configs import diffusion_tiny
from tests import tiny
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.experiment.sections import ConfigError
from v2a_jax.objectives.corruption import (
  PATHS,
  PREDICTION_TYPES,
  TIMES,
  WEIGHTINGS,
  Corruption,
)
from v2a_jax.objectives.diffusion import Diffusion

KINDS = [(p, k) for p in PATHS for k in PREDICTION_TYPES]


def _draw():
  keys = jax.random.split(jax.random.key(0), 3)
  noise, data = (jax.random.normal(k, (64, 5)) for k in keys[:2])
  return noise, data, jax.random.uniform(keys[2], (64, 1), maxval=0.99)


@pytest.mark.parametrize("path", PATHS)
def test_a_path_leads_from_noise_to_data(path):
  noise, data, _ = _draw()
  mix = Corruption(path).mix
  np.testing.assert_allclose(mix(noise, data, 0.0), noise, atol=1e-6)
  np.testing.assert_allclose(mix(noise, data, 1.0), data, atol=1e-6)


@pytest.mark.parametrize("path, kind", KINDS)
def test_a_true_prediction_gives_the_data_and_the_velocity(path, kind):
  corruption = Corruption(path, kind)
  noise, data, time = _draw()
  noisy, velocity = jax.jvp(
    lambda t: corruption.mix(noise, data, t), (time,), (jnp.ones_like(time),)
  )
  prediction = corruption.target(noise, data, time)
  seen = np.asarray(time[:, 0] > 0.05)  # of pure noise nothing is known
  close = lambda a, b: np.testing.assert_allclose(
    a[seen], b[seen], rtol=1e-3, atol=1e-3
  )
  close(corruption.denoised(prediction, noisy, time), data)
  close(corruption.velocity(prediction, noisy, time), velocity)


@pytest.mark.parametrize("path", PATHS)
def test_log_snr_is_that_of_the_path(path):
  noise, data = jax.random.normal(jax.random.key(1), (2, 100_000))
  corruption = Corruption(path)
  power = lambda a, b, time: float(jnp.var(corruption.mix(a, b, time)))
  for time in (0.2, 0.5, 0.9):
    ratio = power(noise * 0, data, time) / power(noise, data * 0, time)
    assert float(corruption.log_snr(time)) == pytest.approx(
      np.log(ratio), abs=0.02
    )
  ends = corruption.log_snr(jnp.asarray([0.0, 1.0]))
  assert ends.tolist() == [-20.0, 20.0]


@pytest.mark.parametrize("path, kind", KINDS)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_a_weighting_means_the_same_whatever_is_predicted(
  path, kind, weighting
):
  objective = Diffusion(path=path, prediction_type=kind, weighting=weighting)
  corruption = objective.corruption
  noise, data, _ = _draw()
  time = jnp.linspace(0.1, 0.9, 64)
  at = time[:, None]
  noisy = corruption.mix(noise, data, at)
  true = corruption.target(noise, data, at)
  wrong = true + 0.1
  error = jnp.square(wrong - true).mean(axis=1)
  of_data = jnp.square(corruption.denoised(wrong, noisy, at) - data).mean(
    axis=1
  )
  snr = jnp.exp(corruption.log_snr(time))
  wanted = {
    "x": 1.0,
    "epsilon": snr,
    "v": snr + 1,
    "min_snr": jnp.minimum(snr, 5.0),
    "sigmoid": snr / (1 + snr),
  }[weighting]
  np.testing.assert_allclose(
    objective.weight(time) * error, wanted * of_data, rtol=2e-2
  )


def test_min_snr_of_a_noise_prediction_is_the_papers():
  objective = Diffusion(
    path="cosine", prediction_type="epsilon", weighting="min_snr"
  )
  time = jnp.linspace(0.1, 0.9, 9)
  snr = jnp.exp(objective.corruption.log_snr(time))
  np.testing.assert_allclose(
    objective.weight(time), jnp.minimum(snr, 5) / snr, rtol=1e-4
  )


def test_a_weighting_from_outside_is_one_entry_of_the_table(monkeypatch):
  config = diffusion_tiny.get_config()
  config.objective.update(weighting="mine", gamma=2.0, bias=0.5)
  with pytest.raises(
    ConfigError, match="objective.weighting='mine' is not one"
  ):
    Experiment.from_config(config)
  monkeypatch.setitem(
    WEIGHTINGS, "mine", lambda log_snr, gamma, bias: gamma + bias * log_snr**2
  )
  objective = Experiment.from_config(config).objective
  time = jnp.linspace(0.1, 0.9, 9)
  log_snr = 2 * np.log(time / (1 - time))
  # An error of the velocity is 1 / (1 - t) times that of the latents.
  wanted = (2.0 + 0.5 * log_snr**2) * (1 - time) ** 2
  np.testing.assert_allclose(objective.weight(time), wanted, rtol=1e-4)


def test_a_distribution_of_time_from_outside_is_one_entry_of_the_table(
  monkeypatch,
):
  sure = lambda key, shape, mean, std: jnp.full(shape, mean + std)
  monkeypatch.setitem(TIMES, "sure", sure)
  config = diffusion_tiny.get_config()
  config.objective.update(
    time_distribution="sure",
    time_mean=0.2,
    time_std=0.5,
    alignment_weight=0.0,
  )
  objective = Experiment.from_config(config).objective
  seen = []

  class Model:
    encode = staticmethod(lambda cond: cond)

    def __call__(self, x, time, tokens, **_):
      seen.append(time)
      return x

  batch = tiny.batch(jnp.zeros((3, 4, 2)), 3)
  objective.loss(Model(), batch, key=jax.random.key(0), train=False)
  np.testing.assert_allclose(seen[0], [0.7, 0.7, 0.7], rtol=1e-6)


def test_uniform_times_are_uniform():
  objective = Diffusion(time_distribution="uniform")
  times = objective.sample_time(jax.random.key(0), (20_000,))
  assert stats.kstest(np.asarray(times), "uniform").pvalue > 0.01


def test_unknown_names_are_answered_with_the_known_ones():
  with pytest.raises(ValueError, match="path='vp'.*linear, cosine"):
    Diffusion(path="vp")
  with pytest.raises(ValueError, match="'eps'.*velocity, v, epsilon, x"):
    Diffusion(prediction_type="eps")
  with pytest.raises(ValueError, match="'snr'.*min_snr"):
    Diffusion(weighting="snr")
