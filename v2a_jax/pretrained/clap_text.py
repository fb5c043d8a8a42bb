"""The text tower of LAION's CLAP: a prompt to a feature that knows sounds.

  x = norm(E[ids] + P[position] + S[0]);  per layer
  x = norm(x + attend(x)),  x = norm(x + mlp(x));
  feature = W_2 relu(W_1 tanh(W x_0 + b) + b_1) + b_2

RoBERTa (Liu et al., https://arxiv.org/abs/1907.11692), its first token pooled
and mapped into the space shared with sound: Wu et al., "Large-scale contrastive
language-audio pretraining", https://arxiv.org/abs/2211.06687. Files are those
of `transformers`, the tower alone or with the audio tower beside it.

Ids are those of the tokenizer.json beside the weights, RoBERTa's byte-pair
encoding: 0 begins a text, 2 ends it.
"""

import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from v2a_jax.models import layers
from v2a_jax.pretrained import transformer
from v2a_jax.weights import published


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClapTextConfig:
  """Sizes, named as in config.json, with the defaults that it leaves out.

  Attributes:
    vocab_size: rows of the embedding.
    hidden_size: width.
    num_hidden_layers: of the transformer.
    num_attention_heads: of each layer; divides the width.
    intermediate_size: width inside an MLP.
    hidden_act: activation.
    max_position_embeddings: two more than the longest text in tokens.
    type_vocab_size: rows of the segment embedding; the first is used.
    layer_norm_eps: of the norms.
    pad_token_id: the id that pads.
    projection_dim: of the feature.
    projection_hidden_act: activation of the last map.
  """

  vocab_size: int = 50265
  hidden_size: int = 768
  num_hidden_layers: int = 12
  num_attention_heads: int = 12
  intermediate_size: int = 3072
  hidden_act: str = "gelu"
  max_position_embeddings: int = 514
  type_vocab_size: int = 1
  layer_norm_eps: float = 1e-12
  pad_token_id: int = 1
  projection_dim: int = 512
  projection_hidden_act: str = "relu"

  def __post_init__(self):
    for field in ("hidden_act", "projection_hidden_act"):
      transformer.check_activation(
        "ClapTextConfig", field, getattr(self, field)
      )
    transformer.check_heads(
      "ClapTextConfig", self.hidden_size, self.num_attention_heads
    )

  @property
  def features(self) -> int:
    """Width of what comes out for a token."""
    return self.hidden_size

  @property
  def max_length(self) -> int:
    """Tokens in the longest text."""
    return self.max_position_embeddings - self.pad_token_id - 1


def _table(_) -> dict[str, str]:
  layer, block = "text_model.encoder.layer.{}.", "stack/blocks/"
  embeddings = "text_model.embeddings."
  return {
    "embed": f"{embeddings}word_embeddings.weight",
    "positions": f"{embeddings}position_embeddings.weight",
    "segments": f"{embeddings}token_type_embeddings.weight",
    "norm": f"{embeddings}LayerNorm",
    f"{block}attention/q": f"{layer}attention.self.query",
    f"{block}attention/k": f"{layer}attention.self.key",
    f"{block}attention/v": f"{layer}attention.self.value",
    f"{block}attention/out": f"{layer}attention.output.dense",
    f"{block}norm_attention": f"{layer}attention.output.LayerNorm",
    f"{block}mlp/up": f"{layer}intermediate.dense",
    f"{block}mlp/down": f"{layer}output.dense",
    f"{block}norm_mlp": f"{layer}output.LayerNorm",
    "pool": "text_model.pooler.dense",
    "projection/up": "text_projection.linear1",
    "projection/down": "text_projection.linear2",
  }


def _rename(name: str) -> str | None:
  """Leaves the audio tower out, and indices that are no weights."""
  others = ("audio_model.", "audio_projection.", "logit_scale_")
  indices = (".position_ids", ".token_type_ids")
  if name.startswith(others) or name.endswith(indices):
    return None
  return name


class ClapText(nnx.Module):
  """Token ids to a token each, and to one feature a text."""

  def __init__(
    self, config: ClapTextConfig, *, rngs: nnx.Rngs, dtype: Any = "float32"
  ):
    self.config, self.dtype = config, jnp.dtype(dtype)
    width = config.hidden_size
    table = lambda rows, axis: layers.learned(
      (rows, width), axes=(axis, "embed"), rngs=rngs
    )
    self.embed = table(config.vocab_size, "vocab")
    self.positions = table(config.max_position_embeddings, None)
    self.segments = table(config.type_vocab_size, None)
    self.norm = transformer.layer_norm(
      width, epsilon=config.layer_norm_eps, rngs=rngs, dtype=self.dtype
    )
    self.stack = transformer.stack(
      config, pre_norm=False, rngs=rngs, dtype=self.dtype
    )
    linear = lambda i, o: layers.dense(
      i, o, axes=("embed", None), use_bias=True, rngs=rngs, dtype=self.dtype
    )
    self.pool = linear(width, width)
    self.projection = transformer.MLP(
      width,
      config.projection_dim,
      features_out=config.projection_dim,
      activation=config.projection_hidden_act,
      rngs=rngs,
      dtype=self.dtype,
    )

  def __call__(self, ids, mask):
    """Encodes.

    Args:
      ids: int [b l]; l at most `max_length`.
      mask: bool [b l], True where a token is, from the first on. Others are
        seen by none; what comes out in their places means nothing.

    Returns:
      The last layer's tokens, [b l hidden_size] in `dtype`.

    Raises:
      ValueError: the texts are too long.
    """
    if ids.shape[1] > self.config.max_length:
      raise ValueError(
        f"ClapText: texts of {ids.shape[1]} ids, should be at most"
        f" {self.config.max_length}: lower config.data.prompt_length"
      )
    there = mask.astype(jnp.int32)
    # Counted from the pad's own number, so that no text uses its row.
    place = jnp.cumsum(there, axis=1) * there + self.config.pad_token_id
    x = (
      self.embed[...][ids] + self.segments[...][0] + self.positions[...][place]
    )
    return self.stack(self.norm(x.astype(self.dtype)), mask)

  def feature(self, tokens):
    """Of texts whose tokens are [b l hidden_size]: [b projection_dim], in the
    space shared with sound, not normalised."""
    return self.projection(jax.nn.tanh(self.pool(tokens[:, 0])))


NETWORK = published.Network(
  config=ClapTextConfig,
  make=ClapText,
  table=_table,
  model_types={"clap": "text_config", "clap_text_model": None},
  shared=("projection_dim", "projection_hidden_act"),
  rename=_rename,
)
load = NETWORK.load
