"""Low-rank adaptation of a whole generator."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from v2a_jax.models import lora
from v2a_jax.weights import names

CONFIG = lora.LoraConfig(rank=2, alpha=4.0, targets=("qkv", "up"))


def flat(state):
  return names.joined(names.flatten(state))


def _run(model):
  graphdef, state = nnx.split(model)

  @jax.jit
  def run(state, x, cond):
    model = nnx.merge(graphdef, state)
    time = jnp.full((2,), 0.5)
    return model(x, time, model.encode(cond), times=tiny.times(8))

  x = jax.random.normal(jax.random.key(0), (2, 8, tiny.CHANNELS))
  return run(state, x, tiny.conditioning())


@pytest.fixture
def adapted():
  return lora.adapt(tiny.diffusion(), CONFIG, rngs=nnx.Rngs(0))


def _stir(model):
  """Gives B values, which start at zero."""
  graphdef, params, rest = nnx.split(model, nnx.Param, ...)
  params = jax.tree.map(lambda x: x + 0.3, params)
  return nnx.merge(graphdef, params, rest)


def test_an_untrained_adaptation_changes_nothing(adapted):
  np.testing.assert_allclose(_run(adapted), _run(tiny.diffusion()), atol=1e-5)


def test_only_the_new_matrices_are_trained_and_they_are_few(adapted):
  trained = flat(nnx.state(adapted, nnx.Param))
  assert {path.rpartition("/")[2] for path in trained} == set(lora.NEW)
  names = {path.split("/")[-2] for path in trained}
  assert names == {"qkv", "up"}
  stacked = trained["backbone/audio/blocks/attention/qkv/lora_a"]
  assert stacked.shape == (2, tiny.WIDTH, 2)
  plain = flat(nnx.state(tiny.diffusion()))
  rest = flat(nnx.state(adapted, lora.Frozen))
  assert rest.keys() == plain.keys()


def test_a_merged_model_is_the_adapted_one(adapted):
  stirred = _stir(adapted)
  wanted = _run(stirred)
  assert np.abs(wanted - _run(adapted)).max() > 1e-3
  merged = nnx.to_pure_dict(nnx.state(lora.merge(stirred)))
  plain = tiny.diffusion()
  graphdef, state = nnx.split(plain)
  nnx.replace_by_pure_dict(state, merged)
  found = _run(nnx.merge(graphdef, state))
  np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_the_change_is_alpha_over_rank_times_b_a(adapted):
  linear = _stir(adapted).conditioner.video.temporal.blocks.attention.qkv
  x = jax.random.normal(jax.random.key(0), (5, tiny.WIDTH))
  layer = jax.tree.map(lambda w: w[0], nnx.state(linear))
  one = nnx.merge(nnx.split(linear)[0], layer)
  a, b, w = (np.asarray(v[0], np.float64) for v in (
    linear.lora_a[...], linear.lora_b[...], linear.kernel[...],
  ))  # fmt: skip
  wanted = np.asarray(x, np.float64) @ (w + 4.0 / 2 * a @ b)
  np.testing.assert_allclose(one(x), wanted, rtol=1e-4, atol=1e-4)


def test_targets_that_are_not_there_are_answered_with_those_that_are():
  config = lora.LoraConfig(rank=2, targets=("query",))
  with pytest.raises(ValueError, match="'query'.*the model has none.*qkv"):
    lora.adapt(tiny.diffusion(), config, rngs=nnx.Rngs(0))
