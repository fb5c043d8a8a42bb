"""Tiny models and batches, shared by the tests of several rooms."""

import types

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.batch import Batch, Conditioning
from v2a_jax.conditioning.encoder import Conditioner, ConditionerConfig
from v2a_jax.conditioning.semantic import SemanticConfig
from v2a_jax.models.ar import TokenModelConfig
from v2a_jax.models.ar_latents import LatentModelConfig
from v2a_jax.models.dit import DiTConfig
from v2a_jax.models.generator import Generator
from v2a_jax.pretrained.vit import ViTConfig
from v2a_jax.sampling.draw import Draw

RATE = 25.0  # latents a second
WIDTH, HEADS, CHANNELS, BOOKS, CODES, VOCAB = 16, 2, 3, 3, 11, 40


def conditioning(b=2, *, n=6, size=16, words=4, seed=0) -> Conditioning:
  """Random conditions, all present in every example."""
  rng = np.random.default_rng(seed)
  ids = lambda: rng.integers(1, VOCAB, (b, words)).astype(np.int32)
  mask = np.ones((b, words), bool)
  times = np.sort(rng.uniform(0, 1, (b, words))).astype(np.float32)
  return Conditioning(
    frames=rng.integers(0, 255, (b, n, size, size, 3), dtype=np.uint8),
    frame_times=np.tile(np.arange(n, dtype=np.float32) / 12.5, (b, 1)),
    frame_mask=np.ones((b, n), bool),
    prompt=ids(),
    prompt_mask=mask,
    transcript=ids(),
    transcript_times=times,
    transcript_durations=np.full((b, words), 0.2, np.float32),
    transcript_mask=mask.copy(),
    transcript_timed=np.ones(b, bool),
    presence=rng.integers(0, 2, (b, 3)).astype(np.int32),
  )


def picture(*, fps, size, seconds=1.0, seed=0):
  """A video of noise, as `media.read_video` returns it."""
  count = round(fps * seconds)
  rng = np.random.default_rng(seed)
  frames = rng.integers(0, 255, (count, size, size, 3), dtype=np.uint8)
  return types.SimpleNamespace(frames=frames, times=np.arange(count) / fps)


def times(t):
  """Times of t latents in seconds."""
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


def conditioner(seed=0, *, semantic=None, **changes) -> Conditioner:
  """Condition encoders; `semantic` is a `SemanticConfig`, or None for none."""
  config = ConditionerConfig(
    width=WIDTH,
    num_heads=HEADS,
    vocab_size=VOCAB,
    patch_size=8,
    spatial_width=8,
    spatial_heads=2,
    pool_queries=2,
    temporal_depth=1,
    semantic=semantic or SemanticConfig(),
    **changes,
  )
  return config.make(rngs=nnx.Rngs(seed))


SIZES = dict(width=WIDTH, num_heads=HEADS, depth=2, mlp_dim=24)


def generator(config, seed=0, *, semantic=None) -> Generator:
  """A generator with random weights, none of them zero; see `drawn`."""
  make = lambda: Generator(
    conditioner(semantic=semantic), config.make(rngs=nnx.Rngs(0))
  )
  return drawn(make, seed)


def diffusion(seed=0, *, semantic=None, **changes) -> Generator:
  own = dict(joint_depth=1, channels=CHANNELS, modulation_rank=4)
  config = DiTConfig(**(SIZES | own | changes))
  return generator(config, seed, semantic=semantic)


def tokens(seed=0, **changes) -> Generator:
  own = dict(num_codebooks=BOOKS, codebook_size=CODES)
  return generator(TokenModelConfig(**(SIZES | own | changes)), seed)


def latents(seed=0, **changes) -> Generator:
  own = dict(channels=CHANNELS, head_width=20, head_depth=2, num_draws=3)
  return generator(LatentModelConfig(**(SIZES | own | changes)), seed)


def wake(model, seed, *, scale=0.2):
  """Adds noise to every parameter, so that none is zero."""
  graphdef, params = nnx.split(model)
  rng = np.random.default_rng(seed)
  shift = lambda x: jnp.asarray(
    np.asarray(x) + scale * rng.standard_normal(x.shape, np.float32)
  )
  return nnx.merge(graphdef, jax.tree.map(shift, params))


def drawn(make, seed=0):
  """`make()` with random weights under which activations keep their size.

  They are drawn on the host, so that no initialisation is compiled.
  """
  graphdef, state = nnx.split(nnx.eval_shape(make))
  return nnx.merge(graphdef, fill(state, seed))


def fill(shapes, seed=0):
  """Random weights of a pytree's shapes, as `drawn` gives them to a model."""
  rng = np.random.default_rng(seed)

  def draw(x):
    if len(x.shape) == 1:
      return jnp.asarray(rng.uniform(0.5, 1.5, x.shape), jnp.float32)
    spread = 0.7 / np.sqrt(np.prod(x.shape[:-1]))
    return jnp.asarray(rng.normal(0, spread, x.shape), jnp.float32)

  return jax.tree.map(draw, shapes)


def train_state(shapes, seed=0):
  """The state before a run's first step, on the host: nothing is compiled.

  Args:
    shapes: `Program.state`.
    seed: seed of the weights, which are those of `fill`; all else is 0.
  """
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  params, buffers = (
    jax.tree.map(np.asarray, fill(part, seed))
    for part in (shapes.params, shapes.buffers)
  )
  ema = None if shapes.ema is None else params
  return zeros.replace(params=params, buffers=buffers, ema=ema)


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
  """`objective.loss`, compiled, which is far quicker than op by op."""
  run = jax.jit(lambda b, k: objective.loss(model, b, key=k, train=train))
  return run(batch, key)


def sample(sampler, model, objective, cond, *, keys, known=None, **draw):
  """`sampler(...)`, compiled; see `Draw` for the keyword arguments."""
  run = jax.jit(
    lambda cond, keys, known: sampler(
      model, objective, cond, Draw(keys=keys, known=known, **draw)
    )
  )
  return run(cond, keys, known)
