"""A causal transformer over residual codes, in the delay pattern.

It reads the same condition tokens as the diffusion transformer: cross-attention
to video and text, and adaptive norms from the clip's summary and the
synchronisation features at each step's own time. The whole sequence is scored
by `__call__`; `start` and `step` decode with a key-value cache.
"""

import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from v2a_jax.models import attention, dit, layers
from v2a_jax.models import delay as delay_lib
from v2a_jax.parallel.sharding import constrain


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenModelConfig:
  """Sizes of a token transformer.

  Attributes:
    width: of every token.
    num_heads: heads of width / num_heads.
    depth: blocks.
    mlp_dim: hidden size of the feed-forward.
    num_codebooks: residual codebooks a latent frame.
    codebook_size: codes in each.
    modulation_rank: rank of the per-block modulation map; 0 is full rank.
    remat: rematerialisation policy, see `layers.REMAT_POLICIES`.
    unroll: blocks unrolled in each scan.
    dtype: of the computation.
  """

  width: int
  num_heads: int
  depth: int
  mlp_dim: int
  num_codebooks: int
  codebook_size: int
  modulation_rank: int = 0
  remat: str = "none"
  unroll: int = 1
  dtype: str = "float32"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Cache:
  """What decoding keeps between steps.

  Attributes:
    keys: [layers b s h k], of the steps so far.
    values: [layers b s h k].
    cond: (keys, values), each [layers b m h k], of the condition tokens.
    cond_mask: bool [b m].
    condition: [b s d], what modulates each step.
    times: [b s], seconds of each step.
  """

  keys: Any
  values: Any
  cond: Any
  cond_mask: Any
  condition: Any
  times: Any


class TokenBlock(nnx.Module):
  """Causal self-attention, cross-attention to the conditions, SwiGLU."""

  def __init__(self, config: TokenModelConfig, *, rngs, dtype):
    c = config
    head_dim = c.width // c.num_heads
    sizes = (c.width, c.num_heads, head_dim)
    self.modulation = dit.Modulation(
      c.width, 3, rank=c.modulation_rank, rngs=rngs, dtype=dtype
    )
    self.attention = attention.Projection(*sizes, rngs=rngs, dtype=dtype)
    self.cross = attention.CrossProjection(*sizes, rngs=rngs, dtype=dtype)
    self.mlp = layers.FeedForward(c.width, c.mlp_dim, rngs=rngs, dtype=dtype)

  def cond_keys(self, cond, cond_times):
    """Keys and values, each [b m h k], of condition tokens [b m d]."""
    return self.cross.keys(layers.rms_norm(cond), cond_times)

  def __call__(self, x, times, condition, cond, cond_mask, *, see):
    """Runs the block; `see(k, v) -> (keys, values, mask)` gives the past."""
    m = self.modulation(condition)
    q, k, v = self.attention(dit.modulate(x, m[0], m[1]), times)
    keys, values, mask = see(k, v)
    x = x + m[2] * self.attention.out(
      attention.attend(q, keys, values, mask=mask)
    )
    q = self.cross.queries(dit.modulate(x, m[3], m[4]), times)
    x = x + m[5] * self.cross.out(attention.attend(q, *cond, mask=cond_mask))
    x = x + m[8] * self.mlp(dit.modulate(x, m[6], m[7]))
    return constrain(x, "batch", "length", "embed"), (keys, values)


class TokenModel(nnx.Module):
  """(codes so far, condition tokens) → logits of the next codes."""

  def __init__(self, config: TokenModelConfig, *, rngs: nnx.Rngs):
    c = self.config = config
    self.dtype = jnp.dtype(c.dtype)
    self.embed = layers.learned(
      (c.num_codebooks, c.codebook_size + 1, c.width),
      axes=(None, "vocab", "embed"),
      rngs=rngs,
      scale=0.5,
    )
    self.blocks = layers.Stack(
      lambda rngs: TokenBlock(c, rngs=rngs, dtype=self.dtype),
      c.depth,
      rngs=rngs,
      remat=c.remat,
      unroll=c.unroll,
    )
    self.norm = layers.RMSNorm(c.width, rngs=rngs)
    self.head = layers.dense(
      c.width,
      c.num_codebooks * c.codebook_size,
      axes=("embed", "vocab"),
      rngs=rngs,
      use_bias=True,
      dtype=self.dtype,
    )

  @property
  def pad(self) -> int:
    return self.config.codebook_size

  def _embed(self, codes):
    books = jnp.arange(self.config.num_codebooks)
    x = self.embed[...][books, codes].sum(axis=-2)
    return x.astype(self.dtype)

  def _logits(self, x):
    c = self.config
    logits = self.head(self.norm(x)).astype(jnp.float32)
    return logits.reshape(*x.shape[:2], c.num_codebooks, c.codebook_size)

  def _steps(self, tokens, times):
    """Times [b s] and modulation [b s d] of every step of the pattern."""
    extra = self.config.num_codebooks - 1
    gap = times[1] - times[0]
    late = times[-1] + gap * jnp.arange(1, extra + 1)
    times = jnp.concatenate([times, late])
    condition = tokens.summary[:, None] + tokens.sync_at(times)
    return jnp.broadcast_to(times, condition.shape[:2]), condition

  def __call__(self, codes, tokens, *, times):
    """Scores codes with teacher forcing.

    Args:
      codes: int [b t q].
      tokens: `CondTokens` of the same batch.
      times: [t], seconds of each latent frame; t >= 2.

    Returns:
      float32 logits [b t q v]; those of frame i see only what decoding would
      have written before it.
    """
    delayed = delay_lib.delay(codes, self.pad)
    before = jnp.full_like(delayed[:, :1], self.pad)
    x = self._embed(jnp.concatenate([before, delayed[:, :-1]], axis=1))
    x = constrain(x, "batch", "length", "embed")
    times, condition = self._steps(tokens, times)
    cond, cond_times, cond_mask = cond_stream(tokens)
    causal = attention.causal_mask(x.shape[1])

    def body(block, x, _):
      kv = block.cond_keys(cond, cond_times)
      x, _ = block(
        x, times, condition, kv, cond_mask, see=lambda k, v: (k, v, causal)
      )
      return x, None

    x, _ = self.blocks.scan(body, x)
    return delay_lib.undelay(self._logits(x), self.config.num_codebooks)

  def flops(self, length: int, frames: int, text: int) -> int:
    """Of one example's forward pass over `length` latent frames.

    Causal self-attention counts the half that is not masked: what the model
    needs, whether or not the kernel that runs skips the other half.
    """
    c, cond = self.config, frames + text
    length += c.num_codebooks - 1
    d = c.width
    per_layer = layers.attention_flops(
      length, length, d
    ) // 2 + layers.attention_flops(length, cond, d)
    blocks = self.blocks.blocks
    every = layers.matmul_flops(self.blocks, length)
    cross = blocks.cross
    every -= layers.matmul_flops(cross.kv, length)
    every += layers.matmul_flops(cross.kv, cond)
    sync = 2 * length * frames * d
    return (
      every
      + c.depth * per_layer
      + sync
      + layers.matmul_flops(self.head, length)
    )

  def start(self, tokens, *, times) -> Cache:
    """Prepares to decode frames at `times` [t], seconds."""
    c = self.config
    times, condition = self._steps(tokens, times)
    cond, cond_times, cond_mask = cond_stream(tokens)
    _, kv = self.blocks.scan(
      lambda block, x, _: (x, block.cond_keys(cond, cond_times)), None
    )
    shape = (c.depth, *times.shape, c.num_heads, c.width // c.num_heads)
    return Cache(
      keys=jnp.zeros(shape, self.dtype),
      values=jnp.zeros(shape, self.dtype),
      cond=kv,
      cond_mask=cond_mask,
      condition=condition,
      times=times,
    )

  def step(self, codes, index, cache: Cache):
    """Decodes one step.

    Args:
      codes: int [b q], the delayed codes written by the step before; all
        `pad` at first.
      index: int scalar, which step this is.
      cache: from `start` or the step before.

    Returns:
      (float32 logits [b q v], cache).
    """
    x = self._embed(codes[:, None])
    at = lambda a: jax.lax.dynamic_slice_in_dim(a, index, 1, axis=1)
    times, condition = at(cache.times), at(cache.condition)
    past = (jnp.arange(cache.times.shape[1]) <= index)[None, None]

    def body(block, x, layer):
      keys, values, kv = layer

      def see(k, v):
        put = jax.lax.dynamic_update_slice_in_dim
        return put(keys, k, index, 1), put(values, v, index, 1), past

      return block(x, times, condition, kv, cache.cond_mask, see=see)

    x, (keys, values) = self.blocks.scan(
      body, x, (cache.keys, cache.values, cache.cond)
    )
    cache = dataclasses.replace(cache, keys=keys, values=values)
    return self._logits(x)[:, 0], cache


def cond_stream(tokens):
  """Video and text as one stream: tokens [b m d], times and mask [b m]."""
  join = lambda a, b: jnp.concatenate([a, b], axis=1)
  return (
    join(tokens.video, tokens.text),
    join(tokens.video_times, tokens.text_times),
    join(tokens.video_mask, tokens.text_mask),
  )
