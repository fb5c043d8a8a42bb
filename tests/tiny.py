"""Tiny models and batches, shared by the tests of several rooms."""

import types

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.batch import Batch, Conditioning
from v2a_jax.conditioning.encoder import Conditioner, ConditionerConfig
from v2a_jax.conditioning.semantic import SemanticConfig
from v2a_jax.models.ar import TokenModel, TokenModelConfig
from v2a_jax.models.ar_latents import LatentModel, LatentModelConfig
from v2a_jax.models.dit import DiT, DiTConfig
from v2a_jax.models.generator import Generator
from v2a_jax.pretrained.vit import ViTConfig
from v2a_jax.sampling.draw import Draw

RATE = 25.0  # latents a second
WIDTH, HEADS, CHANNELS, BOOKS, CODES, VOCAB = 16, 2, 3, 3, 11, 40


def conditioning(b=2, *, n=6, size=16, words=4, seed=0) -> Conditioning:
  """Random conditions; every one is present in every example."""
  rng = np.random.default_rng(seed)
  ids = lambda: rng.integers(1, VOCAB, (b, words)).astype(np.int32)
  there = np.ones((b, words), bool)
  times = np.sort(rng.uniform(0, 1, (b, words))).astype(np.float32)
  return Conditioning(
    frames=rng.integers(0, 255, (b, n, size, size, 3), dtype=np.uint8),
    frame_times=np.tile(np.arange(n, dtype=np.float32) / 12.5, (b, 1)),
    frame_mask=np.ones((b, n), bool),
    prompt=ids(),
    prompt_mask=there,
    transcript=ids(),
    transcript_times=times,
    transcript_mask=there.copy(),
    transcript_timed=np.ones(b, bool),
    presence=rng.integers(0, 2, (b, 3)).astype(np.int32),
  )


def picture(*, fps, size, seconds=1.0, seed=0):
  """A video of noise, as `media.read_video` gives it."""
  count = round(fps * seconds)
  rng = np.random.default_rng(seed)
  frames = rng.integers(0, 255, (count, size, size, 3), dtype=np.uint8)
  return types.SimpleNamespace(frames=frames, times=np.arange(count) / fps)


def times(t):
  return ((np.arange(t) + 0.5) / RATE).astype(np.float32)


# A slow stream of either kind, at half the frames' rate.
PIXELS = SemanticConfig(
  name="pixels", stride=2, spatial_width=16, spatial_depth=1, temporal_depth=1
)
TOWER = SemanticConfig(
  name="vit",
  stride=2,
  temporal_depth=1,
  sizes=ViTConfig(
    family="siglip",
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=4,
    image_size=24,
    patch_size=8,
  ),
)


def conditioner(seed=0, **changes) -> Conditioner:
  config = ConditionerConfig(
    width=WIDTH,
    num_heads=HEADS,
    vocab_size=VOCAB,
    patch_size=8,
    spatial_width=8,
    spatial_heads=2,
    pool_queries=2,
    temporal_depth=1,
    **changes,
  )
  return Conditioner(config, rngs=nnx.Rngs(seed))


def diffusion(seed=0, *, semantic=None, **changes) -> Generator:
  """A generator with random weights, none of them zero; see `drawn`."""
  fields = dict(
    width=WIDTH,
    num_heads=HEADS,
    joint_depth=1,
    depth=2,
    mlp_dim=24,
    channels=CHANNELS,
    modulation_rank=4,
  )
  config = DiTConfig(**(fields | changes))
  make = lambda: Generator(
    conditioner(semantic=semantic), DiT(config, rngs=nnx.Rngs(0))
  )
  return drawn(make, seed)


def tokens(seed=0, **changes) -> Generator:
  fields = dict(
    width=WIDTH,
    num_heads=HEADS,
    depth=2,
    mlp_dim=24,
    num_codebooks=BOOKS,
    codebook_size=CODES,
  )
  config = TokenModelConfig(**(fields | changes))
  make = lambda: Generator(conditioner(), TokenModel(config, rngs=nnx.Rngs(0)))
  return drawn(make, seed)


def latents(seed=0, **changes) -> Generator:
  fields = dict(
    width=WIDTH,
    num_heads=HEADS,
    depth=2,
    mlp_dim=24,
    channels=CHANNELS,
    head_width=20,
    head_depth=2,
    num_draws=3,
  )
  config = LatentModelConfig(**(fields | changes))
  make = lambda: Generator(conditioner(), LatentModel(config, rngs=nnx.Rngs(0)))
  return drawn(make, seed)


def wake(model, seed, *, scale=0.2):
  """Gives every parameter some noise, so zero initialisation hides nothing."""
  graphdef, params = nnx.split(model)
  rng = np.random.default_rng(seed)
  shift = lambda x: jnp.asarray(
    np.asarray(x) + scale * rng.standard_normal(x.shape, np.float32)
  )
  return nnx.merge(graphdef, jax.tree.map(shift, params))


def drawn(make, seed=0):
  """`make()` with random numbers under which activations keep their size.

  They are drawn on the host: nothing of the initialisation is compiled.
  """
  graphdef, state = nnx.split(nnx.eval_shape(make))
  rng = np.random.default_rng(seed)

  def draw(x):
    if len(x.shape) == 1:
      return jnp.asarray(rng.uniform(0.5, 1.5, x.shape), jnp.float32)
    spread = 0.7 / np.sqrt(np.prod(x.shape[:-1]))
    return jnp.asarray(rng.normal(0, spread, x.shape), jnp.float32)

  return nnx.merge(graphdef, jax.tree.map(draw, state))


def batch(target, b=2, **changes) -> Batch:
  """A batch whose target is `target` [b t ...]."""
  t = target.shape[1]
  return Batch(
    audio=np.zeros((b, t * 8, 1), np.float32),
    duration=np.full(b, t / RATE, np.float32),
    cond=conditioning(b),
    example=np.arange(b),
    target=target,
    target_times=times(t),
    target_mask=np.ones((b, t), bool),
  ).replace(**changes)


def loss(objective, model, batch, *, key, train):
  """`objective.loss`, compiled as one: far quicker than op by op."""
  run = jax.jit(lambda b, k: objective.loss(model, b, key=k, train=train))
  return run(batch, key)


def sample(
  sampler, model, objective, cond, *, keys, times, windows, known=None
):
  """`sampler(...)`, compiled as one."""

  def run(cond, keys, known):
    draw = Draw(keys=keys, times=times, windows=windows, known=known)
    return sampler(model, objective, cond, draw)

  return jax.jit(run)(cond, keys, known)
