"""T5's encoder, which reads prompts.

  x = E[ids];  per layer  x += attend(norm(x)),  x += feed_forward(norm(x));
  attend: softmax(q k^T + B[bucket(j - i)]) v, scores not scaled
  norm:   g x / rms(x)
  feed_forward: W_o relu(W_i x) in T5, W_o (gelu(W_0 x) * W_1 x) in T5 1.1

Position enters by the bias B alone, one value a head for each bucket of
distance, shared by all layers. Half of the buckets look back, half ahead; in
each half the first half are exact distances, the others grow geometrically up
to a largest distance.

Raffel et al., "Exploring the limits of transfer learning with a unified
text-to-text transformer", https://arxiv.org/abs/1910.10683; gated version:
Shazeer, https://arxiv.org/abs/2002.05202. T5, T5 1.1 and Flan-T5 are read as
`transformers` saves them, with the decoder or without. Compute in bfloat16 or
float32: activations of T5 overflow float16. Ids are those of the spiece.model
beside the weights; 1 ends a text, 0 pads it.
"""

import dataclasses
import functools
import math
from typing import Any

from flax import nnx
import jax.numpy as jnp
import numpy as np

from v2a_jax.basics import settings
from v2a_jax.models import layers
from v2a_jax.pretrained import transformer
from v2a_jax.weights import published

_GATED = "gated-"


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Config:
  """Sizes, with the names and defaults of config.json.

  Attributes:
    vocab_size: number of token embeddings; at least the tokenizer's ids.
    d_model: number of features of a token.
    d_kv: number of features of a head.
    d_ff: hidden size of the feed-forward layers.
    num_layers: number of blocks of the encoder.
    num_heads: number of attention heads.
    relative_attention_num_buckets: number of buckets of distances.
    relative_attention_max_distance: tokens; all beyond share a bucket.
    layer_norm_epsilon: epsilon of the norms.
    feed_forward_proj: an activation, such as "relu", or "gated-" and one.
  """

  vocab_size: int = 32128
  d_model: int = 512
  d_kv: int = 64
  d_ff: int = 2048
  num_layers: int = 6
  num_heads: int = 8
  relative_attention_num_buckets: int = 32
  relative_attention_max_distance: int = 128
  layer_norm_epsilon: float = 1e-6
  feed_forward_proj: str = "relu"

  def __post_init__(self):
    sizes = "vocab_size d_model d_kv d_ff num_layers num_heads"
    settings.check(
      self,
      **dict.fromkeys(sizes.split(), "[1, inf)"),
      relative_attention_num_buckets="[4, inf)",
      layer_norm_epsilon="(0, inf)",
    )
    exact = self.relative_attention_num_buckets // 4
    settings.check(self, relative_attention_max_distance=f"({exact}, inf)")
    plain = tuple(transformer.ACTIVATIONS)
    gated = tuple(_GATED + name for name in plain)
    settings.choose(self, feed_forward_proj=plain + gated)

  @property
  def features(self) -> int:
    """Number of features of an encoded token."""
    return self.d_model

  @property
  def gated(self) -> bool:
    """Whether the feed-forward layers are gated, as in T5 1.1."""
    return self.feed_forward_proj.startswith(_GATED)

  @property
  def activation(self) -> str:
    """Name of the activation; a gated "gelu" is the approximation by tanh."""
    name = self.feed_forward_proj.removeprefix(_GATED)
    return "gelu_new" if self.gated and name == "gelu" else name


def _table(config: T5Config) -> dict[str, str]:
  layer = "encoder.block.{}.layer."
  ups = ["wi_0", "wi_1"] if config.gated else ["wi"]
  return {
    "embed": "shared.weight",
    "bias": "encoder.block.0.layer.0.SelfAttention"
    ".relative_attention_bias.weight",
    "norm": "encoder.final_layer_norm",
    "stack/blocks/norm_attention": f"{layer}0.layer_norm",
    "stack/blocks/norm_mlp": f"{layer}1.layer_norm",
    **{
      f"stack/blocks/attention/{ours}": f"{layer}0.SelfAttention.{theirs}"
      for ours, theirs in zip(["q", "k", "v", "out"], "qkvo")
    },
    **{
      f"stack/blocks/mlp/{ours}": f"{layer}1.DenseReluDense.{theirs}"
      for ours, theirs in zip(["down", "up", "value"], ["wo", *ups])
    },
  }


def _rename(name: str) -> str | None:
  """Leaves the decoder out; the embedding has one of two names."""
  if name.startswith(("decoder.", "lm_head.")):
    return None
  return "shared.weight" if name == "encoder.embed_tokens.weight" else name


def buckets(length: int, *, count: int, max_distance: int) -> np.ndarray:
  """Returns the bucket of each pair of tokens, int32 [queries, keys].

  Args:
    length: number of tokens.
    count: number of buckets; even.
    max_distance: distance from which on the last bucket of a side is used.
  """
  offset = np.arange(length)[None] - np.arange(length)[:, None]
  side, distance = count // 2, np.abs(offset)
  exact = side // 2
  # In float32, as the weights were trained: 16 may fall below its bucket.
  ratio = np.maximum(distance, 1).astype(np.float32) / np.float32(exact)
  octaves = np.log(ratio) / np.float32(math.log(max_distance / exact))
  far = exact + (octaves * np.float32(side - exact)).astype(np.int32)
  bucket = np.where(distance < exact, distance, np.minimum(far, side - 1))
  return (bucket + side * (offset > 0)).astype(np.int32)


class Norm(nnx.Module):
  """RMS norm with a gain; the product is float32, too."""

  def __init__(self, size: int, *, epsilon: float):
    self.epsilon = epsilon
    self.scale = nnx.Param(jnp.ones((size,), jnp.float32))

  def __call__(self, x):
    y = layers.rms_norm(x.astype(jnp.float32), epsilon=self.epsilon)
    return (y * self.scale[...]).astype(x.dtype)


def _block(rngs: nnx.Rngs, *, config: T5Config, dtype) -> transformer.Block:
  c, plain = config, dict(use_bias=False, rngs=rngs, dtype=dtype)
  return transformer.Block(
    attention=transformer.Attention(
      c.d_model, c.num_heads, head_dim=c.d_kv, scale=1.0, **plain
    ),
    mlp=transformer.MLP(
      c.d_model, c.d_ff, activation=c.activation, gated=c.gated, **plain
    ),
    norm=lambda: Norm(c.d_model, epsilon=c.layer_norm_epsilon),
  )


class T5Encoder(nnx.Module):
  """Token ids → features."""

  def __init__(
    self, config: T5Config, *, rngs: nnx.Rngs, dtype: Any = "float32"
  ):
    self.config, self.dtype = config, jnp.dtype(dtype)
    shape = (config.vocab_size, config.d_model)
    self.embed = layers.learned(
      shape, axes=("vocab", "embed"), rngs=rngs, scale=1.0
    )
    shape = (config.relative_attention_num_buckets, config.num_heads)
    self.bias = layers.learned(shape, axes=(None, "heads"), rngs=rngs)
    self.stack = layers.Stack(
      functools.partial(_block, config=config, dtype=self.dtype),
      config.num_layers,
      rngs=rngs,
    )
    self.norm = Norm(config.d_model, epsilon=config.layer_norm_epsilon)

  def __call__(self, ids, mask):
    """Encodes texts.

    Args:
      ids: int [b l].
      mask: bool [b l], True where a token is. Features of the others mean
        nothing, and no token attends to them.

    Returns:
      [b l d_model] in `dtype`.
    """
    bucket = buckets(
      ids.shape[1],
      count=self.config.relative_attention_num_buckets,
      max_distance=self.config.relative_attention_max_distance,
    )
    bias = self.bias[...][bucket].astype(jnp.float32)
    x = self.embed[...][ids].astype(self.dtype)
    x = self.stack(x, mask, jnp.moveaxis(bias, -1, 0)[None])
    return self.norm(x)


NETWORK = published.Network(
  config=T5Config,
  make=T5Encoder,
  table=_table,
  model_types={"t5": None},
  rename=_rename,
)
load = NETWORK.load
