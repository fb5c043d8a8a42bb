"""Flow matching of each latent, given all before it.

  (1)  z_i = trunk(latents before i, conditions)
  (2)  x_t = t · latent_i + (1 - t) · noise       t in [0, 1], t = 1 is data
  (3)  loss = mean_i E_{t, noise} || head(x_t, t, z_i) - (latent_i - noise) ||²

This is the diffusion loss of MAR (Li et al., https://arxiv.org/abs/2406.11838,
equation 2) along the straight path of rectified flow. `num_draws` pairs (t,
noise) share one z_i, so the trunk runs once for all of them.
"""

import dataclasses
from typing import ClassVar

import jax

from v2a_jax.objectives import base
from v2a_jax.parallel import rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class NextLatents(base.FlowObjective):
  """Trains an `ar_latents` model on `batch.target` = latents [b t c]."""

  family: ClassVar[str] = "next_latents"

  def loss(self, model, batch, *, key, train):
    """Returns loss [b] and metrics of [b]; see `base.Objective`."""
    k_time, k_noise, k_drop, k_data = jax.random.split(key, 4)
    cond = self.drop(batch.cond, key=k_drop, train=train)
    latents = self.latents(batch, key=k_data, train=train)
    b, t, c = latents.shape
    draws = (b, t, model.backbone.config.num_draws)
    time = self.sample_time(k_time, draws)
    noise = rows.draw(jax.random.normal, k_noise, (*draws, c))
    at, data = time[..., None], latents[:, :, None]
    tokens = model.encode(cond)
    prediction = model(
      latents,
      tokens,
      times=batch.target_times,
      noisy=self.corruption.mix(noise, data, at),
      time=time,
    )
    error = (prediction - self.corruption.target(noise, data, at)) ** 2
    error = base.masked_mean(error, batch.target_mask)
    return self.align(error, {"error": error}, tokens, shown=cond, batch=batch)
