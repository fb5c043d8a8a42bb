"""Paths from noise to data, what a model predicts on them, and loss weights.

  (1)  x_t = α(t) x + σ(t) ε          t in [0, 1]; t = 1 is data, t = 0 noise

  linear   α = t, σ = 1 - t            rectified flow, arXiv:2209.03003
  cosine   α = sin(πt/2), σ = cos(πt/2)  variance preserving, arXiv:2102.09672

A model predicts one of

  (2)  velocity  u = α' x + σ' ε       what a solver of dx/dt integrates
       v         v = α ε - σ x         arXiv:2202.00512
       epsilon   ε
       x         x

Each is, at a given x_t, an affine function of x (by (1), ε = (x_t - α x) / σ):

  (3)  prediction = a x + b x_t

so any of them gives the others, and a squared error of one is a² times that of
x. `LOG_SNR_RANGE` keeps log(α²/σ²) finite at the ends.

Paths, predictions, weightings and distributions of t are functions in a table
each. To add one, write a function and enter it, also from outside:
`WEIGHTINGS["mine"] = ...`.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from v2a_jax.basics import settings

LOG_SNR_RANGE = (-20.0, 20.0)
_TINY = 1e-5


def _linear(t):
  return t, 1 - t, jnp.ones_like(t), -jnp.ones_like(t)


def _cosine(t):
  angle, speed = jnp.pi / 2 * t, jnp.pi / 2
  sin, cos = jnp.sin(angle), jnp.cos(angle)
  return sin, cos, speed * cos, -speed * sin


# path(t) -> (α, σ, α', σ').
PATHS: dict[str, Callable[..., Any]] = {"linear": _linear, "cosine": _cosine}

# prediction(α, σ, α', σ') -> its coefficients of x and of ε, equation (2).
PREDICTION_TYPES: dict[str, Callable[..., Any]] = {
  "velocity": lambda alpha, sigma, alpha_dot, sigma_dot: (alpha_dot, sigma_dot),
  "v": lambda alpha, sigma, *_: (-sigma, alpha),
  "epsilon": lambda alpha, *_: (jnp.zeros_like(alpha), jnp.ones_like(alpha)),
  "x": lambda alpha, *_: (jnp.ones_like(alpha), jnp.zeros_like(alpha)),
}

# weighting(log_snr, gamma, bias) -> weight of the squared error of x at a log
# signal-to-noise ratio: arXiv:2006.11239, 2202.00512, 2303.09556, 2303.00848.
WEIGHTINGS: dict[str, Callable[..., Any]] = {
  "x": lambda log_snr, gamma, bias: jnp.ones_like(log_snr),
  "epsilon": lambda log_snr, gamma, bias: jnp.exp(log_snr),
  "v": lambda log_snr, gamma, bias: jnp.exp(log_snr) + 1,
  "min_snr": lambda log_snr, gamma, bias: jnp.minimum(jnp.exp(log_snr), gamma),
  "sigmoid": lambda log_snr, gamma, bias: (
    jnp.exp(log_snr) * jax.nn.sigmoid(bias - log_snr)
  ),
}

# distribution(key, shape, mean, std) -> diffusion times of one example; the
# logit-normal one is from Esser et al., arXiv:2403.03206.
TIMES: dict[str, Callable[..., Any]] = {
  "logit_normal": lambda key, shape, mean, std: jax.nn.sigmoid(
    mean + std * jax.random.normal(key, shape)
  ),
  "uniform": lambda key, shape, mean, std: jax.random.uniform(key, shape),
}


@dataclasses.dataclass(frozen=True)
class Corruption:
  """A path and what is predicted on it.

  Attributes:
    path: one of `PATHS`.
    prediction_type: one of `PREDICTION_TYPES`.
  """

  path: str = "linear"
  prediction_type: str = "velocity"

  def __post_init__(self):
    settings.choose(self, path=PATHS, prediction_type=PREDICTION_TYPES)

  def coefficients(self, time):
    """Returns α, σ and their derivatives by time, each of `time`'s shape."""
    return PATHS[self.path](jnp.asarray(time, jnp.float32))

  def log_snr(self, time):
    """Computes log(α²/σ²), clipped to `LOG_SNR_RANGE`."""
    alpha, sigma, _, _ = self.coefficients(time)
    low, high = LOG_SNR_RANGE
    floor = jnp.exp(low / 2) / 2
    ratio = jnp.maximum(alpha, floor) / jnp.maximum(sigma, floor)
    return jnp.clip(2 * jnp.log(ratio), low, high)

  def mix(self, noise, data, time):
    """Computes x_t by (1); `time` broadcasts against `noise` and `data`."""
    alpha, sigma, _, _ = self.coefficients(time)
    return alpha * data + sigma * noise

  def affine(self, time, prediction_type: str | None = None):
    """Returns (a, b) of equation (3)."""
    alpha, sigma, *rest = self.coefficients(time)
    prediction = PREDICTION_TYPES[prediction_type or self.prediction_type]
    of_x, of_noise = prediction(alpha, sigma, *rest)
    safe = jnp.maximum(sigma, _TINY)
    return of_x - of_noise * alpha / safe, of_noise / safe

  def target(self, noise, data, time):
    """Computes what the model should predict, by (2)."""
    prediction = PREDICTION_TYPES[self.prediction_type]
    of_x, of_noise = prediction(*self.coefficients(time))
    return of_x * data + of_noise * noise

  def denoised(self, prediction, noisy, time):
    """Converts a prediction at `noisy` to an estimate of x.

    Where the prediction does not depend on x (`epsilon` at t = 0) it returns
    zero, the mean of x.
    """
    if self.prediction_type == "x":
      return prediction
    a, b = self.affine(time)
    depends = jnp.abs(a) > _TINY
    return jnp.where(
      depends, (prediction - b * noisy) / jnp.where(depends, a, 1), 0
    )

  def velocity(self, prediction, noisy, time):
    """Converts a prediction at `noisy` to dx/dt."""
    if self.prediction_type == "velocity":
      return prediction
    a, b = self.affine(time, "velocity")
    return a * self.denoised(prediction, noisy, time) + b * noisy
