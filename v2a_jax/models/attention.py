"""Attention over tokens that carry times, with normalised queries and keys."""

from flax import nnx
import jax
import jax.numpy as jnp

from v2a_jax.models import layers


def attend(q, k, v, *, mask=None):
  """Softmax attention.

  Args:
    q: [b t h k].
    k: [b s h k].
    v: [b s h k].
    mask: bool, [b s] over keys or [b t s] (or [1 t s]); True may be seen.

  Returns:
    [b t h·k].
  """
  if mask is not None:
    mask = mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]
  out = jax.nn.dot_product_attention(q, k, v, mask=mask)
  return out.reshape(*out.shape[:2], -1)


class Projection(nnx.Module):
  """Queries, keys and values of one token stream, and the way back.

  Queries and keys are RMS-normed per head (arXiv:2302.05442), then rotated by
  the token's time in seconds.
  """

  def __init__(self, width, num_heads, head_dim, *, rngs, dtype=None):
    inner = num_heads * head_dim
    self.num_heads, self.head_dim = num_heads, head_dim
    self.qkv = layers.dense(
      width, 3 * inner, axes=("embed", "heads"), rngs=rngs, dtype=dtype
    )
    self.out = layers.dense(
      inner, width, axes=("heads", "embed"), rngs=rngs, dtype=dtype
    )
    self.q_norm = layers.RMSNorm(head_dim, rngs=rngs, axis=None)
    self.k_norm = layers.RMSNorm(head_dim, rngs=rngs, axis=None)

  def __call__(self, x, times):
    """Maps x [b t d] at times [b t] or [t] to q, k, v of [b t h k]."""
    qkv = self.qkv(x).reshape(*x.shape[:2], 3, self.num_heads, self.head_dim)
    q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
    q = layers.rotary(self.q_norm(q), times)
    k = layers.rotary(self.k_norm(k), times)
    return q, k, v


class CrossProjection(nnx.Module):
  """Queries from one stream, keys and values from another; as `Projection`."""

  def __init__(self, width, num_heads, head_dim, *, rngs, dtype=None):
    inner = num_heads * head_dim
    self.heads = (num_heads, head_dim)
    linear = lambda i, o, axes: layers.dense(
      i, o, axes=axes, rngs=rngs, dtype=dtype
    )
    self.q = linear(width, inner, ("embed", "heads"))
    self.kv = linear(width, 2 * inner, ("embed", "heads"))
    self.out = linear(inner, width, ("heads", "embed"))
    self.q_norm = layers.RMSNorm(head_dim, rngs=rngs, axis=None)
    self.k_norm = layers.RMSNorm(head_dim, rngs=rngs, axis=None)

  def queries(self, x, times):
    """Queries [b t h k] of x [b t d]."""
    q = self.q(x).reshape(*x.shape[:2], *self.heads)
    return layers.rotary(self.q_norm(q), times)

  def keys(self, x, times):
    """Keys and values, each [b m h k], of x [b m d]."""
    kv = self.kv(x).reshape(*x.shape[:2], 2, *self.heads)
    k = layers.rotary(self.k_norm(kv[:, :, 0]), times)
    return k, kv[:, :, 1]


class SelfAttentionBlock(nnx.Module):
  """Pre-norm transformer block over one stream; for encoders."""

  def __init__(self, width, num_heads, *, hidden, rngs, dtype=None):
    head_dim = width // num_heads
    self.norm_attention = layers.RMSNorm(width, rngs=rngs)
    self.norm_mlp = layers.RMSNorm(width, rngs=rngs)
    self.attention = Projection(
      width, num_heads, head_dim, rngs=rngs, dtype=dtype
    )
    self.mlp = layers.FeedForward(width, hidden, rngs=rngs, dtype=dtype)

  def __call__(self, x, times, mask):
    q, k, v = self.attention(self.norm_attention(x), times)
    x = x + self.attention.out(attend(q, k, v, mask=mask))
    return x + self.mlp(self.norm_mlp(x))


def self_attention_stack(config, depth, *, rngs, dtype=None) -> layers.Stack:
  """`depth` blocks with feed-forwards of twice the width: an encoder.

  Args:
    config: says `width`, `num_heads`, `remat` and `unroll`.
    depth: blocks.
    rngs: of their weights.
    dtype: of the computation.
  """
  width, num_heads = config.width, config.num_heads
  return layers.Stack(
    lambda rngs: SelfAttentionBlock(
      width, num_heads, hidden=2 * width, rngs=rngs, dtype=dtype
    ),
    depth,
    rngs=rngs,
    remat=config.remat,
    unroll=config.unroll,
  )


def causal_mask(length: int):
  """[1 t t], True where key time is not later than query time."""
  return jnp.tril(jnp.ones((1, length, length), bool))
