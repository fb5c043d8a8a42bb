"""T5's encoder, a frozen reader of prompts.

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
import math
from typing import Any

from flax import nnx
import jax.numpy as jnp
import numpy as np

from v2a_jax.models import layers
from v2a_jax.pretrained import transformer
from v2a_jax.weights import published


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Config:
  """Sizes, named as in config.json, with the defaults that it leaves out.

  Attributes:
    vocab_size: rows of the embedding, at least the tokenizer's.
    d_model: width.
    d_kv: width of a head.
    d_ff: width inside a feed-forward.
    num_layers: of the encoder.
    num_heads: of each layer.
    relative_attention_num_buckets: of distances.
    relative_attention_max_distance: tokens; all beyond share a bucket.
    layer_norm_epsilon: of the norms.
    feed_forward_proj: an activation, "relu", or "gated-" and one.
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
    transformer.check_activation(
      "T5Config", "feed_forward_proj", self.activation
    )

  @property
  def features(self) -> int:
    """Width of what comes out."""
    return self.d_model

  @property
  def gated(self) -> bool:
    return self.feed_forward_proj.startswith("gated-")

  @property
  def activation(self) -> str:
    """In T5 1.1 "gelu" is the approximation by tanh."""
    name = self.feed_forward_proj.removeprefix("gated-")
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
  """Leaves the decoder out; the embedding is kept under either name."""
  if name.startswith(("decoder.", "lm_head.")):
    return None
  return "shared.weight" if name == "encoder.embed_tokens.weight" else name


def buckets(length: int, *, count: int, max_distance: int) -> np.ndarray:
  """The bucket of each pair of tokens, int32 [length queries, length keys].

  Args:
    length: tokens.
    count: of buckets; even.
    max_distance: at which the last bucket of either side is reached.
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


class FeedForward(nnx.Module):
  """down(act(up(x))), or down(act(up(x)) * value(x)); no biases."""

  def __init__(self, config: T5Config, *, rngs, dtype):
    self.activation = config.activation
    wide = lambda: layers.dense(
      config.d_model,
      config.d_ff,
      axes=("embed", "mlp"),
      rngs=rngs,
      dtype=dtype,
    )
    self.up = wide()
    self.value = wide() if config.gated else None
    self.down = layers.dense(
      config.d_ff,
      config.d_model,
      axes=("mlp", "embed"),
      rngs=rngs,
      dtype=dtype,
    )

  def __call__(self, x):
    hidden = transformer.ACTIVATIONS[self.activation](self.up(x))
    if self.value is not None:
      hidden = hidden * self.value(x)
    return self.down(hidden)


class Block(nnx.Module):
  """One layer."""

  def __init__(self, config: T5Config, *, rngs, dtype):
    norm = lambda: Norm(config.d_model, epsilon=config.layer_norm_epsilon)
    self.norm_attention, self.norm_mlp = norm(), norm()
    self.attention = transformer.Attention(
      config.d_model,
      config.num_heads,
      head_dim=config.d_kv,
      use_bias=False,
      scale=1.0,
      rngs=rngs,
      dtype=dtype,
    )
    self.mlp = FeedForward(config, rngs=rngs, dtype=dtype)

  def __call__(self, x, mask, bias):
    x = x + self.attention(self.norm_attention(x), mask=mask, bias=bias)
    return x + self.mlp(self.norm_mlp(x))


class T5Encoder(nnx.Module):
  """Token ids to features."""

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
      lambda rngs: Block(config, rngs=rngs, dtype=self.dtype),
      config.num_layers,
      rngs=rngs,
    )
    self.norm = Norm(config.d_model, epsilon=config.layer_norm_epsilon)

  def __call__(self, ids, mask):
    """Encodes.

    Args:
      ids: int [b l].
      mask: bool [b l], True where a token is. Others are seen by none; what
        comes out in their places means nothing.

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
