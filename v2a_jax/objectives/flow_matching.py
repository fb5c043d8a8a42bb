"""Rectified flow: learn the velocity of a straight path from noise to data.

  (1)  x_t = (1 - t) · noise + t · latents          t in [0, 1], t = 1 is data
  (2)  dx_t / dt = latents - noise                  what the model predicts
  (3)  loss = E_t || model(x_t, t) - (latents - noise) ||²
  (4)  t ~ sigmoid(mean + std · N(0, 1))            logit-normal

Liu et al., arXiv:2209.03003; Lipman et al., arXiv:2210.02747; (4) as in Esser et
al., arXiv:2403.03206.
"""

import dataclasses

import jax
import jax.numpy as jnp

from v2a_jax.objectives import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowMatching:
  """Trains a diffusion model on `batch.target` = latents [b t c].

  Attributes:
    cond_drop_rate: chance that a condition is dropped, for each on its own.
    time_mean: of the logit-normal over diffusion time.
    time_std: of the logit-normal over diffusion time.
  """

  cond_drop_rate: float = 0.1
  time_mean: float = 0.0
  time_std: float = 1.0

  def loss(self, model, batch, *, key, train):
    """Returns loss [b] and metrics of [b]; see `base.Objective`."""
    k_time, k_noise, k_drop = jax.random.split(key, 3)
    latents = batch.target
    time = self.sample_time(k_time, latents.shape[0])
    noise = jax.random.normal(k_noise, latents.shape)
    noisy = mix(noise, latents, time)
    cond = batch.cond
    if train:
      cond = base.drop_conditions(cond, key=k_drop, rate=self.cond_drop_rate)
    velocity = model(
      noisy,
      time,
      model.encode(cond),
      times=batch.target_times,
      mask=batch.target_mask,
    )
    error = jnp.square(velocity - (latents - noise))
    loss = base.masked_mean(error, batch.target_mask)
    return loss, {"loss": loss}

  def sample_time(self, key, b: int):
    """Draws b diffusion times by equation (4)."""
    normal = jax.random.normal(key, (b,))
    return jax.nn.sigmoid(self.time_mean + self.time_std * normal)

  def velocity(self, model, x, time, tokens, *, times, mask=None):
    """dx/dt at x [b t c], time [b]: what a solver integrates."""
    return model(x, time, tokens, times=times, mask=mask)


def mix(noise, latents, time):
  """Equation (1) for noise and latents [b t c] at time [b]."""
  t = time[:, None, None]
  return (1 - t) * noise + t * latents
