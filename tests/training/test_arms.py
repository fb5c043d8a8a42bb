"""The real trainer learns an arm: latents of a waveform, frame by frame."""

import jax
import numpy as np
from toy_training import experiment as toy
from toy_training import losses_of

from tests import tiny
from v2a_jax.batch import Batch
from v2a_jax.codec import frozen
from v2a_jax.codec.target import Latents
from v2a_jax.models.ar_latents import LatentModel, LatentModelConfig
from v2a_jax.models.generator import Generator
from v2a_jax.objectives.next_latents import NextLatents
from v2a_jax.parallel.mesh import MeshConfig
from v2a_jax.training.loop import train
from v2a_jax.training.optimizer import OptimizerConfig

PATCHES = frozen.describe("patches:200:8:1")
B = 8


def rows(step):
  """Sines of two loudnesses, which the prompt tells apart."""
  rng = np.random.default_rng(step)
  cond = vars(tiny.conditioning(B, n=2, size=8, words=2))
  cond = {k: v for k, v in cond.items() if v is not None}
  loud = np.arange(B) % 2
  x = np.sin(np.arange(64) * 0.7 + rng.uniform(0, 6, (B, 1)))
  audio = (x * np.where(loud, 0.9, 0.05)[:, None]).astype(np.float32)
  return cond | dict(
    prompt=np.tile(1 + loud[:, None], (1, 2)).astype(np.int32),
    audio=audio[..., None],
    duration=np.full(B, 64 / 200, np.float32),
    example=step * B + np.arange(B),
  )


def test_next_latents_are_learned_by_the_real_trainer(tmp_path):
  config = LatentModelConfig(
    width=tiny.WIDTH,
    num_heads=tiny.HEADS,
    depth=1,
    mlp_dim=24,
    channels=PATCHES.config.latent_dim,
    head_width=16,
    head_depth=1,
  )
  experiment = toy(
    make_model=lambda rngs: Generator(
      tiny.conditioner(), LatentModel(config, rngs=rngs)
    ),
    objective=NextLatents(),
    open_loader=lambda split, *, step, index, count: (
      {k: v[index::count] for k, v in rows(i).items()} for i in range(step, 100)
    ),
    make_batch=Batch.from_arrays,
    batch_size=B,
    optimizer=OptimizerConfig(learning_rate=1e-2),
    num_train_steps=40,
    target=Latents(PATCHES),
    frozen=lambda: PATCHES.state,
    mesh=MeshConfig(data=2, fsdp=2, tensor=2),
    log_every=5,
    eval_every=20,
  )
  done = train(experiment, tmp_path)
  losses = losses_of(tmp_path)
  assert np.mean(losses[-3:]) < 0.6 * losses[0]
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(done.ema))
