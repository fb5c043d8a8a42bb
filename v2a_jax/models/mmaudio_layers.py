"""Layers of MMAudio's flow network (`mmaudio.py`).

Convolutions along time are products of joined neighbours, with zeros outside,
so that low-rank adaptation and sharding treat them like every linear map.
"""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.models import layers


def hidden_size(width: int) -> int:
  """Returns the hidden size of a gated MLP of that width."""
  return -(-(8 * width // 3) // 256) * 256


def modulate(x, shift, scale):
  """Returns layer_norm(x) · (1 + scale) + shift, without a learned gain."""
  y = x.astype(jnp.float32)
  y = y - y.mean(axis=-1, keepdims=True)
  y = y * jax.lax.rsqrt(jnp.square(y).mean(axis=-1, keepdims=True) + 1e-5)
  return y.astype(x.dtype) * (1 + scale) + shift


def rotate(x, positions):
  """Turns adjacent pairs of features by angles of their positions.

  Pair i of k features is turned by position · 10000^(-2i/k) (arXiv:2104.09864).

  Args:
    x: queries or keys [b t h k]; k even.
    positions: [t].
  """
  k = x.shape[-1]
  frequency = 10_000.0 ** (-jnp.arange(0, k, 2, dtype=jnp.float32) / k)
  angle = positions[:, None, None].astype(jnp.float32) * frequency
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
  a, b = pairs[..., 0], pairs[..., 1]
  turned = jnp.stack([a * cos - b * sin, a * sin + b * cos], axis=-1)
  return turned.reshape(x.shape).astype(x.dtype)


def nearest(x, length: int):
  """Repeats or drops tokens of [b n d], so that there are `length`.

  Token i is the one that lies nearest to its middle, as with `nearest-exact` of
  PyTorch, in whose precision positions are computed.
  """
  scale = np.float32(x.shape[1]) / np.float32(length)
  middles = np.arange(length, dtype=np.float32) + np.float32(0.5)
  return x[:, np.floor(middles * scale).astype(np.int32)]


class GatedMLP(nnx.Module):
  """down(silu(up(x)) · value(x)), each a convolution over `kernel` tokens."""

  def __init__(self, width: int, kernel: int, *, rngs, dtype):
    self.kernel, hidden = kernel, hidden_size(width)
    dense = functools.partial(layers.dense, rngs=rngs, dtype=dtype)
    self.up = dense(kernel * width, hidden, axes=("embed", "mlp"))
    self.value = dense(kernel * width, hidden, axes=("embed", "mlp"))
    self.down = dense(kernel * hidden, width, axes=("mlp", "embed"))

  def __call__(self, x, mask=None):
    """Maps x [b t d]; neighbours with mask [b t] False count as zeros."""
    join = functools.partial(layers.neighbours, kernel=self.kernel, mask=mask)
    x = join(x)
    return self.down(join(jax.nn.silu(self.up(x)) * self.value(x)))


class Stem(nnx.Module):
  """An input layer: a map over `kernel` tokens, and a gated MLP.

  Between them is an activation in version 2, and in version 1 where the map is
  a convolution.
  """

  def __init__(
    self,
    features_in: int,
    width: int,
    *,
    version: int,
    kernel: int,
    mlp_kernel: int,
    rngs,
    dtype,
  ):
    self.kernel = kernel
    self.activation = jax.nn.silu if version == 2 else jax.nn.selu
    if version == 1 and kernel == 1:
      self.activation = lambda x: x
    self.embed = layers.dense(
      kernel * features_in,
      width,
      axes=(None, "embed"),
      use_bias=True,
      rngs=rngs,
      dtype=dtype,
    )
    self.mlp = GatedMLP(width, mlp_kernel, rngs=rngs, dtype=dtype)

  def __call__(self, x, mask=None):
    """Maps [b t features_in] to [b t width]; see `GatedMLP` for the mask."""
    x = self.embed(layers.neighbours(x, self.kernel, mask=mask))
    return self.mlp(self.activation(x), mask)


class Modulation(nnx.Module):
  """`parts` vectors for each token of a condition [b t d]."""

  def __init__(self, width: int, parts: int, *, rngs, dtype):
    self.parts = parts
    self.out = layers.dense(
      width,
      parts * width,
      axes=("embed", None),
      use_bias=True,
      zero=True,
      rngs=rngs,
      dtype=dtype,
    )

  def __call__(self, condition):
    """Returns `parts` arrays [b t d]: shift, scale, gate, shift, ..."""
    return jnp.split(self.out(jax.nn.silu(condition)), self.parts, axis=-1)


class Stream(nnx.Module):
  """Queries, keys and values of one stream, modulated by a condition."""

  parts = 2

  def __init__(self, width: int, num_heads: int, *, rngs, dtype):
    common = dict(rngs=rngs, dtype=dtype)
    self.heads = (num_heads, width // num_heads)
    self.modulation = Modulation(width, self.parts, **common)
    self.qkv = layers.fused(
      width, 3, width, axis="heads", use_bias=True, **common
    )
    self.q_norm = layers.RMSNorm(self.heads[1], rngs=rngs, axis=None)
    self.k_norm = layers.RMSNorm(self.heads[1], rngs=rngs, axis=None)

  def project(self, x, positions, modulation):
    """Maps x [b t d] to q, k, v of [b t h k].

    Args:
      x: tokens.
      positions: [t], positions by which q and k are turned; None for none.
      modulation: arrays of `self.modulation`.
    """
    shift, scale = modulation[:2]
    qkv = self.qkv(modulate(x, shift, scale))
    qkv = qkv.reshape(*x.shape[:2], 3, *self.heads)
    q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
    q, k = self.q_norm(q), self.k_norm(k)
    if positions is not None:
      q, k = rotate(q, positions), rotate(k, positions)
    return q, k, v


class FullStream(Stream):
  """A stream that attention and a gated MLP change, over `kernel` tokens."""

  parts = 6

  def __init__(self, width: int, num_heads: int, *, kernel: int, rngs, dtype):
    super().__init__(width, num_heads, rngs=rngs, dtype=dtype)
    self.kernel = kernel
    self.out = layers.dense(
      kernel * width,
      width,
      axes=("heads", "embed"),
      use_bias=True,
      rngs=rngs,
      dtype=dtype,
    )
    self.mlp = GatedMLP(width, kernel, rngs=rngs, dtype=dtype)

  def finish(self, x, attended, mask, modulation):
    """Adds the attention's output [b t d], then the MLP's, to x."""
    gate_attention, shift, scale, gate_mlp = modulation[2:]
    attended = layers.neighbours(attended, self.kernel, mask=mask)
    x = x + gate_attention * self.out(attended)
    return x + gate_mlp * self.mlp(modulate(x, shift, scale), mask)
