"""Diffusion and flow matching: learn to undo noise along a path.

  (1)  x_t = α(t) · latents + σ(t) · noise      t in [0, 1], t = 1 is data
  (2)  loss = E_t w(t) || model(x_t, t) - target(latents, noise, t) ||²

The default is rectified flow (Liu et al., arXiv:2209.03003; Lipman et al.,
arXiv:2210.02747): α = t, σ = 1 - t, the target is the velocity latents - noise,
w = 1. For paths, predictions, weightings and times see corruption.py.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from v2a_jax.basics import settings
from v2a_jax.objectives import base
from v2a_jax.objectives.corruption import WEIGHTINGS, Corruption
from v2a_jax.objectives.teacher import TEACHERS, Taught, representation_error
from v2a_jax.parallel import rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diffusion(base.FlowObjective):
  """Trains a diffusion model on `batch.target` = latents [b t c].

  Attributes:
    path: path from noise to data, one of `corruption.PATHS`.
    prediction_type: what the model predicts, one of
      `corruption.PREDICTION_TYPES`.
    weighting: `prediction` for w = 1, or one of `corruption.WEIGHTINGS`, which
      weight the error of the predicted latents.
    gamma: largest weight of `min_snr`, a signal-to-noise ratio.
    bias: shift of the log signal-to-noise ratio in `sigmoid`.
    infill_rate: share of the examples whose latents are partly given (see
      `base.draw_known`); requires a model with `infill`.
    teacher: network whose features the model regresses, one of
      `teacher.TEACHERS`; "" for none.
    representation_weight: weight of that regression's error, such as 0.5.
  """

  family: ClassVar[str] = "diffusion"
  needs: ClassVar = (
    base.Need(
      "infill_rate",
      "model.infill",
      "the model would not see the known latents; set it to True",
    ),
    *base.FlowObjective.needs,
  )

  path: str = "linear"
  prediction_type: str = "velocity"
  weighting: str = "prediction"
  gamma: float = 5.0
  bias: float = 0.0
  infill_rate: float = 0.0
  teacher: str = ""
  representation_weight: float = 0.0

  def __post_init__(self):
    super().__post_init__()
    _ = self.corruption  # checks its own settings
    settings.choose(
      self, weighting=("prediction", *WEIGHTINGS), teacher=("", *TEACHERS)
    )
    settings.check(
      self,
      gamma="(0, inf)",
      bias="(-inf, inf)",
      infill_rate="[0, 1]",
      representation_weight="[0, inf)",
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

  def target(self, representation, *, sample_rate):
    """Returns what fills in the target and the teacher's features."""
    if not self.teacher:
      return representation
    return Taught(representation, self.teacher, sample_rate)

  def loss(self, model, batch, *, key, train):
    """Returns loss [b] and metrics of [b]; see `base.Objective`."""
    k_time, k_noise, k_drop, k_known, k_data = jax.random.split(key, 5)
    latents = self.latents(batch, key=k_data, train=train)
    time = self.sample_time(k_time, latents.shape[:1])
    noise = rows.draw(jax.random.normal, k_noise, latents.shape)
    at = time[:, None, None]
    cond = self.drop(batch.cond, key=k_drop, train=train)
    mask, known = batch.target_mask, None
    if train and self.infill_rate:
      given = base.draw_known(k_known, mask.shape, rate=self.infill_rate)
      known, mask = (latents, given), mask & ~given
    tokens = model.encode(cond)
    arguments = (self.corruption.mix(noise, latents, at), time, tokens)
    shared = dict(times=batch.target_times, mask=batch.target_mask, known=known)
    extra, metrics = 0.0, {}
    if self.teacher:
      prediction, features = model.represent(*arguments, **shared)
      mismatch = representation_error(features, batch)
      extra = self.representation_weight * mismatch
      metrics = {"representation_error": mismatch}
    else:
      prediction = model(*arguments, **shared)
    error = jnp.square(prediction - self.corruption.target(noise, latents, at))
    error = base.masked_mean(error, mask)
    loss, metrics = (
      self.weight(time) * error + extra,
      metrics | {"error": error},
    )
    return self.align(loss, metrics, tokens, shown=cond, batch=batch)

  def evaluate(self, model, batch, *, key):
    """Returns losses by condition and by quarter of diffusion time."""
    metrics = super().evaluate(model, batch, key=key)
    k_time, *_ = jax.random.split(key, 5)  # as in `loss`
    time = self.sample_time(k_time, batch.target.shape[:1])
    return metrics | base.by_quarter(metrics["loss"], time)

  def weight(self, time):
    """Computes w [b] of equation (2) at diffusion times [b]."""
    if self.weighting == "prediction":
      return jnp.ones_like(time)
    log_snr = self.corruption.log_snr(time)
    of_x = WEIGHTINGS[self.weighting](log_snr, self.gamma, self.bias)
    return of_x / jnp.square(self.corruption.affine(time)[0])
