"""Every generator computes the same on eight devices as on one."""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest

from tests import tiny
from v2a_jax.parallel import sharding
from v2a_jax.weights import names

B, T = 8, 6
MAKE = {"dit": tiny.diffusion, "ar": tiny.tokens, "ar_latents": tiny.latents}


def inputs(name):
  """What a backbone is called with beside condition tokens."""
  draw = lambda *shape: np.random.default_rng(0).normal(size=shape)
  latents = draw(B, T, tiny.CHANNELS).astype(np.float32)
  if name == "dit":
    return dict(noisy_latents=latents, time=np.linspace(0, 1, B))
  if name == "ar":
    shape = (B, T, tiny.BOOKS)
    return dict(codes=np.random.default_rng(0).integers(0, tiny.CODES, shape))
  noisy = draw(B, T, 2, tiny.CHANNELS).astype(np.float32)
  return dict(latents=latents, noisy=noisy, time=np.full((B, T, 2), 0.4))


@functools.partial(jax.jit, static_argnums=0)
def run(graphdef, params, cond, inputs):
  """Calls a generator, or a backbone if `cond` are tokens."""
  model = nnx.merge(graphdef, params)
  backbone = getattr(model, "backbone", model)
  tokens = model.encode(cond) if backbone is not model else cond
  return backbone(tokens=tokens, times=tiny.times(T), **inputs)


@functools.partial(jax.jit, static_argnums=0)
def gradient(graphdef, *arguments):
  return jax.grad(lambda *x: jnp.square(run(graphdef, *x)).mean())(*arguments)


def place(arguments, mesh):
  """Lays parameters out by their names, and the batch over its axes."""
  params, *batch = arguments
  params = jax.device_put(params, sharding.state_shardings(params, mesh))
  return params, *jax.device_put(batch, sharding.batch_sharding(mesh))


@pytest.mark.parametrize("name", sorted(MAKE))
def test_predictions_do_not_depend_on_the_mesh(mesh, name):
  graphdef, params = nnx.split(MAKE[name]())
  arguments = params, tiny.conditioning(B), inputs(name)
  expected = run(graphdef, *arguments)
  with jax.set_mesh(mesh):
    out = run(graphdef, *place(arguments, mesh))
  assert not out.sharding.is_fully_replicated
  np.testing.assert_allclose(out, expected, atol=1e-4)


def test_gradients_do_not_depend_on_the_mesh(mesh):
  model = tiny.diffusion()
  tokens = nnx.jit(lambda encoder, cond: encoder(cond))(
    model.conditioner, tiny.conditioning(B)
  )
  graphdef, params = nnx.split(model.backbone)
  arguments = params, tokens, inputs("dit")
  expected = names.flatten(gradient(graphdef, *arguments))
  with jax.set_mesh(mesh):
    gradients = names.flatten(gradient(graphdef, *place(arguments, mesh)))
  assert gradients.keys() == expected.keys()
  for name, leaf in gradients.items():
    np.testing.assert_allclose(
      leaf, expected[name], rtol=1e-3, atol=1e-5, err_msg=name
    )


def test_kernels_are_split_over_fsdp_and_tensor(mesh):
  state = nnx.state(tiny.diffusion().backbone)
  layout = names.joined(names.flatten(sharding.state_shardings(state, mesh)))
  spec = lambda name: layout[name].spec
  blocks = "audio/blocks"
  fused = (None, "fsdp", None, "tensor")
  assert spec(f"{blocks}/attention/qkv/kernel") == P(*fused)
  assert spec(f"{blocks}/attention/out/kernel") == P(None, "tensor", "fsdp")
  assert spec(f"{blocks}/mlp/up/kernel") == P(*fused)
  assert spec(f"{blocks}/mlp/down/kernel") == P(None, "tensor", "fsdp")
  assert spec(f"{blocks}/attention/q_norm/scale") == P(None, None)
  assert spec("time/kernel") == P(None, "fsdp")
