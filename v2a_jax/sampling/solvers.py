"""Solvers that carry noise to data along a learned path.

  dx/dt = velocity(x, t),   x(0) = noise,   x(1) = data

on an even grid of `num_steps` intervals, or from a later time on. To add a solver, write a callable like
`Euler` and enter it in `SOLVERS`, also from outside: `SOLVERS["mine"] = ...`.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp

from v2a_jax.objectives.base import Need
from v2a_jax.objectives.corruption import Corruption

# predict(x, t, until=None): the model's prediction at x and the scalar time t;
# `until` is the end of the interval, for models of average velocities.
Predict = Callable[..., Any]


class Solver(Protocol):
  """Carries noise to data with any model of a path.

  A solver that requires settings of the model lists them in `needs`.
  """

  needs: ClassVar[tuple[Need, ...]] = ()

  def __call__(
    self,
    predict: Predict,
    noise,
    *,
    num_steps: int,
    corruption: Corruption,
    begin: float = 0.0,
  ):
    """Solves from t = `begin` to 1.

    Args:
      predict: model of `corruption.prediction_type`; see `Predict`.
      noise: state at t = `begin`, any array; noise where that is 0.
      num_steps: number of intervals.
      corruption: path and prediction type.
      begin: time at which to begin, in [0, 1).

    Returns:
      The state at t = 1, of the shape of `noise`.
    """
    ...


def _scan(step, x, num_steps: int, begin: float):
  """Folds `step(x, t)` over the starts of the intervals."""
  grid = begin + jnp.arange(num_steps) * ((1.0 - begin) / num_steps)
  x, _ = jax.lax.scan(lambda x, t: (step(x, t), None), x, grid)
  return x


@dataclasses.dataclass(frozen=True)
class Euler(Solver):
  """Euler's method: one evaluation of the model per step, first order."""

  def __call__(self, predict, noise, *, num_steps, corruption, begin=0.0):
    dt = (1.0 - begin) / num_steps

    def step(x, t):
      return x + dt * corruption.velocity(predict(x, t), x, t)

    return _scan(step, noise, num_steps, begin)


@dataclasses.dataclass(frozen=True)
class Average(Euler):
  """Euler's method with average velocities, exact for any number of steps.

  See `objectives/mean_flow.py`, equation 4.
  """

  needs: ClassVar = (
    Need(
      "",
      "model.average",
      "the model does not predict average velocities; use 'euler'",
    ),
  )

  def __call__(self, predict, noise, *, num_steps, corruption, begin=0.0):
    dt = (1.0 - begin) / num_steps
    average = lambda x, t: predict(x, t, t + dt)
    return super().__call__(
      average,
      noise,
      num_steps=num_steps,
      corruption=corruption,
      begin=begin,
    )


@dataclasses.dataclass(frozen=True)
class Heun(Solver):
  """Heun's method: two evaluations per step, second order.

  Predictions other than velocities have no velocity at t = 1, so with them the
  last step is Euler's.
  """

  def __call__(self, predict, noise, *, num_steps, corruption, begin=0.0):
    dt = (1.0 - begin) / num_steps
    open_end = corruption.prediction_type != "velocity"
    velocity = lambda x, t: corruption.velocity(predict(x, t), x, t)

    def step(x, t):
      v = velocity(x, t)
      ahead = velocity(x + dt * v, t + dt)
      if open_end:
        ahead = jnp.where(t + 1.5 * dt > 1, v, ahead)
      return x + 0.5 * dt * (v + ahead)

    return _scan(step, noise, num_steps, begin)


@dataclasses.dataclass(frozen=True)
class DPMSolverPP2M(Solver):
  """DPM-Solver++(2M): one evaluation per step, second order.

  arXiv:2211.01095, algorithm 2: with D the estimate of the data and
  λ = log(α / σ),

    x_{i+1} = σ_{i+1}/σ_i x_i + (α_{i+1} - α_i σ_{i+1}/σ_i) D'_i
    D'_i = D_i + (D_i - D_{i-1}) h_{i+1} / (2 h_i),  h_i = λ_i - λ_{i-1}
  """

  def __call__(self, predict, noise, *, num_steps, corruption, begin=0.0):
    grid = begin + (1.0 - begin) * jnp.arange(num_steps + 1) / num_steps
    alpha, sigma, _, _ = corruption.coefficients(grid)
    h = jnp.diff(corruption.log_snr(grid))
    shrink = sigma[1:] / sigma[:-1]
    gain = alpha[1:] - alpha[:-1] * shrink
    # The first and the last interval of λ are infinite: there, and after the
    # first, the formula's limit is its first-order form.
    ahead = jnp.zeros(num_steps).at[2:-1].set(h[2:-1] / (2 * h[1:-2]))

    def step(carry, interval):
      x, before = carry
      t, shrink, gain, ahead = interval
      data = corruption.denoised(predict(x, t), x, t)
      x = shrink * x + gain * (data + ahead * (data - before))
      return (x, data), None

    start = (noise, jnp.zeros_like(noise))
    (x, _), _ = jax.lax.scan(step, start, (grid[:-1], shrink, gain, ahead))
    return x


SOLVERS: dict[str, Solver] = {
  "euler": Euler(),
  "heun": Heun(),
  "dpmpp_2m": DPMSolverPP2M(),
  "average": Average(),
}
