"""Mean flow: learn the average velocity of an interval, so one step suffices.

With x_t = (1 - t) noise + t latents, v = latents - noise and t <= r,

  (1)  (r - t) u(x_t, t, r) = ∫_t^r v(x_s, s) ds         the average velocity u
  (2)  u = v + (r - t) du/dt,   du/dt = v ∂_x u + ∂_t u   derivative of (1)
  (3)  loss = || u - stop_gradient(v + (r - t) du/dt) ||², weighted in training
  (4)  x_r = x_t + (r - t) u(x_t, t, r)                   a step of any length

Geng et al., "Mean flows for one-step generative modeling", arXiv:2505.13447,
equations 6 to 11 with time reversed. du/dt is a Jacobian-vector product, which
costs one more forward pass. With r = t it is rectified flow.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from v2a_jax.basics import settings
from v2a_jax.objectives import base
from v2a_jax.parallel import rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanFlow(base.FlowObjective):
  """Trains a diffusion model with `average` on latents [b t c].

  Attributes:
    instant_rate: share of the examples with r = t, in [0, 1].
    power: p of the weight 1 / (error + 1e-3)^p in training; 0 for weight 1.
  """

  family: ClassVar[str] = "diffusion"
  needs: ClassVar = (
    base.Need(
      "",
      "model.average",
      "the model would not see where an interval ends; set it to True",
    ),
    *base.FlowObjective.needs,
  )

  instant_rate: float = 0.75
  time_mean: float = 0.4
  power: float = 1.0

  def __post_init__(self):
    super().__post_init__()
    settings.check(self, instant_rate="[0, 1]", power="[0, inf)")

  def loss(self, model, batch, *, key, train):
    """Returns loss [b] and metrics of [b]; see `base.Objective`."""
    k_time, k_noise, k_drop, k_data = jax.random.split(key, 4)
    latents = self.latents(batch, key=k_data, train=train)
    noise = rows.draw(jax.random.normal, k_noise, latents.shape)
    start, end = self.sample_times(k_time, latents.shape[0])
    cond = self.drop(batch.cond, key=k_drop, train=train)
    tokens = model.encode(cond)

    def average(x, time):
      return model(
        x,
        time,
        tokens,
        times=batch.target_times,
        mask=batch.target_mask,
        until=end,
      )

    noisy = self.corruption.mix(noise, latents, start[:, None, None])
    velocity = latents - noise
    prediction, change = jax.jvp(
      average, (noisy, start), (velocity, jnp.ones_like(start))
    )
    length = (end - start)[:, None, None]
    target = jax.lax.stop_gradient(velocity + length * change)
    error = jnp.square(prediction - target)
    error = base.masked_mean(error, batch.target_mask)
    loss = error
    if train:  # weighted, losses would all be about 1
      loss *= (jax.lax.stop_gradient(error) + 1e-3) ** -self.power
    return self.align(loss, {"error": error}, tokens, shown=cond, batch=batch)

  def evaluate(self, model, batch, *, key):
    """Returns losses by condition and by quarter of the interval's start."""
    metrics = super().evaluate(model, batch, key=key)
    k_time, *_ = jax.random.split(key, 4)  # as in `loss`
    start, _ = self.sample_times(k_time, len(batch.target))
    return metrics | base.by_quarter(metrics["loss"], start)

  def sample_times(self, key: jax.Array, b: int):
    """Draws b intervals: (start, end), each [b]."""
    k_both, k_same = jax.random.split(key)
    both = self.sample_time(k_both, (b, 2))
    start, end = both.min(axis=1), both.max(axis=1)
    same = rows.draw(jax.random.uniform, k_same, (b,)) < self.instant_rate
    return start, jnp.where(same, start, end)
