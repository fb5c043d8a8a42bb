"""The text tower of LAION's CLAP, which reads prompts.

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

from v2a_jax.basics import settings
from v2a_jax.models import layers
from v2a_jax.models.config import check_heads
from v2a_jax.pretrained import transformer
from v2a_jax.weights import published


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClapTextConfig:
  """Sizes, with the names and defaults of config.json.

  Attributes:
    vocab_size: number of token embeddings.
    hidden_size: number of features of a token.
    num_hidden_layers: number of blocks.
    num_attention_heads: number of attention heads; divides `hidden_size`.
    intermediate_size: hidden size of the MLPs.
    hidden_act: activation of the MLPs, one of `transformer.ACTIVATIONS`.
    max_position_embeddings: number of positions; the longest text has
      `pad_token_id` + 1 tokens less.
    type_vocab_size: number of segment embeddings; the first is used.
    layer_norm_eps: epsilon of the norms.
    pad_token_id: id that pads texts.
    projection_dim: number of features of a text in the space of sounds.
    projection_hidden_act: activation of the map to that space.
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
    sizes = (
      "vocab_size hidden_size num_hidden_layers num_attention_heads"
      " intermediate_size type_vocab_size projection_dim"
    )
    settings.check(
      self,
      **dict.fromkeys(sizes.split(), "[1, inf)"),
      layer_norm_eps="(0, inf)",
      pad_token_id="[0, inf)",
    )
    shortest = self.pad_token_id + 2
    settings.check(self, max_position_embeddings=f"[{shortest}, inf)")
    activations = transformer.ACTIVATIONS
    settings.choose(
      self, hidden_act=activations, projection_hidden_act=activations
    )
    check_heads(self, "hidden_size", "num_attention_heads", even=False)

  @property
  def features(self) -> int:
    """Number of features of an encoded token."""
    return self.hidden_size

  @property
  def max_length(self) -> int:
    """Number of tokens of the longest text."""
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
  """Leaves out the audio tower, and indices that are no weights."""
  others = ("audio_model.", "audio_projection.", "logit_scale_")
  indices = (".position_ids", ".token_type_ids")
  if name.startswith(others) or name.endswith(indices):
    return None
  return name


class ClapText(nnx.Module):
  """Token ids → features, and one feature of the whole text."""

  def __init__(
    self, config: ClapTextConfig, *, rngs: nnx.Rngs, dtype: Any = "float32"
  ):
    self.config, self.dtype = config, jnp.dtype(dtype)
    common = dict(rngs=rngs, dtype=self.dtype)
    width = config.hidden_size
    rows = lambda count, axis: layers.learned(
      (count, width), axes=(axis, "embed"), rngs=rngs
    )
    self.embed = rows(config.vocab_size, "vocab")
    self.positions = rows(config.max_position_embeddings, None)
    self.segments = rows(config.type_vocab_size, None)
    self.norm = transformer.layer_norm(
      width, epsilon=config.layer_norm_eps, **common
    )
    self.stack = transformer.stack(config, pre_norm=False, **common)
    self.pool = layers.dense(
      width, width, axes=("embed", None), use_bias=True, **common
    )
    self.projection = transformer.MLP(
      width,
      config.projection_dim,
      features_out=config.projection_dim,
      activation=config.projection_hidden_act,
      **common,
    )

  def __call__(self, ids, mask):
    """Encodes texts.

    Args:
      ids: int [b l]; l at most `max_length`.
      mask: bool [b l], True where a token is, from the first on. Features of
        the others mean nothing, and no token attends to them.

    Returns:
      [b l hidden_size] in `dtype`.

    Raises:
      ValueError: the texts are too long.
    """
    if ids.shape[1] > self.config.max_length:
      raise ValueError(
        f"ClapText: texts of {ids.shape[1]} ids, should be at most"
        f" {self.config.max_length}: lower config.data.prompt_length"
      )
    count = mask.astype(jnp.int32)
    # Positions follow that of padding, as in RoBERTa.
    place = jnp.cumsum(count, axis=1) * count + self.config.pad_token_id
    x = (
      self.embed[...][ids] + self.segments[...][0] + self.positions[...][place]
    )
    return self.stack(self.norm(x.astype(self.dtype)), mask)

  def feature(self, tokens):
    """Maps encoded texts [b l hidden_size] to [b projection_dim], in the space
    shared with sounds, not normalised."""
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
