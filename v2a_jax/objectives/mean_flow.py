"""Mean flow: learn the average velocity of an interval, so one step suffices.

With x_t = (1 - t) noise + t latents, v = latents - noise, t = 1 data and t <= r,

  (1)  (r - t) u(x_t, t, r) = ∫_t^r v(x_s, s) ds         the average velocity u
  (2)  u = v + (r - t) du/dt,   du/dt = v ∂_x u + ∂_t u   (1) differentiated by t
  (3)  loss = || u - stop_gradient(v + (r - t) du/dt) ||², adaptively weighed
  (4)  x_r = x_t + (r - t) u(x_t, t, r)                   a step of any length

Geng et al., "Mean flows for one-step generative modeling", arXiv:2505.13447,
equations 6 to 11 with time reversed. du/dt is a Jacobian-vector product, one
forward pass more. With r = t it is rectified flow.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from v2a_jax.basics import settings
from v2a_jax.objectives import base
from v2a_jax.objectives.corruption import Corruption


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanFlow:
  """Trains a diffusion model with `average` on latents [b t c].

  Attributes:
    cond_drop_rate: probability in [0, 1] that a condition is dropped, drawn for
      each condition on its own.
    alignment_weight: weight of the aligner's error in seconds; 0 without one.
    instant_rate: share of the examples with r = t.
    time_mean: of the logit-normal over both times.
    time_std: of the logit-normal over both times.
    power: p of the weight 1 / (error + 1e-3)^p; 0 for none.
  """

  family: ClassVar[str] = "diffusion"
  needs: ClassVar = (
    base.Need(
      "",
      "model.average",
      "the model would not see where an interval ends; set it to True",
    ),
    base.NEEDS_ALIGNER,
  )

  cond_drop_rate: float = 0.1
  alignment_weight: float = 0.0
  instant_rate: float = 0.75
  time_mean: float = 0.4
  time_std: float = 1.0
  power: float = 1.0

  def __post_init__(self):
    settings.check(
      self,
      cond_drop_rate="[0, 1]",
      alignment_weight="[0, inf)",
      instant_rate="[0, 1]",
      time_mean="(-inf, inf)",
      time_std="(0, inf)",
      power="[0, inf)",
    )

  @property
  def corruption(self) -> Corruption:
    return Corruption()

  def loss(self, model, batch, *, key, train):
    """Returns loss [b] and metrics of [b]; see `base.Objective`."""
    k_time, k_noise, k_drop = jax.random.split(key, 3)
    latents = batch.target
    noise = jax.random.normal(k_noise, latents.shape)
    start, end = self.sample_times(k_time, latents.shape[0])
    cond = batch.cond
    if train:
      cond = base.drop_conditions(cond, key=k_drop, rate=self.cond_drop_rate)
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
    found, change = jax.jvp(
      average, (noisy, start), (velocity, jnp.ones_like(start))
    )
    length = (end - start)[:, None, None]
    target = jax.lax.stop_gradient(velocity + length * change)
    error = base.masked_mean(jnp.square(found - target), batch.target_mask)
    weight = (jax.lax.stop_gradient(error) + 1e-3) ** -self.power
    return base.with_alignment(
      weight * error,
      {"error": error},
      tokens,
      shown=cond,
      known=batch.cond,
      weight=self.alignment_weight,
    )

  def evaluate(self, model, batch, *, key):
    """Returns losses by condition and by quarter of the interval's start."""
    metrics = base.evaluate_conditions(self, model, batch, key=key)
    start, _ = self.sample_times(jax.random.split(key, 3)[0], len(batch.target))
    return metrics | base.by_quarter("loss", metrics["loss"], start)

  def sample_times(self, key, b: int):
    """Draws b intervals: (start, end), each [b]."""
    k_both, k_same = jax.random.split(key)
    both = base.logit_normal(
      k_both, (2, b), mean=self.time_mean, std=self.time_std
    )
    start, end = both.min(axis=0), both.max(axis=0)
    same = jax.random.bernoulli(k_same, self.instant_rate, (b,))
    return start, jnp.where(same, start, end)
