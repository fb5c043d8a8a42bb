"""Samples latents from noise with a diffusion model."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from v2a_jax.basics import settings
from v2a_jax.sampling import guidance as guidance_lib
from v2a_jax.sampling.draw import Draw
from v2a_jax.sampling.solvers import SOLVERS, time_grid


@dataclasses.dataclass(frozen=True, kw_only=True)
class ODESampler:
  """Turns noise into latents with a diffusion model.

  Attributes:
    num_steps: number of solver steps.
    solver: name of the solver, one of `solvers.SOLVERS`.
    shift: factor by which the steps crowd near noise, see `solvers.time_grid`;
      training with `objective.time_mean` of -log(shift) crowds its times alike.
    guidance: guidance scale for each condition.
    guide_from: diffusion time at which guidance begins, in [0, 1]; 1 is data.
    guide_to: diffusion time at which it ends: guidance that leaves out the
      noisiest steps costs less variety (https://arxiv.org/abs/2404.07724).
    rescale_guidance: share, in [0, 1], by which the deviation of what is guided
      is brought back to that without guidance; see `guidance.rescaled`.
  """

  family: ClassVar[str] = "diffusion"

  num_steps: int = 25
  solver: str = "euler"
  shift: float = 1.0
  guidance: guidance_lib.Guidance = guidance_lib.Guidance()
  guide_from: float = 0.0
  guide_to: float = 1.0
  rescale_guidance: float = 0.0

  def __post_init__(self):
    settings.check(
      self,
      num_steps="[1, inf)",
      shift="(0, inf)",
      guide_from="[0, 1]",
      guide_to=f"[{self.guide_from}, 1]",
      rescale_guidance="[0, 1]",
    )
    settings.choose(self, solver=SOLVERS)

  @property
  def needs(self):
    """Settings of the model that the solver requires."""
    return getattr(SOLVERS[self.solver], "needs", ())

  def __call__(self, model, objective, cond, draw: Draw):
    """Samples latents.

    Known latents are returned as they are and the others fitted to them: while
    solving, known ones are replaced by their noisy versions on the path, which
    works for any model (arXiv:2201.09865); a model with `infill` also gets them
    as input. Those that are held for a while only are then carried on like the
    others, from where they are (Differential Diffusion, arXiv:2306.00950).

    Args:
      model: a `Generator` with a `DiT`.
      objective: objective whose `corruption` says what the model predicts.
      cond: conditions of b·windows.count windows, clip by clip.
      draw: keys, times, windows, negative prompts and known latents.

    Returns:
      float32 [b windows.total c].
    """
    shape = (draw.windows.total, model.backbone.config.channels)
    noise = jax.vmap(lambda key: jax.random.normal(key, shape))(draw.keys)
    return self.carry(noise, model, objective, cond, draw)

  def carry(self, noise, model, objective, cond, draw: Draw):
    """Carries noise [b windows.total c] to latents; see `__call__`."""
    cond, weights = self.guidance.branches(cond, draw.negative)
    tokens = model.encode(cond)
    windows, known = draw.windows, draw.known
    sets = 1 if draw.shares is None else len(draw.shares)
    again = lambda x: jnp.concatenate([x] * sets)
    by_window = lambda x: guidance_lib.spread(windows.split(again(x)), weights)
    mask = None if draw.mask is None else by_window(draw.mask)
    path = objective.corruption

    def predict(x, t, until=None):
      held = known and (known[0], _held(known[1], t))
      if held:
        x = keep_known(x, path.mix(noise, known[0], t), held[1])
      parts = by_window(x)
      every = lambda value: jnp.full(parts.shape[:1], value)
      prediction = model(
        parts,
        every(t),
        tokens,
        times=draw.times,
        mask=mask,
        known=held and jax.tree.map(by_window, held),
        until=None if until is None else every(until),
      )
      inside = (self.guide_from <= t) & (t <= self.guide_to)
      now = guidance_lib.within(weights, inside)
      guided = guidance_lib.combine(prediction, now)
      if self.rescale_guidance:
        guided = guidance_lib.rescaled(
          guided, prediction, self.rescale_guidance
        )
      merged = windows.merge(guided)
      if sets > 1:
        merged = merged.reshape(sets, *x.shape)
        merged = jnp.einsum("pbtc,pt->btc", merged, draw.shares)
      if held:  # The solver's own state stays on their path.
        merged = keep_known(merged, path.target(noise, known[0], t), held[1])
      return merged

    start = noise
    if draw.like is not None:
      start = path.mix(noise, draw.like, draw.begin)
    if known:
      held = _held(known[1], draw.begin)
      start = keep_known(start, path.mix(noise, known[0], draw.begin), held)
    grid = time_grid(self.num_steps, begin=draw.begin, shift=self.shift)
    solve = SOLVERS[self.solver]
    latents = solve(predict, start, grid=grid, corruption=path)
    if known is None:
      return latents
    return keep_known(latents, known[0], _held(known[1], 1.0))


def _held(held_until, t):
  """Says which steps are held at diffusion time t; see `Draw.known`."""
  return (held_until > t) | (held_until >= 1)


def keep_known(x, values, mask):
  """Replaces x [b t c] by `values` where the mask [b t] holds."""
  return jnp.where(mask[..., None], values, x)
