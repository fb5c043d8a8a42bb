"""Samples codes or latents one step at a time, with a key-value cache."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from v2a_jax.basics import settings
from v2a_jax.sampling import guidance as guidance_lib
from v2a_jax.sampling.draw import Draw
from v2a_jax.sampling.solvers import SOLVERS, time_grid


def restrict(logits, *, temperature=1.0, top_k=0, top_p=1.0):
  """Divides logits [... v] by a temperature and excludes unlikely tokens.

  The settings are those of `TokenSampler`; top_p is from arXiv:1904.09751.
  """
  logits = logits / temperature
  if 0 < top_k < logits.shape[-1]:
    least = jax.lax.top_k(logits, top_k)[0][..., -1:]
    logits = jnp.where(logits < least, -jnp.inf, logits)
  if top_p < 1.0:
    ordered = jnp.sort(logits, axis=-1)[..., ::-1]
    before = jnp.cumsum(jax.nn.softmax(ordered), axis=-1)
    before = jnp.pad(before[..., :-1], [(0, 0)] * (logits.ndim - 1) + [(1, 0)])
    least = jnp.where(before < top_p, ordered, jnp.inf).min(-1, keepdims=True)
    logits = jnp.where(logits < least, -jnp.inf, logits)
  return logits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Autoregressive:
  """Samples the windows of a clip in order, each continuing the last.

  Attributes:
    guidance: guidance scale for each condition.
  """

  needs: ClassVar = ()

  guidance: guidance_lib.Guidance = guidance_lib.Guidance()

  def __call__(self, model, objective, cond, draw: Draw):
    """Samples clips; the arguments are those of `ode.ODESampler`.

    Known steps are kept; steps before them do not take them into account.

    Returns:
      [b windows.total ...] with steps like `model.backbone.frame`.
    """
    b, windows, known = draw.keys.shape[0], draw.windows, draw.known
    frame = model.backbone.frame
    blank = lambda t: jnp.zeros((b, t, *frame.shape), frame.dtype)
    by_window = lambda x: jnp.moveaxis(
      x.reshape(b, windows.count, *x.shape[1:]), 1, 0
    )
    conds = jax.tree.map(by_window, (cond, draw.negative))
    keep = windows.length - windows.stride
    if known is None:
      known = blank(windows.total), jnp.zeros((b, windows.total), bool)
    known = known[0], known[1] >= 1
    known = tuple(by_window(windows.split(x)) for x in known)

    def sample_window(last, window):
      index, (cond, negative), (values, mask) = window
      continued = jnp.arange(windows.length) < jnp.where(index, keep, 0)
      prefix = jnp.roll(last, -windows.stride, axis=1)
      prefix = jnp.where(continued[:, None], prefix, values)
      fold = jax.vmap(lambda key: jax.random.fold_in(key, index))
      one = dataclasses.replace(
        draw,
        keys=fold(draw.keys),
        negative=negative,
        known=(prefix, continued | mask),
      )
      steps = self.continue_from(model, objective, cond, one)
      return steps, steps

    _, steps = jax.lax.scan(
      sample_window,
      blank(windows.length),
      (jnp.arange(windows.count), conds, known),
    )
    rest = jnp.moveaxis(steps[1:, :, keep:], 0, 1).reshape(b, -1, *frame.shape)
    return jnp.concatenate([steps[0], rest], axis=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenSampler(Autoregressive):
  """Samples codes int32 [b t q] from a token model.

  Attributes:
    temperature: temperature of all codebooks; below 1 favours likely codes.
    top_k: number of codes to sample from; 0 for all.
    top_p: probability in (0, 1] of the fewest codes to sample from; 1 for all.
  """

  family: ClassVar[str] = "tokens"

  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0

  def __post_init__(self):
    settings.check(
      self, temperature="(0, inf)", top_k="[0, inf)", top_p="(0, 1]"
    )

  def continue_from(self, model, objective, cond, draw: Draw):
    """Samples one window.

    Args:
      model: a `Generator` with a `TokenModel`.
      objective: not used.
      cond: conditions of b windows.
      draw: draw of one window per clip, whose known codes [b t q] are kept.

    Returns:
      int32 [b t q].
    """
    del objective
    backbone, (prefix, known) = model.backbone, draw.known
    pattern, pad = backbone.pattern, backbone.pad
    cond, weights = self.guidance.branches(cond, draw.negative)
    cache = backbone.start(model.encode(cond), times=draw.times)
    by_step = lambda x, pad: jnp.moveaxis(pattern.lay_out(x, pad), 1, 0)
    values = by_step(prefix, pad)
    mask = jnp.broadcast_to(known[..., None], prefix.shape)
    fixed = by_step(mask, True)  # [steps b q]; padding of the pattern is fixed

    def step(carry, xs):
      before, cache = carry
      index, values, fixed = xs
      logits, cache = backbone.step(
        guidance_lib.spread(before, weights), index, cache
      )
      logits = restrict(
        guidance_lib.combine(logits, weights),
        temperature=self.temperature,
        top_k=self.top_k,
        top_p=self.top_p,
      )
      pick = lambda key, logits: jax.random.categorical(
        jax.random.fold_in(key, index), logits
      )
      codes = jnp.where(fixed, values, jax.vmap(pick)(draw.keys, logits))
      return (codes, cache), codes

    before = jnp.full_like(prefix[:, 0], pad)
    _, codes = jax.lax.scan(
      step, (before, cache), (jnp.arange(values.shape[0]), values, fixed)
    )
    return pattern.collect(jnp.moveaxis(codes, 0, 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentSampler(Autoregressive):
  """Samples latents float32 [b t c] from a model of the next latent.

  Attributes:
    temperature: scale of the noise that the head starts from; MAR
      (arXiv:2406.11838) scales the noise of its sampler's steps instead.
    num_steps: number of solver steps for each latent.
    solver: name of the solver, one of `solvers.SOLVERS`.
  """

  family: ClassVar[str] = "next_latents"

  temperature: float = 1.0
  num_steps: int = 16
  solver: str = "euler"

  def __post_init__(self):
    settings.check(self, temperature="[0, inf)", num_steps="[1, inf)")
    settings.choose(self, solver=SOLVERS)

  @property
  def needs(self):
    """Settings of the model that the solver requires."""
    return getattr(SOLVERS[self.solver], "needs", ())

  def continue_from(self, model, objective, cond, draw: Draw):
    """Samples one window.

    Args:
      model: a `Generator` with a `LatentModel`.
      objective: objective whose `corruption` says what the head predicts.
      cond: conditions of b windows.
      draw: draw of one window per clip, whose known latents [b t c] are kept.

    Returns:
      float32 [b t c].
    """
    backbone, (prefix, known) = model.backbone, draw.known
    cond, weights = self.guidance.branches(cond, draw.negative)
    cache = backbone.start(model.encode(cond), times=draw.times)
    normal = lambda key: jax.random.normal(key, prefix.shape[1:])
    noise = self.temperature * jax.vmap(normal)(draw.keys)

    def step(carry, xs):
      before, cache = carry
      index, values, known, noise = xs
      z, cache = backbone.step(
        guidance_lib.spread(before, weights), index, cache
      )

      def predict(x, t):
        noisy = guidance_lib.spread(x, weights)[:, None]
        prediction = backbone.head(noisy, jnp.full(noisy.shape[:2], t), z)
        return guidance_lib.combine(prediction[:, 0], weights)

      latents = SOLVERS[self.solver](
        predict,
        noise,
        grid=time_grid(self.num_steps),
        corruption=objective.corruption,
      )
      latents = jnp.where(known[:, None], values, latents)
      return (latents, cache), latents

    steps = jnp.arange(prefix.shape[1])
    by_step = lambda x: jnp.moveaxis(x, 1, 0)
    _, latents = jax.lax.scan(
      step,
      (jnp.zeros_like(prefix[:, 0]), cache),
      (steps, by_step(prefix), by_step(known), by_step(noise)),
    )
    return by_step(latents)
