"""The flow network of MMAudio, as its published checkpoints have it.

A multimodal diffusion transformer: joint blocks over audio latents, frames
(CLIP) and prompt, then blocks over the latents alone. The latents are modulated
token by token by the clip's condition and features of synchronisation; frames
and prompt, and the last layer, by the clip's condition only. Its second version
has activations in all input layers and another embedding of diffusion time.

Cheng et al., "MMAudio: Taming multimodal joint training for high-quality
video-to-audio synthesis", https://arxiv.org/abs/2412.15322; layers are those of
https://github.com/hkchengrex/MMAudio.
"""

import dataclasses
import functools
from typing import ClassVar

from flax import nnx
import jax
import jax.numpy as jnp

from v2a_jax.basics import settings
from v2a_jax.models import attention, config, layers
from v2a_jax.models.attend import IMPLEMENTATIONS, attend
from v2a_jax.models.mmaudio_layers import (
  FullStream,
  Modulation,
  Stem,
  Stream,
  hidden_size,
  modulate,
  nearest,
)
from v2a_jax.parallel.sharding import by_batch, by_token

# Published sizes by name. Latents of 16 kHz have 20 channels, those of 44.1 kHz
# have 40.
VARIANTS = {
  "small_16k": dict(width=448, num_heads=7, joint_depth=4, depth=8),
  "small_44k": dict(width=448, num_heads=7, joint_depth=4, depth=8),
  "medium_44k": dict(width=896, num_heads=14, joint_depth=4, depth=8),
  "large_44k": dict(width=896, num_heads=14, joint_depth=7, depth=14),
  "large_44k_v2": dict(
    width=896, num_heads=14, joint_depth=7, depth=14, version=2
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MMAudioConfig:
  """Sizes of the network; `VARIANTS` has those that are published.

  Attributes:
    width: number of features of a token.
    num_heads: number of attention heads.
    joint_depth: number of blocks over latents, frames and prompt, at least 1.
    depth: number of blocks over the latents alone, after the joint ones.
    version: 1, or 2 for the network of the second generation.
    attention: implementation of attention, see `attend.py`.
    remat: rematerialisation policy, one of `layers.REMAT_POLICIES`.
    unroll: number of blocks unrolled in each scan.
    dtype: dtype of the computation, `float32` or `bfloat16`.
    channels: number of channels of a latent.
    latent_rate: latents a second, in Hz.
  """

  family: ClassVar[str] = "diffusion"
  target: ClassVar[str] = "latents"
  conditioner: ClassVar[str] = "mmaudio"

  width: int = 448
  num_heads: int = 7
  joint_depth: int = 4
  depth: int = 8
  version: int = 1
  attention: str = "auto"
  remat: str = "none"
  unroll: int = 1
  dtype: str = "float32"
  channels: int = settings.derived("codec.latent_dim")
  latent_rate: float = settings.derived("codec.latent_rate")

  def __post_init__(self):
    settings.check(
      self,
      width="[1, inf)",
      num_heads="[1, inf)",
      joint_depth="[1, inf)",
      depth="[0, inf)",
      version="[1, 2]",
      unroll="[1, inf)",
    )
    settings.choose(
      self,
      attention=IMPLEMENTATIONS,
      remat=layers.REMAT_POLICIES,
      dtype=config.DTYPES,
    )
    config.check_heads(self)

  @property
  def mlp_dim(self) -> int:
    """Hidden size of the gated layers: 8/3 of the width, in steps of 256."""
    return hidden_size(self.width)

  def make(self, *, rngs: nnx.Rngs) -> "MMAudio":
    """Makes the backbone."""
    return MMAudio(self, rngs=rngs)


class FusedBlock(nnx.Module):
  """Attention and MLP over the latents alone."""

  def __init__(self, config: MMAudioConfig, *, rngs, dtype):
    self.implementation = config.attention
    self.latent = FullStream(
      config.width, config.num_heads, kernel=3, rngs=rngs, dtype=dtype
    )

  def __call__(self, x, positions, mask, condition):
    modulation = self.latent.modulation(condition)
    q, k, v = self.latent.project(x, positions, modulation)
    attended = attend(q, k, v, mask=mask, implementation=self.implementation)
    return self.latent.finish(x, attended, mask, modulation)


class JointBlock(nnx.Module):
  """One attention over latents, frames and prompt, with weights per stream.

  In the last such block frames and prompt are read and go no further.
  """

  def __init__(self, config: MMAudioConfig, *, last: bool, rngs, dtype):
    self.implementation, self.last = config.attention, last
    sizes = (config.width, config.num_heads)
    common = dict(rngs=rngs, dtype=dtype)
    self.latent = FullStream(*sizes, kernel=3, **common)
    if last:
      self.clip, self.text = Stream(*sizes, **common), Stream(*sizes, **common)
    else:
      self.clip = FullStream(*sizes, kernel=3, **common)
      self.text = FullStream(*sizes, kernel=1, **common)

  def __call__(self, tokens, positions, mask, condition, summary):
    """Maps the tokens of three streams.

    Args:
      tokens: latents [b t d], frames [b n d] and prompt [b l d].
      positions: positions [t] and [n] of the first two.
      mask: bool [b t + n + l] over keys, and [b t] over latents; or (None,
        None).
      condition: condition [b t d] of each latent.
      summary: condition [b 1 d] of the clip.

    Returns:
      The tokens of the three streams; in the last block, the latents' alone.
    """
    latent, clip, text = tokens
    modulation = self.latent.modulation(condition)
    of_clip = self.clip.modulation(summary)
    of_text = self.text.modulation(summary)
    queries, *parts = zip(
      self.latent.project(latent, positions[0], modulation),
      self.clip.project(clip, positions[1], of_clip),
      self.text.project(text, None, of_text),
    )
    keys, values = map(attention.join_keys, parts)
    see = functools.partial(
      attend,
      k=keys,
      v=values,
      mask=mask[0],
      implementation=self.implementation,
    )
    q_latent, q_clip, q_text = queries
    latent = self.latent.finish(latent, see(q_latent), mask[1], modulation)
    if self.last:
      return latent
    clip = self.clip.finish(clip, see(q_clip), None, of_clip)
    return latent, clip, self.text.finish(text, see(q_text), None, of_text)


class MMAudio(nnx.Module):
  """(noisy latents, diffusion time, condition tokens) → velocity."""

  def __init__(self, config: MMAudioConfig, *, rngs: nnx.Rngs):
    c = self.config = config
    dtype = jnp.dtype(c.dtype)
    common = dict(rngs=rngs, dtype=dtype)
    self.stem = Stem(
      c.channels,
      c.width,
      version=c.version,
      kernel=7,
      mlp_kernel=7,
      **common,
    )
    # Features of diffusion time and the factor of the fastest one's frequency.
    self.clock = (256, 1.0) if c.version == 1 else (c.width, 10_000.0)
    dense = functools.partial(layers.dense, use_bias=True, **common)
    self.time_in = dense(self.clock[0], c.width, axes=(None, "embed"))
    self.time_out = dense(c.width, c.width, axes=("embed", None))
    stack = functools.partial(
      layers.Stack, rngs=rngs, remat=c.remat, unroll=c.unroll
    )
    joint = functools.partial(JointBlock, c, dtype=dtype)
    fused = functools.partial(FusedBlock, c, dtype=dtype)
    self.joint = stack(
      lambda rngs: joint(last=False, rngs=rngs), c.joint_depth - 1
    )
    self.last_joint = stack(lambda rngs: joint(last=True, rngs=rngs), 1)
    self.fused = stack(lambda rngs: fused(rngs=rngs), c.depth)
    self.final = Modulation(c.width, 2, **common)
    self.out = dense(7 * c.width, c.channels, axes=("embed", None), zero=True)

  def __call__(
    self,
    noisy_latents,
    time,
    tokens,
    *,
    times,
    mask=None,
    known=None,
    until=None,
  ):
    """Predicts the velocity of noisy latents.

    Args:
      noisy_latents: [b t c].
      time: [b], diffusion time; 1 is data.
      tokens: `conditioning.mmaudio.Tokens` of the same batch.
      times: [t], time of each latent in seconds.
      mask: bool [b t], True where the clip exists; None for everywhere.
      known: not used.
      until: not used.

    Returns:
      float32 [b t c].
    """
    del known, until
    t = noisy_latents.shape[1]
    x = by_token(self.stem(noisy_latents, mask))
    size, scale = self.clock
    clock = self.time_in(layers.sinusoidal(time, size, scale=scale))
    clock = self.time_out(jax.nn.silu(clock))
    summary = by_batch(tokens.summary + clock)[:, None]
    condition = by_token(summary + nearest(tokens.sync, t))
    # One clock for both streams, in latents; the first token of each is at 0.
    positions = times * self.config.latent_rate - 0.5
    n = tokens.clip.shape[1]
    clip_positions = jnp.arange(n) * (t / n)
    masks = (None, None)
    if mask is not None:
      others = tokens.clip.shape[1] + tokens.text.shape[1]
      masks = (jnp.pad(mask, ((0, 0), (0, others)), constant_values=True), mask)
    arguments = ((positions, clip_positions), masks, condition, summary)
    x, clip, text = self.joint((x, tokens.clip, tokens.text), *arguments)
    x, _ = self.last_joint.scan(
      lambda block, x, _: (block((x, clip, text), *arguments), None), x
    )
    x = self.fused(x, positions, mask, condition)
    x = modulate(x, *self.final(summary))
    velocity = self.out(layers.neighbours(x, 7, mask=mask))
    return velocity.astype(jnp.float32)
