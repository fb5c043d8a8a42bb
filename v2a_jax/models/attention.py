"""Attention over tokens with times; queries and keys are normalised."""

import functools

from flax import nnx
import jax.numpy as jnp

from v2a_jax.models import layers
from v2a_jax.models.attend import attend
from v2a_jax.parallel.sharding import constrain


def join_keys(parts):
  """Joins keys, or values, of several streams: [b t h k] each."""
  whole = [constrain(x, "batch", None, "heads", None) for x in parts]
  return jnp.concatenate(whole, axis=1)


class Projection(nnx.Module):
  """Queries, keys and values of one token stream, and the output map.

  Queries and keys are RMS-normed per head (arXiv:2302.05442), then rotated by
  the token's time in seconds.
  """

  def __init__(self, width, num_heads, *, rngs, dtype=None):
    self.heads = (num_heads, width // num_heads)
    common = dict(rngs=rngs, dtype=dtype)
    self.qkv = layers.fused(width, 3, width, axis="heads", **common)
    self.out = layers.dense(width, width, axes=("heads", "embed"), **common)
    self.q_norm = layers.RMSNorm(self.heads[1], rngs=rngs, axis=None)
    self.k_norm = layers.RMSNorm(self.heads[1], rngs=rngs, axis=None)

  def __call__(self, x, times):
    """Maps x [b t d] at times [b t] or [t] to q, k, v of [b t h k]."""
    qkv = self.qkv(x).reshape(*x.shape[:2], 3, *self.heads)
    q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
    q = layers.rotary(self.q_norm(q), times)
    k = layers.rotary(self.k_norm(k), times)
    return q, k, v


class CrossProjection(nnx.Module):
  """Queries of one stream, keys and values of another; as `Projection`."""

  def __init__(self, width, num_heads, *, rngs, dtype=None):
    self.heads = (num_heads, width // num_heads)
    dense = functools.partial(layers.dense, rngs=rngs, dtype=dtype)
    self.q = dense(width, width, axes=("embed", "heads"))
    self.kv = layers.fused(
      width, 2, width, axis="heads", rngs=rngs, dtype=dtype
    )
    self.out = dense(width, width, axes=("heads", "embed"))
    self.q_norm = layers.RMSNorm(self.heads[1], rngs=rngs, axis=None)
    self.k_norm = layers.RMSNorm(self.heads[1], rngs=rngs, axis=None)

  def queries(self, x, times):
    """Maps x [b t d] to queries [b t h k]."""
    q = self.q(x).reshape(*x.shape[:2], *self.heads)
    return layers.rotary(self.q_norm(q), times)

  def keys(self, x, times):
    """Maps x [b m d] to keys and values, each [b m h k]."""
    kv = self.kv(x).reshape(*x.shape[:2], 2, *self.heads)
    k = layers.rotary(self.k_norm(kv[:, :, 0]), times)
    return k, kv[:, :, 1]


class KeyValues(nnx.Module):
  """Normed tokens → keys and values; as `Projection`, without queries."""

  def __init__(self, width, num_heads, *, rngs, dtype=None):
    self.heads = (num_heads, width // num_heads)
    self.norm = layers.RMSNorm(width, rngs=rngs)
    self.kv = layers.fused(
      width, 2, width, axis="heads", rngs=rngs, dtype=dtype
    )
    self.k_norm = layers.RMSNorm(self.heads[1], rngs=rngs, axis=None)

  def __call__(self, x, times):
    """Maps x [b t d] at times [b t] to keys and values, each [b t h k]."""
    kv = self.kv(self.norm(x)).reshape(*x.shape[:2], 2, *self.heads)
    k = layers.rotary(self.k_norm(kv[:, :, 0]), times)
    return k, kv[:, :, 1]


class SelfAttentionBlock(nnx.Module):
  """Pre-norm encoder block: self-attention, and SwiGLU of twice the width."""

  def __init__(
    self,
    width,
    num_heads,
    *,
    rngs,
    dtype=None,
    implementation="auto",
    axes=("batch", "length"),
  ):
    self.implementation, self.axes = implementation, axes
    self.norm_attention = layers.RMSNorm(width, rngs=rngs)
    self.norm_mlp = layers.RMSNorm(width, rngs=rngs)
    self.attention = Projection(width, num_heads, rngs=rngs, dtype=dtype)
    self.mlp = layers.FeedForward(width, 2 * width, rngs=rngs, dtype=dtype)

  def project(self, x, times):
    """Maps x [b t d] at times [b t] to q, k, v of [b t h k]."""
    return self.attention(self.norm_attention(x), times)

  def finish(self, x, attended):
    """Adds the attention's output [b t d], then the feed-forward's, to x."""
    x = x + self.attention.out(attended)
    return x + self.mlp(self.norm_mlp(x))

  def __call__(self, x, times, mask):
    """Maps x [b t d] at times [b t], of mask bool [b t] or None."""
    q, k, v = self.project(x, times)
    attended = attend(
      q, k, v, mask=mask, implementation=self.implementation, axes=self.axes
    )
    return self.finish(x, attended)


def self_attention_stack(
  config, depth, *, rngs, dtype=None, axes=("batch", "length")
) -> layers.Stack:
  """Makes an encoder of `depth` blocks.

  Args:
    config: settings with `width`, `num_heads`, `attention`, `remat` and
      `unroll`.
    depth: number of blocks.
    rngs: random stream of the weights.
    dtype: dtype of the computation.
    axes: logical axes of the tokens' first dimensions.
  """
  c = config

  def block(rngs):
    return SelfAttentionBlock(
      c.width,
      c.num_heads,
      rngs=rngs,
      dtype=dtype,
      implementation=c.attention,
      axes=axes,
    )

  return layers.Stack(
    block,
    depth,
    rngs=rngs,
    remat=c.remat,
    unroll=c.unroll,
    axes=axes,
  )
