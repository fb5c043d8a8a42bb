"""Solvers that carry noise to latents along a learned path.

  dx/dt = velocity(x, t),   x(0) = noise,   x(1) = latents

on an even grid of `num_steps` intervals:

  euler     one evaluation of the model a step, first order
  heun      two, second order
  dpmpp_2m  one, second order: with D the estimate of the latents and
            λ = log(α / σ), DPM-Solver++(2M) (arXiv:2211.01095, algorithm 2)

            x_{i+1} = σ_{i+1}/σ_i x_i + (α_{i+1} - α_i σ_{i+1}/σ_i) D'_i
            D'_i = D_i + (D_i - D_{i-1}) h_{i+1} / (2 h_i),  h_i = λ_i - λ_{i-1}

  average   one, of a model that predicts average velocities: exact at any
            number of steps, if the model is (`objectives/mean_flow.py`)
"""

import dataclasses

import jax
import jax.numpy as jnp

from v2a_jax.sampling import guidance as guidance_lib
from v2a_jax.sampling.windows import Windows

SOLVERS = ("euler", "heun", "dpmpp_2m", "average")


def check_solver(name: str) -> None:
  """Raises ValueError, naming those there are, if there is no such solver."""
  if name not in SOLVERS:
    raise ValueError(f"solver={name!r} is not one of {', '.join(SOLVERS)}")


def integrate(
  velocity, x, *, num_steps: int, solver: str = "euler", open_end: bool = False
):
  """Integrates dx/dt = velocity(x, t) from t = 0 to 1.

  Args:
    velocity: function of x and a scalar t.
    x: the state at t = 0, any array.
    num_steps: intervals.
    solver: `euler`, `heun`, or `average`, which is Euler's formula.
    open_end: the velocity is not defined at t = 1, so that Heun's last step
      must be Euler's.
  """
  dt = 1.0 / num_steps

  def euler(x, t):
    return x + dt * velocity(x, t)

  def heun(x, t):
    v = velocity(x, t)
    ahead = velocity(x + dt * v, t + dt)
    if open_end:
      ahead = jnp.where(t + 1.5 * dt > 1, v, ahead)
    return x + 0.5 * dt * (v + ahead)

  step = {"euler": euler, "heun": heun, "average": euler}[solver]
  grid = jnp.arange(num_steps) * dt
  x, _ = jax.lax.scan(lambda x, t: (step(x, t), None), x, grid)
  return x


def integrate_denoised(denoised, x, *, num_steps: int, corruption):
  """DPM-Solver++(2M) from t = 0 to 1; see the module.

  Args:
    denoised: function of x and a scalar t, the estimate of the data.
    x: the state at t = 0, any array.
    num_steps: intervals.
    corruption: the path.
  """
  grid = jnp.arange(num_steps + 1) / num_steps
  alpha, sigma, _, _ = corruption.coefficients(grid)
  h = jnp.diff(corruption.log_snr(grid))
  shrink = sigma[1:] / sigma[:-1]
  gain = alpha[1:] - alpha[:-1] * shrink
  # The first and the last interval of λ are infinite: there, and after the
  # first, the formula's limit is its first-order form.
  ahead = jnp.zeros(num_steps).at[2:-1].set(h[2:-1] / (2 * h[1:-2]))

  def step(carry, now):
    x, before = carry
    t, shrink, gain, ahead = now
    data = denoised(x, t)
    return (shrink * x + gain * (data + ahead * (data - before)), data), None

  start = (x, jnp.zeros_like(x))
  (x, _), _ = jax.lax.scan(step, start, (grid[:-1], shrink, gain, ahead))
  return x


def solve(predict, noise, *, num_steps: int, solver: str, corruption):
  """Carries noise to data along a path, whatever the model predicts.

  Args:
    predict: function of x and a scalar t, of `corruption.prediction_type`.
    noise: the state at t = 0, any array.
    num_steps: intervals.
    solver: one of `SOLVERS`.
    corruption: the path.
  """
  if solver == "dpmpp_2m":
    return integrate_denoised(
      lambda x, t: corruption.denoised(predict(x, t), x, t),
      noise,
      num_steps=num_steps,
      corruption=corruption,
    )
  return integrate(
    lambda x, t: corruption.velocity(predict(x, t), x, t),
    noise,
    num_steps=num_steps,
    solver=solver,
    open_end=corruption.prediction_type != "velocity",
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ODESampler:
  """Turns noise into latents with a diffusion model.

  Attributes:
    num_steps: solver steps.
    solver: one of `SOLVERS`.
    guidance: a scale for each condition.
  """

  num_steps: int = 25
  solver: str = "euler"
  guidance: guidance_lib.Guidance = guidance_lib.Guidance()

  def __post_init__(self):
    check_solver(self.solver)

  def __call__(
    self,
    model,
    objective,
    cond,
    *,
    keys,
    times,
    windows: Windows,
    negative=None,
    known=None,
  ):
    """Samples latents.

    Args:
      model: a `Generator` around a `DiT`.
      objective: its `corruption` says what the model predicts.
      cond: conditions of b·windows.count windows, clip by clip.
      keys: [b] random keys, one a clip: a clip's noise is its own.
      times: [length], seconds of each latent in its window.
      windows: how windows tile the clip.
      negative: see `Guidance.branches`.
      known: (latents [b windows.total c], bool [b windows.total]): where it
        is True those latents are given back and the rest is made to fit.
        While solving they lie on the path, with their own noise, which serves
        any model (arXiv:2201.09865 does so); one with `infill` is told them.

    Returns:
      float32 [b windows.total c].
    """
    cond, weights = self.guidance.branches(cond, negative)
    tokens = model.encode(cond)
    shape = (windows.total, model.backbone.config.channels)
    noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)

    by_window = lambda x: guidance_lib.spread(windows.split(x), weights)
    told = known and jax.tree.map(by_window, known)
    path = objective.corruption
    averaging = self.solver == "average"
    until = lambda time: time + 1 / self.num_steps if averaging else None

    def predict(x, t):
      if known:
        x = keep_known(x, path.mix(noise, known[0], t), known)
      parts = by_window(x)
      time = jnp.full(parts.shape[:1], t)
      found = model(
        parts, time, tokens, times=times, known=told, until=until(time)
      )
      return windows.merge(guidance_lib.combine(found, weights))

    made = solve(
      predict,
      noise,
      num_steps=self.num_steps,
      solver=self.solver,
      corruption=path,
    )
    return keep_known(made, known[0], known) if known else made


def keep_known(x, given, known):
  """x [b t c] with `given` where the mask of `known` is True."""
  return jnp.where(known[1][..., None], given, x)
