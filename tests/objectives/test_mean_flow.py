"""Average velocities against the closed form for Gaussian latents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import diffusion_tiny
from tests import tiny
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.experiment.sections import ConfigError
from v2a_jax.objectives.mean_flow import MeanFlow
from v2a_jax.parallel import rows
from v2a_jax.sampling.ode import ODESampler
from v2a_jax.sampling.windows import Windows

MEAN, STD, T = 1.5, 0.5, 4
PLAIN = MeanFlow(instant_rate=0.0, power=0.0, cond_drop_rate=0.0)


class Flow:
  """The exact average velocity to latents N(MEAN, STD^2), slightly changed.

  The flow carries x_t = t MEAN + s_t z, s_t^2 = (1 - t)^2 + (t STD)^2, along
  the same z.
  """

  class backbone:
    class config:
      channels = tiny.CHANNELS

  def __init__(self, gain=1.0, offset=0.0):
    self.gain, self.offset = gain, offset

  def encode(self, cond):
    return cond

  def __call__(self, x, time, tokens, *, times, until, mask=None, known=None):
    at = lambda v: v[:, None, None]
    scale = lambda t: jnp.sqrt((1 - t) ** 2 + (t * STD) ** 2)
    t, r = at(time), at(until)
    later = r * MEAN + scale(r) / scale(t) * (x - t * MEAN)
    average = (later - x) / jnp.maximum(r - t, 1e-4)
    return self.gain * average + self.offset


def test_the_gradient_vanishes_at_the_true_average():
  """The target moves with the model (3), so slopes are compared, not losses."""

  def slope(gain, offset):
    latents = MEAN + STD * jax.random.normal(
      jax.random.key(0), (4096, T, tiny.CHANNELS)
    )
    batch = tiny.batch(latents, b=4096).replace(cond=None)
    total = lambda g, o: PLAIN.loss(
      Flow(g, o), batch, key=jax.random.key(1), train=False
    )[0].mean()
    return np.array(jax.jit(jax.grad(total, (0, 1)))(gain, offset))

  at_truth = np.abs(slope(1.0, 0.0)).max()
  assert at_truth < 0.05
  assert np.abs(slope(1.3, 0.0)).max() > 0.2
  assert np.abs(slope(1.0, 0.3)).max() > 0.2


@pytest.mark.parametrize("num_steps", [1, 4])
def test_one_step_is_enough(num_steps):
  keys = jax.vmap(jax.random.key)(jnp.arange(2))
  latents = tiny.sample(
    ODESampler(num_steps=num_steps, solver="average"),
    Flow(),
    PLAIN,
    tiny.conditioning(),
    keys=keys,
    times=tiny.times(T),
    windows=Windows(T, T),
  )
  noise = jax.vmap(lambda k: jax.random.normal(k, (T, tiny.CHANNELS)))(keys)
  np.testing.assert_allclose(latents, MEAN + STD * noise, atol=2e-3)


def test_with_no_interval_it_is_rectified_flow():
  model = tiny.diffusion(average=True)
  batch = tiny.batch(jax.random.normal(jax.random.key(0), (2, 8, 3)))
  objective = MeanFlow(instant_rate=1.0, power=0.0)
  start, end = objective.sample_times(jax.random.key(3), 100)
  np.testing.assert_array_equal(start, end)
  loss, metrics = tiny.loss(
    objective, model, batch, key=jax.random.key(0), train=False
  )
  np.testing.assert_allclose(loss, metrics["error"])
  k_time, k_noise, _ = jax.random.split(jax.random.key(0), 3)
  noise = rows.draw(jax.random.normal, k_noise, batch.target.shape)
  time, _ = objective.sample_times(k_time, 2)
  at = time[:, None, None]
  predict = jax.jit(
    lambda cond: model(
      (1 - at) * noise + at * batch.target,
      time,
      model.encode(cond),
      times=batch.target_times,
      mask=batch.target_mask,
      until=time,
    )
  )
  error = jnp.square(predict(batch.cond) - (batch.target - noise))
  np.testing.assert_allclose(loss, error.mean(axis=(1, 2)), rtol=1e-4)


def test_intervals_run_forward_and_some_are_instants():
  start, end = MeanFlow(instant_rate=0.6).sample_times(jax.random.key(0), 5000)
  assert (end >= start).all() and (start > 0).all() and (end < 1).all()
  assert float((end == start).mean()) == pytest.approx(0.6, abs=0.03)


def test_it_needs_a_model_that_sees_the_interval():
  config = diffusion_tiny.get_config()
  config.objective = dict(name="mean_flow")
  with pytest.raises(ConfigError, match="config.model.average is not set"):
    Experiment.from_config(config)
  config.model.average = True
  assert Experiment.from_config(config).objective == MeanFlow()


def test_the_adaptive_weight_is_used_in_training_only():
  """With it all losses are near 1, whatever the error."""
  batch = tiny.batch(jax.random.normal(jax.random.key(0), (2, T, 3)))
  objective = MeanFlow(power=1.0, cond_drop_rate=0.0)
  run = lambda train: tiny.loss(
    objective, Flow(offset=3.0), batch, key=jax.random.key(0), train=train
  )
  loss, metrics = run(True)
  error = np.asarray(metrics["error"])
  np.testing.assert_allclose(loss, error / (error + 1e-3), rtol=1e-5)
  loss, metrics = run(False)
  np.testing.assert_array_equal(loss, metrics["error"])
