"""Solvers: orders, exact flows, and one from outside the package."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import diffusion_tiny
from tests import tiny
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.objectives.corruption import PATHS, PREDICTION_TYPES, Corruption
from v2a_jax.objectives.diffusion import Diffusion
from v2a_jax.sampling.autoregressive import LatentSampler
from v2a_jax.sampling.guidance import Guidance
from v2a_jax.sampling.ode import ODESampler
from v2a_jax.sampling.solvers import SOLVERS, time_grid
from v2a_jax.sampling.windows import Windows

KINDS = [(p, k) for p in PATHS for k in PREDICTION_TYPES]
MEAN, STD = 1.5, 0.5


def order_of(solver, **schedule):
  """The order on dx/dt = -2 x + t, x(0) = 1, by errors of 16 and 32 steps."""
  exact = 1.25 * np.exp(-2.0) + 0.25
  error = lambda n: abs(
    solver(
      lambda x, t: -2 * x + t,
      jnp.ones(()),
      grid=time_grid(n, **schedule),
      corruption=Corruption(),
    )
    - exact
  )
  return np.log2(error(16) / error(32))


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("solver, order", [("euler", 1), ("heun", 2)])
def test_solver_has_its_order(solver, order, shift):
  found = order_of(SOLVERS[solver], shift=shift)
  assert found == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_a_grid_is_that_of_stable_diffusion_3(shift):
  # There t is the share of noise: t_m = sqrt(m/n) t / (1 + (sqrt(m/n) - 1) t).
  t = 1 - np.arange(9) / 8
  shifted = shift * t / (1 + (shift - 1) * t)
  np.testing.assert_allclose(time_grid(8, shift=shift), 1 - shifted, atol=1e-6)
  late = np.asarray(time_grid(8, shift=shift, begin=0.4))
  np.testing.assert_allclose(late, 0.4 + 0.6 * (1 - shifted), atol=1e-6)
  assert late[-1] == 1.0


def test_a_shift_of_training_is_a_mean_of_its_times():
  """Logit-normal times of mean -log(s) are those of mean 0, shifted by s."""
  key, s = jax.random.key(0), 3.0
  draw = lambda mean: Diffusion(time_mean=mean).sample_time(key, (1000,))
  noise = 1 - draw(0.0)
  shifted = s * noise / (1 + (s - 1) * noise)
  np.testing.assert_allclose(draw(-np.log(s)), 1 - shifted, atol=1e-5)


def midpoint(predict, noise, *, grid, corruption):
  """The midpoint method, as a user would write it outside the package."""
  velocity = lambda x, t: corruption.velocity(predict(x, t), x, t)
  x = noise
  for t, end in zip(grid, grid[1:]):
    half = x + 0.5 * (end - t) * velocity(x, t)
    x = x + (end - t) * velocity(half, (t + end) / 2)
  return x


def test_a_solver_from_outside_is_one_entry_of_the_table(monkeypatch):
  with pytest.raises(ValueError, match="'midpoint' is not one of euler"):
    ODESampler(solver="midpoint")
  monkeypatch.setitem(SOLVERS, "midpoint", midpoint)
  assert order_of(SOLVERS["midpoint"]) == pytest.approx(2, abs=0.2)
  config = diffusion_tiny.get_config()
  config.sampler.update(solver="midpoint", num_steps=8)
  sampler = Experiment.from_config(config).sampler
  assert sampler.solver == "midpoint"
  model, cond = tiny.diffusion(), tiny.conditioning()
  run = lambda sampler: tiny.sample(
    sampler,
    model,
    Diffusion(),
    cond,
    keys=jax.vmap(jax.random.key)(jnp.arange(2)),
    times=tiny.times(8),
    windows=Windows(8, 8),
  )
  latents = run(dataclasses.replace(sampler, guidance=Guidance()))
  close = run(ODESampler(num_steps=8, solver="heun"))
  far = run(ODESampler(num_steps=1))
  off = np.abs(latents - close).max()
  assert 0 < off < 0.2 * np.abs(far - close).max()


def test_an_unknown_solver_is_answered_with_the_known_ones():
  for sampler in (ODESampler, LatentSampler):
    with pytest.raises(ValueError, match="'rk4'.*euler, heun"):
      sampler(solver="rk4")


def _error(path, kind, solver, num_steps):
  """The error of samples of N(MEAN, STD^2) with the best predictor.

  It has a closed form; the exact flow maps noise to MEAN + STD noise.
  """
  corruption = Corruption(path, kind)

  def predict(x, time):
    alpha, sigma, _, _ = corruption.coefficients(time)
    gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
    data = MEAN + gain * (x - alpha * MEAN)
    noise = (x - alpha * data) / jnp.maximum(sigma, 1e-6)
    return corruption.target(noise, data, time)

  noise = jnp.linspace(-2, 2, 9)
  samples = SOLVERS[solver](
    predict, noise, grid=time_grid(num_steps), corruption=corruption
  )
  return float(jnp.abs(samples - (MEAN + STD * noise)).max())


@pytest.mark.parametrize("path, kind", KINDS)
@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp_2m"])
def test_a_known_gaussian_is_reached(path, kind, solver):
  # A prediction of noise does not depend on the data in the first step.
  allowed = 0.1 if solver == "euler" or kind == "epsilon" else 0.02
  assert _error(path, kind, solver, 48) < allowed


@pytest.mark.parametrize("path", PATHS)
def test_dpm_solver_is_of_second_order(path):
  # λ is infinite at both ends, so the order shows only on a fine grid.
  coarse, fine = (_error(path, "v", "dpmpp_2m", n) for n in (96, 192))
  assert np.log2(coarse / fine) == pytest.approx(2, abs=0.5)
  assert fine < 0.1 * _error(path, "v", "euler", 192)
