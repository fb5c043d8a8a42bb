"""Solvers that carry noise to latents along a learned velocity.

  dx/dt = velocity(x, t),   x(0) = noise,   x(1) = latents

on an even grid of `num_steps` intervals: Euler's method, or Heun's, which is
second order and evaluates the model twice a step.
"""

import dataclasses

import jax
import jax.numpy as jnp

from v2a_jax.sampling import guidance as guidance_lib
from v2a_jax.sampling.windows import Windows

SOLVERS = ("euler", "heun")


def integrate(velocity, x, *, num_steps: int, solver: str = "euler"):
  """Integrates dx/dt = velocity(x, t) from t = 0 to 1.

  Args:
    velocity: function of x and a scalar t.
    x: the state at t = 0, any array.
    num_steps: intervals.
    solver: one of `SOLVERS`.
  """
  dt = 1.0 / num_steps

  def euler(x, t):
    return x + dt * velocity(x, t)

  def heun(x, t):
    v = velocity(x, t)
    return x + 0.5 * dt * (v + velocity(x + dt * v, t + dt))

  if solver not in SOLVERS:
    raise ValueError(f"solver={solver!r} is not one of {', '.join(SOLVERS)}")
  step = {"euler": euler, "heun": heun}[solver]
  grid = jnp.arange(num_steps) * dt
  x, _ = jax.lax.scan(lambda x, t: (step(x, t), None), x, grid)
  return x


@dataclasses.dataclass(frozen=True, kw_only=True)
class ODESampler:
  """Turns a flow-matching model into latents.

  Attributes:
    num_steps: solver steps.
    solver: one of `SOLVERS`.
    guidance: a scale for each condition.
  """

  num_steps: int = 25
  solver: str = "euler"
  guidance: guidance_lib.Guidance = guidance_lib.Guidance()

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
  ):
    """Samples latents.

    Args:
      model: a `Generator` around a `DiT`.
      objective: gives `velocity(model, x, time, tokens, times=...)`.
      cond: conditions of b·windows.count windows, clip by clip.
      keys: [b] random keys, one a clip: a clip's noise is its own.
      times: [length], seconds of each latent in its window.
      windows: how windows tile the clip.
      negative: see `Guidance.branches`.

    Returns:
      float32 [b windows.total c].
    """
    cond, weights = self.guidance.branches(cond, negative)
    tokens = model.encode(cond)
    shape = (windows.total, model.backbone.config.channels)
    noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)

    def velocity(x, t):
      parts = guidance_lib.spread(windows.split(x), weights)
      time = jnp.full(parts.shape[:1], t)
      v = objective.velocity(model, parts, time, tokens, times=times)
      return windows.merge(guidance_lib.combine(v, weights))

    return integrate(
      velocity, noise, num_steps=self.num_steps, solver=self.solver
    )
