"""Encoders of prompt and transcript.

Both are read by a small encoder that is trained with the model; a published one
may read the prompt instead, and is not trained:

  tokens = norm(W encoder(ids))        W and the norm's gain are trained
"""

import dataclasses
from typing import Any

from flax import nnx
import jax.numpy as jnp

from v2a_jax.basics import settings
from v2a_jax.conditioning.published import PublishedConfig
from v2a_jax.models import attention, layers, lora
from v2a_jax.parallel import sharding
from v2a_jax.pretrained import clap_text, open_clip, t5

NETWORKS = {
  "t5": t5.NETWORK,
  "clap": clap_text.NETWORK,
  "open_clip": open_clip.TEXT,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptEncoderConfig(PublishedConfig):
  """A published text encoder that reads the prompt; see `PublishedConfig`.

  Attributes:
    name: network: `t5`, `clap` or `open_clip`; "" for none.
  """

  NETWORKS = NETWORKS

  sizes: Any = settings.named(NETWORKS)


class PromptEncoder(nnx.Module):
  """Prompt ids → tokens, by a frozen encoder and a trained linear map."""

  def __init__(
    self, config: PromptEncoderConfig, *, width: int, rngs, dtype: Any
  ):
    sizes, common = config.sizes, dict(rngs=rngs, dtype=dtype)
    self.encoder = lora.freeze(NETWORKS[config.name].make(sizes, **common))
    self.project = layers.dense(
      sizes.features, width, axes=(None, "embed"), use_bias=True, **common
    )
    self.norm = layers.RMSNorm(width, rngs=rngs)

  def __call__(self, ids, mask):
    """Encodes ids int [b l] of mask bool [b l] to [b l width]."""
    return self.norm(self.project(self.encoder(ids, mask)))


class TextEncoder(nnx.Module):
  """Token ids with times → tokens; prompt and transcript are two segments.

  Tokens carry their place in the text, by which a model tells the order of what
  a prompt names, for its tokens all have the time 0.
  """

  def __init__(self, config, *, rngs, dtype):
    self.embed = layers.learned(
      (config.vocab_size, config.width),
      axes=("vocab", "embed"),
      rngs=rngs,
      scale=1.0,
    )
    self.segment = layers.learned(
      (2, config.width), axes=(None, "embed"), rngs=rngs
    )
    self.blocks = attention.self_attention_stack(
      config, config.text_depth, rngs=rngs, dtype=dtype
    )
    self.norm = layers.RMSNorm(config.width, rngs=rngs)
    self.dtype = dtype

  def __call__(self, *texts):
    """Encodes texts side by side, so that weights are gathered once for all.

    Args:
      *texts: (ids int [b l], times [b l] in seconds, mask bool [b l], segment)
        of each.

    Returns:
      Tokens [b l d] of each.
    """
    tokens = tuple(
      _placed(self.embed_ids(ids, segment)) for ids, *_, segment in texts
    )

    def body(block, tokens, _):
      each = zip(tokens, texts)
      return tuple(
        block(x, times, mask) for x, (_, times, mask, _) in each
      ), None

    tokens, _ = self.blocks.scan(body, tokens)
    return tuple(map(self.norm, tokens))

  def embed_ids(self, ids, segment: int):
    """Embeds ids int [b l] without attention between them: [b l d]."""
    table, segments = sharding.gathered(self.embed[...], self.segment[...])
    return (table[ids] + segments[segment]).astype(self.dtype)


def _placed(tokens):
  """Adds sinusoids of each token's index in its text to tokens [b l d]."""
  places = jnp.arange(tokens.shape[1]) / 1000
  waves = layers.sinusoidal(places, tokens.shape[2])
  return tokens + waves.astype(tokens.dtype)
