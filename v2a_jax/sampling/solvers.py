"""Solvers that carry noise to data along a learned path.

  dx/dt = velocity(x, t),   x(0) = noise,   x(1) = data

on a grid of times (`time_grid`). To add a solver, write a callable like `Euler`
and enter it in `SOLVERS`, also from outside: `SOLVERS["mine"] = ...`.
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


def time_grid(num_steps: int, *, begin: float = 0.0, shift: float = 1.0):
  """Returns the times of a solver's intervals, [num_steps + 1], up to 1.

  Of even steps u, the share of noise n = 1 - u is shifted as in Stable Diffusion 3
  (arXiv:2403.03206, section 5.3.2), to s n / (1 + (s - 1) n); and the whole is
  squeezed into [begin, 1].

  Args:
    num_steps: number of intervals.
    begin: first time, in [0, 1).
    shift: s; above 1 there are more steps near noise, 1 leaves them even.
  """
  noise = 1.0 - jnp.arange(num_steps + 1) / num_steps
  noise = shift * noise / (1.0 + (shift - 1.0) * noise)
  return 1.0 - (1.0 - begin) * noise


class Solver(Protocol):
  """Carries noise to data with any model of a path.

  A solver that requires settings of the model lists them in `needs`.
  """

  needs: ClassVar[tuple[Need, ...]] = ()

  def __call__(self, predict: Predict, noise, *, grid, corruption: Corruption):
    """Solves along a grid of times.

    Args:
      predict: model of `corruption.prediction_type`; see `Predict`.
      noise: state at the first time, any array; noise where that is 0.
      grid: times [steps + 1], increasing to 1.
      corruption: path and prediction type.

    Returns:
      The state at t = 1, of the shape of `noise`.
    """
    ...


def _scan(step, x, grid):
  """Folds `step(x, start, end)` over the intervals of a grid."""
  intervals = grid[:-1], grid[1:]
  return jax.lax.scan(lambda x, i: (step(x, *i), None), x, intervals)[0]


@dataclasses.dataclass(frozen=True)
class Euler(Solver):
  """Euler's method: one evaluation of the model per step, first order."""

  def __call__(self, predict, noise, *, grid, corruption):
    def step(x, t, end):
      return x + (end - t) * corruption.velocity(predict(x, t), x, t)

    return _scan(step, noise, grid)


@dataclasses.dataclass(frozen=True)
class Average(Solver):
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

  def __call__(self, predict, noise, *, grid, corruption):
    def step(x, t, end):
      return x + (end - t) * corruption.velocity(predict(x, t, end), x, t)

    return _scan(step, noise, grid)


@dataclasses.dataclass(frozen=True)
class Heun(Solver):
  """Heun's method: two evaluations per step, second order.

  Predictions other than velocities have no velocity at t = 1, so with them the
  last step is Euler's.
  """

  def __call__(self, predict, noise, *, grid, corruption):
    open_end = corruption.prediction_type != "velocity"
    velocity = lambda x, t: corruption.velocity(predict(x, t), x, t)

    def step(x, t, end):
      v = velocity(x, t)
      ahead = velocity(x + (end - t) * v, end)
      if open_end:
        ahead = jnp.where(end == grid[-1], v, ahead)
      return x + 0.5 * (end - t) * (v + ahead)

    return _scan(step, noise, grid)


@dataclasses.dataclass(frozen=True)
class DPMSolverPP2M(Solver):
  """DPM-Solver++(2M): one evaluation per step, second order.

  arXiv:2211.01095, algorithm 2: with D the estimate of the data and
  λ = log(α / σ),

    x_{i+1} = σ_{i+1}/σ_i x_i + (α_{i+1} - α_i σ_{i+1}/σ_i) D'_i
    D'_i = D_i + (D_i - D_{i-1}) h_{i+1} / (2 h_i),  h_i = λ_i - λ_{i-1}
  """

  def __call__(self, predict, noise, *, grid, corruption):
    alpha, sigma, _, _ = corruption.coefficients(grid)
    h = jnp.diff(corruption.log_snr(grid))
    shrink = sigma[1:] / sigma[:-1]
    gain = alpha[1:] - alpha[:-1] * shrink
    # The first and the last interval of λ are infinite: there, and after the
    # first, the formula's limit is its first-order form.
    ahead = jnp.zeros_like(h).at[2:-1].set(h[2:-1] / (2 * h[1:-2]))

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
