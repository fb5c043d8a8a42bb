"""Paths from noise to data, and what a model may predict along them.

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
"""

import dataclasses

import jax
import jax.numpy as jnp

LOG_SNR_RANGE = (-20.0, 20.0)
_TINY = 1e-5


def _linear(t):
  return t, 1 - t, jnp.ones_like(t), -jnp.ones_like(t)


def _cosine(t):
  angle, speed = jnp.pi / 2 * t, jnp.pi / 2
  sin, cos = jnp.sin(angle), jnp.cos(angle)
  return sin, cos, speed * cos, -speed * sin


PATHS = {"linear": _linear, "cosine": _cosine}
PREDICTION_TYPES = ("velocity", "v", "epsilon", "x")


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
    for name, known in (
      ("path", PATHS),
      ("prediction_type", PREDICTION_TYPES),
    ):
      if getattr(self, name) not in known:
        raise ValueError(
          f"{name}={getattr(self, name)!r} is not one of {', '.join(known)}"
        )

  def coefficients(self, time):
    """α, σ and their derivatives by time, each of `time`'s shape."""
    return PATHS[self.path](jnp.asarray(time, jnp.float32))

  def log_snr(self, time):
    """log(α²/σ²), within `LOG_SNR_RANGE`."""
    alpha, sigma, _, _ = self.coefficients(time)
    low, high = LOG_SNR_RANGE
    floor = jnp.exp(low / 2) / 2
    ratio = jnp.maximum(alpha, floor) / jnp.maximum(sigma, floor)
    return jnp.clip(2 * jnp.log(ratio), low, high)

  def mix(self, noise, data, time):
    """Equation (1); `time` broadcasts against `noise` and `data`."""
    alpha, sigma, _, _ = self.coefficients(time)
    return alpha * data + sigma * noise

  def affine(self, time, prediction_type: str | None = None):
    """(a, b) of equation (3)."""
    alpha, sigma, alpha_dot, sigma_dot = self.coefficients(time)
    safe = jnp.maximum(sigma, _TINY)
    weights = {  # of x and of ε
      "velocity": (alpha_dot, sigma_dot),
      "v": (-sigma, alpha),
      "epsilon": (jnp.zeros_like(alpha), jnp.ones_like(alpha)),
      "x": (jnp.ones_like(alpha), jnp.zeros_like(alpha)),
    }
    of_x, of_noise = weights[prediction_type or self.prediction_type]
    return of_x - of_noise * alpha / safe, of_noise / safe

  def target(self, noise, data, time):
    """What the model should predict."""
    alpha, sigma, alpha_dot, sigma_dot = self.coefficients(time)
    return {
      "velocity": lambda: alpha_dot * data + sigma_dot * noise,
      "v": lambda: alpha * noise - sigma * data,
      "epsilon": lambda: noise,
      "x": lambda: data,
    }[self.prediction_type]()

  def denoised(self, prediction, noisy, time):
    """The estimate of x that a prediction at `noisy` stands for.

    At t = 0 with `epsilon` nothing is known of x; zero, its mean, is returned.
    """
    if self.prediction_type == "x":
      return prediction
    a, b = self.affine(time)
    known = jnp.abs(a) > _TINY
    return jnp.where(
      known, (prediction - b * noisy) / jnp.where(known, a, 1), 0
    )

  def velocity(self, prediction, noisy, time):
    """dx/dt at `noisy`, from a prediction there."""
    if self.prediction_type == "velocity":
      return prediction
    a, b = self.affine(time, "velocity")
    return a * self.denoised(prediction, noisy, time) + b * noisy


def weigh(weighting: str, log_snr, *, gamma: float = 5.0, bias: float = 0.0):
  """Weight of the squared error of x at a log signal-to-noise ratio.

  x         1
  epsilon   SNR, as if noise were predicted (arXiv:2006.11239)
  v         SNR + 1 (arXiv:2202.00512)
  min_snr   min(SNR, gamma) (arXiv:2303.09556)
  sigmoid   SNR sigmoid(bias - log SNR) (arXiv:2303.00848)
  """
  snr = jnp.exp(log_snr)
  return {
    "x": lambda: jnp.ones_like(snr),
    "epsilon": lambda: snr,
    "v": lambda: snr + 1,
    "min_snr": lambda: jnp.minimum(snr, gamma),
    "sigmoid": lambda: snr * jax.nn.sigmoid(bias - log_snr),
  }[weighting]()


WEIGHTINGS = ("prediction", "x", "epsilon", "v", "min_snr", "sigmoid")
