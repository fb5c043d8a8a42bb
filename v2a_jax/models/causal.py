"""A causal transformer over decoding steps, shared by both autoregressive arms.

It reads the same condition tokens as the diffusion transformer: cross-attention
to video and text, and adaptive norms from the clip's summary, and the
synchronisation features and words at each step's own time. `trunk` runs a whole
sequence; `start` and `advance` decode with a key-value cache. `ar.py` generates
codes, `ar_latents.py` continuous latents.
"""

import dataclasses
import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from v2a_jax.basics import settings
from v2a_jax.models import attention, layers
from v2a_jax.models.attend import CAUSAL, attend
from v2a_jax.models.config import TransformerConfig
from v2a_jax.models.spoken import Spoken
from v2a_jax.parallel.sharding import by_token


@dataclasses.dataclass(frozen=True, kw_only=True)
class CausalConfig(TransformerConfig):
  """Sizes of a causal transformer; see also `TransformerConfig`.

  Attributes:
    mlp_kernel: number of steps, the newest ones, that the feed-forward layers
      see; 1 for each step alone.
  """

  mlp_kernel: int = 1

  def __post_init__(self):
    super().__post_init__()
    settings.check(self, depth="[1, inf)", mlp_kernel="[1, inf)")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Cache:
  """What decoding keeps of the steps so far.

  Attributes:
    keys: [layers b s h k].
    values: [layers b s h k].
    past: [layers b mlp_kernel-1 d], newest inputs of the feed-forward layers.
    cond: (keys, values) of the condition tokens, each [layers b m h k].
    cond_mask: bool [b m].
    condition: [b s d], input of each step's adaptive norms.
    times: [b s], seconds of each step.
  """

  keys: Any
  values: Any
  past: Any
  cond: Any
  cond_mask: Any
  condition: Any
  times: Any


class TokenBlock(nnx.Module):
  """Causal self-attention, cross-attention to the conditions, SwiGLU."""

  def __init__(self, config: CausalConfig, *, rngs, dtype):
    c, common = config, dict(rngs=rngs, dtype=dtype)
    rank = c.modulation_rank
    self.implementation = c.attention
    self.modulation = layers.Modulation(c.width, 3, rank=rank, **common)
    self.attention = attention.Projection(c.width, c.num_heads, **common)
    self.cross = attention.CrossProjection(c.width, c.num_heads, **common)
    self.mlp = layers.FeedForward(
      c.width, c.mlp_dim, kernel=c.mlp_kernel, **common
    )

  def cond_keys(self, cond, cond_times):
    """Maps condition tokens [b m d] to keys and values, each [b m h k]."""
    return self.cross.keys(layers.rms_norm(cond), cond_times)

  def __call__(self, x, times, condition, cond, cond_mask, past, *, add_past):
    """Runs the block.

    Args:
      x: [b s d].
      times: [b s], seconds.
      condition: [b s d], input of the adaptive norms.
      cond: keys and values of the condition tokens, from `cond_keys`.
      cond_mask: bool [b m].
      past: [b mlp_kernel-1 d], inputs of the feed-forward layer before these.
      add_past: function from this call's keys and values to (keys, values,
        mask) of all steps that may be attended to.

    Returns:
      (x, (keys, values, past): the first two as `add_past` returned them).
    """
    m = self.modulation(condition)
    q, k, v = self.attention(layers.modulate(x, m[0], m[1]), times)
    keys, values, mask = add_past(k, v)
    see = functools.partial(attend, implementation=self.implementation)
    x = x + m[2] * self.attention.out(see(q, keys, values, mask=mask))
    q = self.cross.queries(layers.modulate(x, m[3], m[4]), times)
    x = x + m[5] * self.cross.out(see(q, *cond, mask=cond_mask))
    h = layers.modulate(x, m[6], m[7])
    x = x + m[8] * self.mlp(h, past=past)
    past = jnp.concatenate([past, h], axis=1)[:, h.shape[1] :]
    return x, (keys, values, past)


class CausalTransformer(nnx.Module):
  """(embedding of each step's input, condition tokens) → a vector a step.

  Attributes:
    extra: number of steps after those of the frames.
  """

  def __init__(self, config: CausalConfig, *, extra: int, rngs: nnx.Rngs):
    c = self.config = config
    self.extra = extra
    self.dtype = jnp.dtype(c.dtype)
    self.blocks = layers.Stack(
      lambda rngs: TokenBlock(c, rngs=rngs, dtype=self.dtype),
      c.depth,
      rngs=rngs,
      remat=c.remat,
      unroll=c.unroll,
    )
    self.spoken = Spoken(c.width, rngs=rngs, dtype=self.dtype)
    self.norm = layers.RMSNorm(c.width, rngs=rngs)

  def _steps(self, tokens, times):
    """Returns times [b s] and modulation [b s d] of every step."""
    gap = times[1] - times[0]
    late = times[-1] + gap * jnp.arange(1, self.extra + 1)
    times = jnp.concatenate([times, late])
    condition = tokens.summary[:, None] + tokens.sync_at(times)
    condition = condition + self.spoken(tokens, times)
    return jnp.broadcast_to(times, condition.shape[:2]), condition

  def trunk(self, x, tokens, *, times):
    """Runs a whole sequence.

    Args:
      x: [b t+extra d], embedding of the input of each step.
      tokens: `CondTokens` of the same batch.
      times: [t], seconds of each latent frame; t >= 2.

    Returns:
      [b t+extra d], normed; step s depends on x up to s.
    """
    x = by_token(x.astype(self.dtype))
    times, condition = self._steps(tokens, times)
    cond, cond_times, cond_mask = cond_stream(tokens)
    add_past = lambda k, v: (k, v, CAUSAL)
    past = jnp.zeros((len(x), self.config.mlp_kernel - 1, x.shape[-1]), x.dtype)

    def body(block, x, _):
      kv = block.cond_keys(cond, cond_times)
      x, _ = block(x, times, condition, kv, cond_mask, past, add_past=add_past)
      return x, None

    x, _ = self.blocks.scan(body, x)
    return self.norm(x)

  def start(self, tokens, *, times) -> Cache:
    """Makes the cache to decode frames at `times` [t], seconds."""
    c = self.config
    times, condition = self._steps(tokens, times)
    cond, cond_times, cond_mask = cond_stream(tokens)
    _, kv = self.blocks.scan(
      lambda block, x, _: (x, block.cond_keys(cond, cond_times)), None
    )
    shape = (c.depth, *times.shape, c.num_heads, c.width // c.num_heads)
    past = (c.depth, len(times), c.mlp_kernel - 1, c.width)
    return Cache(
      keys=jnp.zeros(shape, self.dtype),
      values=jnp.zeros(shape, self.dtype),
      past=jnp.zeros(past, self.dtype),
      cond=kv,
      cond_mask=cond_mask,
      condition=condition,
      times=times,
    )

  def advance(self, x, index, cache: Cache):
    """Runs one step.

    Args:
      x: [b d], embedding of the step's input.
      index: int scalar, index of the step.
      cache: from `start` or the previous step.

    Returns:
      (normed [b d], cache).
    """
    at = lambda a: jax.lax.dynamic_slice_in_dim(a, index, 1, axis=1)
    times, condition = at(cache.times), at(cache.condition)
    until = (jnp.arange(cache.times.shape[1]) <= index)[None, None]

    def body(block, x, layer):
      keys, values, past, kv = layer

      def add_past(k, v):
        put = jax.lax.dynamic_update_slice_in_dim
        return put(keys, k, index, 1), put(values, v, index, 1), until

      return block(
        x, times, condition, kv, cache.cond_mask, past, add_past=add_past
      )

    x, (keys, values, past) = self.blocks.scan(
      body,
      x[:, None].astype(self.dtype),
      (cache.keys, cache.values, cache.past, cache.cond),
    )
    cache = dataclasses.replace(cache, keys=keys, values=values, past=past)
    return self.norm(x)[:, 0], cache


def cond_stream(tokens):
  """Joins video and text: tokens [b m d], times [b m] and mask [b m]."""
  join = lambda a, b: jnp.concatenate([a, b], axis=1)
  return (
    join(tokens.video, tokens.text),
    join(tokens.video_times, tokens.text_times),
    join(tokens.video_mask, tokens.text_mask),
  )
