"""A causal transformer over continuous latents, with a small diffusion head.

  z_i = trunk(latents before i, conditions)
  p(latent_i | latents before i, conditions) = p_head(latent_i | z_i)

The head, a multilayer perceptron that sees one frame, models that density by
the velocity of a path from noise: no codes, no quantization (Li et al.,
"Autoregressive image generation without vector quantization", MAR,
https://arxiv.org/abs/2406.11838, section 3). Its condition and its blocks, with
`s` the sinusoidal features of the diffusion time t:

  c = W_t s(t) + W_z z_i
  h = W_x x_t;   h <- h + gate(c) MLP(rms(h) (1 + scale(c)) + shift(c))
  velocity = W_o (rms(h) (1 + scale(c)) + shift(c))
"""

import dataclasses
import functools
from typing import ClassVar

from flax import nnx
import jax
import jax.numpy as jnp

from v2a_jax.basics import settings
from v2a_jax.models import causal, layers
from v2a_jax.parallel.sharding import by_batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentModelConfig(causal.CausalConfig):
  """Sizes of a transformer over latents; see also `CausalConfig`.

  Attributes:
    head_width: number of hidden features of the diffusion head.
    head_depth: number of residual blocks of the head.
    num_draws: number of noise draws of each latent in training; the trunk runs
      once for all of them. MAR takes 4.
    channels: number of channels of a latent.
  """

  family: ClassVar[str] = "next_latents"
  target: ClassVar[str] = "latents"

  head_width: int
  head_depth: int = 3
  num_draws: int = 4
  channels: int = settings.derived("codec.latent_dim")

  def __post_init__(self):
    super().__post_init__()
    fields = "head_width head_depth num_draws channels".split()
    settings.check(self, **dict.fromkeys(fields, "[1, inf)"))

  def make(self, *, rngs: nnx.Rngs) -> "LatentModel":
    """Makes the backbone."""
    return LatentModel(self, rngs=rngs)


class HeadBlock(nnx.Module):
  """A residual SwiGLU under an adaptive norm."""

  def __init__(self, width: int, *, rngs, dtype):
    common = dict(rngs=rngs, dtype=dtype)
    self.modulation = layers.Modulation(width, 1, rank=0, **common)
    self.mlp = layers.FeedForward(width, width, **common)

  def __call__(self, h, condition):
    shift, scale, gate = self.modulation(condition)
    return h + gate * self.mlp(layers.modulate(h, shift, scale))


class DiffusionHead(nnx.Module):
  """(noisy latents, diffusion time, vectors) → prediction, frame by frame."""

  def __init__(self, config: LatentModelConfig, *, rngs, dtype):
    c = config
    self.width = c.head_width
    common = dict(rngs=rngs, dtype=dtype)
    dense = functools.partial(layers.dense, use_bias=True, **common)
    self.embed = dense(c.channels, self.width, axes=(None, "embed"))
    self.time = dense(self.width, self.width, axes=(None, "embed"))
    self.vector = dense(c.width, self.width, axes=("embed", None))
    self.blocks = layers.Stack(
      lambda rngs: HeadBlock(self.width, rngs=rngs, dtype=dtype),
      c.head_depth,
      rngs=rngs,
      unroll=c.head_depth,
    )
    self.final = layers.Modulation(self.width, 1, rank=0, **common)
    self.out = dense(self.width, c.channels, axes=("embed", None), zero=True)

  def __call__(self, noisy, time, z):
    """Predicts from noisy latents.

    Args:
      noisy: [... n c], n draws for each vector.
      time: [... n], diffusion time; 1 is data.
      z: [... d], vectors.

    Returns:
      float32 [... n c].
    """
    clock = by_batch(self.time(layers.sinusoidal(time, self.width)))
    condition = by_batch(clock + self.vector(z)[..., None, :])
    h = self.blocks(self.embed(by_batch(noisy)), condition)
    shift, scale, _ = self.final(condition)
    return self.out(layers.modulate(h, shift, scale)).astype(jnp.float32)


class LatentModel(causal.CausalTransformer):
  """(latents so far, condition tokens) → density of the next latent."""

  def __init__(self, config: LatentModelConfig, *, rngs: nnx.Rngs):
    c = config
    super().__init__(c, extra=0, rngs=rngs)
    common = dict(rngs=rngs, dtype=self.dtype)
    self.first = layers.learned((c.width,), axes=("embed",), rngs=rngs)
    self.embed = layers.dense(
      c.channels, c.width, axes=(None, "embed"), use_bias=True, **common
    )
    self.head = DiffusionHead(c, **common)

  @property
  def frame(self) -> jax.ShapeDtypeStruct:
    """Shape and dtype of one latent."""
    return jax.ShapeDtypeStruct((self.config.channels,), jnp.float32)

  def vectors(self, latents, tokens, *, times):
    """Runs the trunk with teacher forcing.

    Args:
      latents: [b t c].
      tokens: `CondTokens` of the same batch.
      times: [t], seconds of each latent; t >= 2.

    Returns:
      z [b t d]; z_i depends on the latents before i.
    """
    x = self.embed(latents[:, :-1])
    first = jnp.broadcast_to(self.first[...].astype(x.dtype), x[:, :1].shape)
    x = jnp.concatenate([first, x], axis=1)
    return self.trunk(x, tokens, times=times)

  def __call__(self, latents, tokens, *, times, noisy, time):
    """Predicts each latent from noisy forms of it and the latents before it.

    Args:
      latents: [b t c], without noise.
      tokens: `CondTokens` of the same batch.
      times: [t], seconds of each latent; t >= 2.
      noisy: [b t n c], n noisy forms of each latent.
      time: [b t n], diffusion time of each; 1 is data.

    Returns:
      float32 [b t n c].
    """
    return self.head(noisy, time, self.vectors(latents, tokens, times=times))

  def step(self, latents, index, cache: causal.Cache):
    """Decodes one step.

    Args:
      latents: [b c], the previous latent; ignored in step 0.
      index: int scalar, index of the step.
      cache: from `start` or the previous step.

    Returns:
      (z [b d], cache).
    """
    x = self.embed(latents)
    x = jnp.where(index == 0, self.first[...].astype(x.dtype), x)
    return self.advance(x, index, cache)
