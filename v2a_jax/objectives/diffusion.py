"""Diffusion and flow matching: learn to undo noise along a path.

  (1)  x_t = α(t) · latents + σ(t) · noise      t in [0, 1], t = 1 is data
  (2)  loss = E_t w(t) || model(x_t, t) - target(latents, noise, t) ||²
  (3)  t ~ sigmoid(mean + std · N(0, 1))        logit-normal

The default is rectified flow (Liu et al., arXiv:2209.03003; Lipman et al.,
arXiv:2210.02747): α = t, σ = 1 - t, the target is the velocity latents - noise,
w = 1; (3) is from Esser et al., arXiv:2403.03206. Paths, predictions and
weightings are those of corruption.py.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from v2a_jax.basics import settings
from v2a_jax.objectives import base
from v2a_jax.objectives.corruption import (
  PATHS,
  PREDICTION_TYPES,
  WEIGHTINGS,
  Corruption,
  weigh,
)
from v2a_jax.objectives.teacher import TEACHERS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diffusion:
  """Trains a diffusion model on `batch.target` = latents [b t c].

  Attributes:
    path: path from noise to data, one of `corruption.PATHS`.
    prediction_type: what the model predicts, one of
      `corruption.PREDICTION_TYPES`.
    weighting: `prediction` for w = 1, or one of `corruption.WEIGHTINGS`, which
      weigh the error of the latents that the prediction stands for.
    gamma: signal-to-noise ratio at which `min_snr` is cut off.
    bias: shift of the log signal-to-noise ratio in `sigmoid`.
    cond_drop_rate: probability in [0, 1] that a condition is dropped, drawn for
      each condition on its own.
    infill_rate: share of the examples whose latents are partly given (see
      `base.draw_known`); needs a model with `infill`.
    alignment_weight: weight of the aligner's error in seconds; 0 without one.
    teacher: network whose features the model regresses, one of
      `teacher.TEACHERS`; "" for none.
    representation_weight: weight of that regression's error, such as 0.5.
    time_mean: mean of the logit-normal over diffusion time.
    time_std: standard deviation of the logit-normal over diffusion time.
  """

  family: ClassVar[str] = "diffusion"
  needs: ClassVar = (
    base.Need(
      "infill_rate",
      "model.infill",
      "the model would not see the known latents; set it to True",
    ),
    base.NEEDS_ALIGNER,
  )

  path: str = "linear"
  prediction_type: str = "velocity"
  weighting: str = "prediction"
  gamma: float = 5.0
  bias: float = 0.0
  cond_drop_rate: float = 0.1
  infill_rate: float = 0.0
  alignment_weight: float = 0.0
  teacher: str = ""
  representation_weight: float = 0.0
  time_mean: float = 0.0
  time_std: float = 1.0

  def __post_init__(self):
    settings.choose(
      self,
      path=PATHS,
      prediction_type=PREDICTION_TYPES,
      weighting=WEIGHTINGS,
      teacher=("", *TEACHERS),
    )
    settings.check(
      self,
      gamma="(0, inf)",
      bias="(-inf, inf)",
      cond_drop_rate="[0, 1]",
      infill_rate="[0, 1]",
      alignment_weight="[0, inf)",
      representation_weight="[0, inf)",
      time_mean="(-inf, inf)",
      time_std="(0, inf)",
    )
    if bool(self.teacher) != bool(self.representation_weight):
      raise settings.SettingError(
        f"representation_weight={self.representation_weight} with"
        f" teacher={self.teacher!r}: set both, such as 0.5 and 'mn04', or none"
      )

  @property
  def corruption(self) -> Corruption:
    """Path and prediction type."""
    return Corruption(self.path, self.prediction_type)

  @property
  def representation_dim(self) -> int:
    """Number of the teacher's features; 0 without a teacher."""
    return TEACHERS[self.teacher].FRAME_DIM if self.teacher else 0

  def loss(self, model, batch, *, key, train):
    """Returns loss [b] and metrics of [b]; see `base.Objective`."""
    k_time, k_noise, k_drop, k_known = jax.random.split(key, 4)
    latents = batch.target
    time = self.sample_time(k_time, latents.shape[0])
    noise = jax.random.normal(k_noise, latents.shape)
    at = time[:, None, None]
    cond = batch.cond
    mask, known = batch.target_mask, None
    if train:
      cond = base.drop_conditions(cond, key=k_drop, rate=self.cond_drop_rate)
    if train and self.infill_rate:
      there = base.draw_known(k_known, mask.shape, rate=self.infill_rate)
      known, mask = (latents, there), mask & ~there
    tokens = model.encode(cond)
    arguments = (self.corruption.mix(noise, latents, at), time, tokens)
    shared = dict(times=batch.target_times, mask=batch.target_mask, known=known)
    extra, metrics = 0.0, {}
    if self.teacher:
      prediction, features = model.represent(*arguments, **shared)
      missed = base.representation_error(features, batch)
      extra = self.representation_weight * missed
      metrics = {"representation_error": missed}
    else:
      prediction = model(*arguments, **shared)
    error = jnp.square(prediction - self.corruption.target(noise, latents, at))
    error = base.masked_mean(error, mask)
    return base.with_alignment(
      self.weight(time) * error + extra,
      metrics | {"error": error},
      tokens,
      shown=cond,
      known=batch.cond,
      weight=self.alignment_weight,
    )

  def evaluate(self, model, batch, *, key):
    """Returns losses by condition and by quarter of diffusion time."""
    metrics = base.evaluate_conditions(self, model, batch, key=key)
    time = self.sample_time(jax.random.split(key, 4)[0], len(batch.target))
    return metrics | base.by_quarter("loss", metrics["loss"], time)

  def weight(self, time):
    """w [b] of equation (2), at diffusion times [b]."""
    if self.weighting == "prediction":
      return jnp.ones_like(time)
    of_x = weigh(
      self.weighting,
      self.corruption.log_snr(time),
      gamma=self.gamma,
      bias=self.bias,
    )
    return of_x / jnp.square(self.corruption.affine(time)[0])

  def sample_time(self, key, b: int):
    """Draws b diffusion times by equation (3)."""
    return base.logit_normal(key, (b,), mean=self.time_mean, std=self.time_std)
