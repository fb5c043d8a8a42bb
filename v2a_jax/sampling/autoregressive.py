"""Writes codes one step at a time, with a key-value cache."""

import dataclasses

import jax
import jax.numpy as jnp

from v2a_jax.models import delay as delay_lib
from v2a_jax.sampling import guidance as guidance_lib
from v2a_jax.sampling.windows import Windows


def restrict(logits, *, temperature=1.0, top_k=0, top_p=1.0):
  """Sharpens logits [... v] and forbids unlikely tokens.

  Args:
    logits: [... v].
    temperature: divides the logits.
    top_k: keep this many tokens; 0 keeps all.
    top_p: keep the fewest tokens that hold this probability
      (arXiv:1904.09751); 1 keeps all.
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
class TokenSampler:
  """Turns a token model into codes.

  Attributes:
    temperature: of the first codebook and all others; below 1 is safer.
    top_k: keep this many tokens; 0 keeps all.
    top_p: keep the fewest tokens with this probability; 1 keeps all.
    guidance: a scale for each condition.
  """

  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0
  guidance: guidance_lib.Guidance = guidance_lib.Guidance()

  def __call__(
    self,
    model,
    objective,
    cond,
    *,
    keys,
    times,
    windows: Windows,
    negative=None,
    known=None,
  ):
    """Samples codes; arguments as `ode.ODESampler`, `objective` is unused.

    What is `known` (codes [b windows.total q] and a mask) is written as it is;
    what comes before it cannot be made to lead up to it.

    Returns:
      int32 [b windows.total q].
    """
    del objective
    b = keys.shape[0]
    q = model.backbone.config.num_codebooks
    by_window = lambda x: jnp.moveaxis(
      x.reshape(b, windows.count, *x.shape[1:]), 1, 0
    )
    conds = jax.tree.map(by_window, (cond, negative))
    keep = windows.length - windows.stride
    if known is None:
      shape = (b, windows.total)
      known = jnp.zeros((*shape, q), jnp.int32), jnp.zeros(shape, bool)
    told = tuple(by_window(windows.split(x)) for x in known)

    def write(last, window):
      index, (cond, negative), (codes, there) = window
      continued = jnp.arange(windows.length) < jnp.where(index, keep, 0)
      prefix = jnp.roll(last, -windows.stride, axis=1)
      prefix = jnp.where(continued[:, None], prefix, codes)
      fold = jax.vmap(lambda key: jax.random.fold_in(key, index))
      codes = self.continue_from(
        prefix,
        continued | there,
        model,
        cond,
        keys=fold(keys),
        times=times,
        negative=negative,
      )
      return codes, codes

    blank = jnp.zeros((b, windows.length, q), jnp.int32)
    _, codes = jax.lax.scan(
      write, blank, (jnp.arange(windows.count), conds, told)
    )
    rest = jnp.moveaxis(codes[1:, :, keep:], 0, 1)
    return jnp.concatenate([codes[0], rest.reshape(b, -1, q)], axis=1)

  def continue_from(
    self, prefix, known, model, cond, *, keys, times, negative=None
  ):
    """Writes one window.

    Args:
      prefix: int [b t q].
      known: bool [b t], the frames of `prefix` that are kept as they are.
      model: a `Generator` around a `TokenModel`.
      cond: conditions of b windows.
      keys: [b] random keys.
      times: [t], seconds.
      negative: see `Guidance.branches`.

    Returns:
      int32 [b t q].
    """
    backbone = model.backbone
    cond, weights = self.guidance.branches(cond, negative)
    cache = backbone.start(model.encode(cond), times=times)
    b, t, q = prefix.shape
    given = jnp.moveaxis(delay_lib.delay(prefix, backbone.pad), 1, 0)
    steps = jnp.arange(t + q - 1)
    frame = steps[:, None] - jnp.arange(q)
    corner = (frame < 0) | (frame >= t)  # padding of the delay
    inside = jnp.moveaxis(known[:, jnp.clip(frame, 0, t - 1)], 0, 1)
    fixed = inside | corner[:, None]  # [steps b q]

    def step(carry, xs):
      before, cache = carry
      index, given, fixed = xs
      logits, cache = backbone.step(
        guidance_lib.spread(before, weights), index, cache
      )
      logits = restrict(
        guidance_lib.combine(logits, weights),
        temperature=self.temperature,
        top_k=self.top_k,
        top_p=self.top_p,
      )
      draw = lambda key, logits: jax.random.categorical(
        jax.random.fold_in(key, index), logits
      )
      codes = jnp.where(fixed, given, jax.vmap(draw)(keys, logits))
      return (codes, cache), codes

    before = jnp.full((b, q), backbone.pad, jnp.int32)
    _, codes = jax.lax.scan(step, (before, cache), (steps, given, fixed))
    return delay_lib.undelay(jnp.moveaxis(codes, 0, 1), q)
