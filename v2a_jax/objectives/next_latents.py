"""Flow matching of each latent, given all before it.

  (1)  z_i = trunk(latents before i, conditions)
  (2)  x_t = t · latent_i + (1 - t) · noise       t in [0, 1], t = 1 is data
  (3)  loss = mean_i E_{t, noise} || head(x_t, t, z_i) - (latent_i - noise) ||²

the diffusion loss of MAR (Li et al., https://arxiv.org/abs/2406.11838, equation
2) along the straight path of rectified flow. `num_draws` pairs (t, noise) share
one z_i, so the trunk runs once for all of them. t is logit-normal, as in
`diffusion.py`.
"""

import dataclasses
from typing import ClassVar

import jax

from v2a_jax.basics import settings
from v2a_jax.objectives import base
from v2a_jax.objectives.corruption import Corruption


@dataclasses.dataclass(frozen=True, kw_only=True)
class NextLatents:
  """Trains an `ar_latents` model on `batch.target` = latents [b t c].

  Attributes:
    cond_drop_rate: probability in [0, 1] that a condition is dropped, drawn for
      each condition on its own.
    alignment_weight: weight of the aligner's error in seconds; 0 without one.
    time_mean: of the logit-normal over diffusion time.
    time_std: of the logit-normal over diffusion time.
  """

  family: ClassVar[str] = "next_latents"
  needs: ClassVar = (base.NEEDS_ALIGNER,)

  cond_drop_rate: float = 0.1
  alignment_weight: float = 0.0
  time_mean: float = 0.0
  time_std: float = 1.0

  def __post_init__(self):
    settings.check(
      self,
      cond_drop_rate="[0, 1]",
      alignment_weight="[0, inf)",
      time_mean="(-inf, inf)",
      time_std="(0, inf)",
    )

  @property
  def corruption(self) -> Corruption:
    return Corruption()

  def loss(self, model, batch, *, key, train):
    """Returns loss [b] and metrics of [b]; see `base.Objective`."""
    k_time, k_noise, k_drop = jax.random.split(key, 3)
    latents, cond = batch.target, batch.cond
    if train:
      cond = base.drop_conditions(cond, key=k_drop, rate=self.cond_drop_rate)
    b, t, c = latents.shape
    draws = (b, t, model.backbone.config.num_draws)
    time = base.logit_normal(
      k_time, draws, mean=self.time_mean, std=self.time_std
    )
    noise = jax.random.normal(k_noise, (*draws, c))
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
    return base.with_alignment(
      error,
      {"error": error},
      tokens,
      shown=cond,
      known=batch.cond,
      weight=self.alignment_weight,
    )

  def evaluate(self, model, batch, *, key):
    """Returns losses by condition; see `base.evaluate_conditions`."""
    return base.evaluate_conditions(self, model, batch, key=key)
