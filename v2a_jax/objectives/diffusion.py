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
import functools

import jax
import jax.numpy as jnp

from v2a_jax.objectives import base
from v2a_jax.objectives.corruption import WEIGHTINGS, Corruption, weigh


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diffusion:
  """Trains a diffusion model on `batch.target` = latents [b t c].

  Attributes:
    path: from noise to data, of `corruption.PATHS`.
    prediction_type: of `corruption.PREDICTION_TYPES`.
    weighting: `prediction` for w = 1, or of `corruption.WEIGHTINGS`, which
      weigh the error of the latents that the prediction stands for.
    gamma: of `min_snr`.
    bias: of `sigmoid`.
    cond_drop_rate: chance that a condition is dropped, for each on its own.
    infill_rate: share of the examples that are told a part of the answer (see
      `base.draw_known`) and learn the rest; needs a model with `infill`.
    alignment_weight: of the aligner's error in seconds; 0 without an aligner.
    representation_weight: of what the teacher hears and the model misses; 0
      without a teacher (`pretrained/teacher.py`).
    time_mean: of the logit-normal over diffusion time.
    time_std: of the logit-normal over diffusion time.
  """

  path: str = "linear"
  prediction_type: str = "velocity"
  weighting: str = "prediction"
  gamma: float = 5.0
  bias: float = 0.0
  cond_drop_rate: float = 0.1
  infill_rate: float = 0.0
  alignment_weight: float = 0.0
  representation_weight: float = 0.0
  time_mean: float = 0.0
  time_std: float = 1.0

  def __post_init__(self):
    _ = self.corruption  # refuses an unknown path or prediction
    if self.weighting not in WEIGHTINGS:
      raise ValueError(
        f"weighting={self.weighting!r} is not one of {', '.join(WEIGHTINGS)}"
      )

  @property
  def corruption(self) -> Corruption:
    return Corruption(self.path, self.prediction_type)

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
    predict = functools.partial(
      model,
      self.corruption.mix(noise, latents, at),
      time,
      tokens,
      times=batch.target_times,
      mask=batch.target_mask,
      known=known,
    )
    extra, metrics = 0.0, {}
    if self.representation_weight:
      prediction, guess = predict(represent=True)
      missed = base.representation_error(guess, batch)
      extra = self.representation_weight * missed
      metrics = {"representation_error": missed}
    else:
      prediction = predict()
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
