"""MMAudio's kind of network on a mesh, in training and with low-rank changes."""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest

from tests import tiny
from v2a_jax.batch import Conditioning
from v2a_jax.conditioning.mmaudio import MMAudioConditionerConfig
from v2a_jax.models import lora
from v2a_jax.models.generator import Generator
from v2a_jax.models.mmaudio import MMAudioConfig
from v2a_jax.objectives.diffusion import Diffusion
from v2a_jax.parallel import sharding
from v2a_jax.weights import names

B, T, CHANNELS, WIDTH = 8, 10, 4, 16
CLIP, SYNC, TEXT = (6, 12), (8, 10), (5, 14)  # (tokens, features)
RATE = 5.0


def make(**changes) -> Generator:
  """A generator with random weights, none of them zero."""
  sizes = dict(width=WIDTH, num_heads=2, joint_depth=2, depth=2)
  config = MMAudioConfig(
    **(sizes | changes), channels=CHANNELS, latent_rate=RATE
  )
  conditioner = MMAudioConditionerConfig(
    clip_dim=CLIP[1],
    sync_dim=SYNC[1],
    text_dim=TEXT[1],
    text_length=TEXT[0],
    width=WIDTH,
    version=config.version,
  )
  return tiny.drawn(
    lambda: Generator(
      conditioner.make(rngs=nnx.Rngs(0)), config.make(rngs=nnx.Rngs(0))
    )
  )


def conditioning(b=B) -> Conditioning:
  draw = lambda *shape: np.random.default_rng(1).normal(size=shape)
  features = {"clip": draw(b, *CLIP), "sync": draw(b, *SYNC)}
  features = {k: v.astype(np.float32) for k, v in features.items()}
  return Conditioning(
    frame_times=np.zeros((b, 1), np.float32),
    frame_mask=np.ones((b, 1), bool),
    prompt=draw(b, *TEXT).astype(np.float32),
    prompt_mask=np.ones((b, TEXT[0]), bool),
    transcript=np.zeros((b, 1), np.int32),
    transcript_times=np.zeros((b, 1), np.float32),
    transcript_durations=np.zeros((b, 1), np.float32),
    transcript_mask=np.zeros((b, 1), bool),
    transcript_timed=np.zeros(b, bool),
    presence=np.full((b, 3), 2, np.int32),
    features=features,
  )


TIMES = ((np.arange(T) + 0.5) / RATE).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def predict(graphdef, params, cond, noisy, time):
  model = nnx.merge(graphdef, params)
  return model(noisy, time, model.encode(cond), times=TIMES)


@functools.partial(jax.jit, static_argnums=0)
def gradient(graphdef, *arguments):
  loss = lambda *x: jnp.square(predict(graphdef, *x)).mean()
  return jax.grad(loss)(*arguments)


def inputs():
  noisy = np.random.default_rng(0).normal(size=(B, T, CHANNELS))
  return noisy.astype(np.float32), np.linspace(0, 1, B, dtype=np.float32)


def place(arguments, mesh):
  """Lays parameters out by their names, and the batch over its axes."""
  params, *batch = arguments
  params = jax.device_put(params, sharding.state_shardings(params, mesh))
  return params, *jax.device_put(batch, sharding.batch_sharding(mesh))


def test_predictions_and_gradients_do_not_depend_on_the_mesh(mesh):
  graphdef, params = nnx.split(make())
  arguments = params, conditioning(), *inputs()
  expected = predict(graphdef, *arguments)
  gradients = names.flatten(gradient(graphdef, *arguments))
  with jax.set_mesh(mesh):
    placed = place(arguments, mesh)
    out = predict(graphdef, *placed)
    found = names.flatten(gradient(graphdef, *placed))
  assert not out.sharding.is_fully_replicated
  np.testing.assert_allclose(out, expected, atol=1e-5)
  assert found.keys() == gradients.keys()
  for name, leaf in found.items():
    np.testing.assert_allclose(
      leaf, gradients[name], rtol=1e-3, atol=1e-5, err_msg=name
    )


def test_kernels_are_split_over_fsdp_and_tensor(mesh):
  state = nnx.state(make().backbone)
  layout = names.joined(names.flatten(sharding.state_shardings(state, mesh)))
  spec = lambda name: layout[f"fused/blocks/latent/{name}"].spec
  assert spec("qkv/kernel") == P(None, "fsdp", None, "tensor")
  assert spec("qkv/bias") == P(None, None, "tensor")
  assert spec("out/kernel") == P(None, "tensor", "fsdp")
  assert spec("mlp/up/kernel") == P(None, "fsdp", "tensor")
  assert spec("mlp/down/kernel") == P(None, "tensor", "fsdp")
  assert spec("modulation/out/kernel") == P(None, "fsdp", None)


@pytest.mark.parametrize("version", [1, 2])
def test_every_weight_that_is_heard_has_a_gradient(version):
  graphdef, params = nnx.split(make(version=version))
  found = gradient(graphdef, params, conditioning(), *inputs())
  silent = {n for n, x in names.flatten(found).items() if not jnp.any(x)}
  # Conditions are all there; and the last joint block has, as published,
  # queries of frames and prompt that nothing attends with.
  learned = {
    ("conditioner", name) for name in ("no_clip", "no_sync", "no_text")
  }
  block = ("backbone", "last_joint", "blocks")
  queries = {(*block, part, "q_norm", "scale") for part in ("clip", "text")}
  assert silent == learned | queries


def test_bfloat16_is_near_float32_and_returns_float32():
  run = lambda model: predict(*nnx.split(model), conditioning(), *inputs())
  expected, out = run(make()), run(make(dtype="bfloat16"))
  assert out.dtype == jnp.float32
  error = np.sqrt(np.mean((out - expected) ** 2) / np.mean(expected**2))
  assert 0 < error < 0.05


@pytest.mark.parametrize("remat", ["full", "attention"])
def test_rematerialisation_changes_nothing(remat):
  plain, other = nnx.split(make()), nnx.split(make(remat=remat))
  arguments = conditioning(), *inputs()
  expected = names.flatten(gradient(*plain, *arguments))
  for name, leaf in names.flatten(gradient(*other, *arguments)).items():
    np.testing.assert_allclose(leaf, expected[name], rtol=1e-4, atol=1e-6)


def test_low_rank_changes_are_trained_and_nothing_else():
  config = lora.LoraConfig(rank=2, targets=("qkv", "out", "up", "embed"))
  plain = make()
  weights = names.flatten(nnx.state(plain))
  model = lora.adapt(plain, config, rngs=nnx.Rngs(0))
  graphdef, params, rest = nnx.split(model, nnx.Param, ...)
  assert {name[-1] for name in names.flatten(params)} == set(lora.NEW)
  target = np.random.default_rng(2).normal(size=(B, T, CHANNELS))
  batch = tiny.batch(
    target.astype(np.float32),
    B,
    cond=conditioning(),
    target_times=TIMES,
  )
  objective = Diffusion(cond_drop_rate=0.0)

  @jax.jit
  @jax.value_and_grad
  def loss(params):
    model = nnx.merge(graphdef, params, rest)
    key = jax.random.key(0)
    return objective.loss(model, batch, key=key, train=True)[0].mean()

  first, gradients = loss(params)
  params = jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradients)
  assert loss(params)[0] < first
  merged = lora.merge(nnx.merge(graphdef, params, rest))
  after = names.flatten(nnx.state(merged))
  assert after.keys() == weights.keys()
  kept = ("backbone", "time_in", "kernel")
  np.testing.assert_array_equal(after[kept], weights[kept])
  changed = ("backbone", "fused", "blocks", "latent", "qkv", "kernel")
  assert np.abs(after[changed] - weights[changed]).max() > 0
