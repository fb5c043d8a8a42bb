"""Words to tokens: prompt and transcript."""

from flax import nnx

from v2a_jax.models import attention, layers


class TextEncoder(nnx.Module):
  """Token ids with times → tokens; prompt and transcript are two segments."""

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
      config.text_depth,
      width=config.width,
      num_heads=config.num_heads,
      remat=config.remat,
      unroll=config.unroll,
      rngs=rngs,
      dtype=dtype,
    )
    self.norm = layers.RMSNorm(config.width, rngs=rngs)
    self.dtype = dtype

  def __call__(self, ids, times, mask, *, segment: int):
    """Encodes ids int [b l] at times [b l], of mask bool [b l]: [b l d]."""
    x = self.embed[...][ids] + self.segment[...][segment]
    return self.norm(self.blocks(x.astype(self.dtype), times, mask))

  def flops(self, length: int) -> int:
    """Of one text's forward pass."""
    width = self.norm.scale.shape[0]
    attended = layers.attention_flops(length, length, width)
    return (
      layers.matmul_flops(self.blocks, length) + self.blocks.depth * attended
    )
