"""Low-rank adaptation: its algebra, and a whole generator adapted."""

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
  trained = _stir(adapted)
  expected = _run(trained)
  assert np.abs(expected - _run(adapted)).max() > 1e-3
  merged = nnx.to_pure_dict(nnx.state(lora.merge(trained)))
  graphdef, state = nnx.split(tiny.diffusion())
  nnx.replace_by_pure_dict(state, merged)
  out = _run(nnx.merge(graphdef, state))
  np.testing.assert_allclose(out, expected, atol=1e-4)


class Net(nnx.Module):
  """A map of each kind: with a bias, without, and one of another name."""

  def __init__(self, rngs):
    self.up = nnx.Linear(6, 9, rngs=rngs)
    self.out = nnx.Linear(9, 4, use_bias=False, rngs=rngs)
    self.other = nnx.Linear(4, 4, rngs=rngs)

  def __call__(self, x):
    return self.other(self.out(jnp.tanh(self.up(x))))


def adapted_net(**changes):
  config = lora.LoraConfig(rank=2, alpha=3.0, targets=("up", "out"))
  return _stir(
    lora.adapt(Net(nnx.Rngs(0)), config, rngs=nnx.Rngs(1), **changes)
  )


def test_an_adapted_map_is_the_old_one_plus_alpha_over_rank_times_b_a():
  net, plain = adapted_net(), Net(nnx.Rngs(0))
  x = np.random.default_rng(0).normal(size=(5, 6))
  double = lambda w: np.asarray(w[...], np.float64)
  change = double(net.up.lora_a) @ double(net.up.lora_b) * 3.0 / 2
  expected = x @ (double(plain.up.kernel) + change) + double(plain.up.bias)
  out = net.up(jnp.asarray(x, jnp.float32))
  np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_the_change_has_the_rank_of_its_config():
  merged, plain = lora.merge(adapted_net()), Net(nnx.Rngs(0))
  for name in ("up", "out"):
    kernels = [getattr(net, name).kernel[...] for net in (merged, plain)]
    values = np.linalg.svd(kernels[0] - kernels[1], compute_uv=False)
    assert values[0] > 0.1 and values[2] < 1e-5


def test_gradients_reach_the_new_matrices_alone():
  graphdef, params, rest = nnx.split(adapted_net(), nnx.Param, ...)
  x = jnp.ones((3, 6))
  loss = lambda params: nnx.merge(graphdef, params, rest)(x).sum()
  gradients = flat(jax.grad(loss)(params))
  assert set(gradients) == {
    f"{name}/{new}" for name in ("up", "out") for new in lora.NEW
  }
  assert all(np.abs(leaf).max() > 1e-4 for leaf in gradients.values())


def test_a_part_is_adapted_and_the_rest_still_trained():
  net = adapted_net(parts=("up",))
  trained = set(flat(nnx.state(net, nnx.Param)))
  assert trained == {
    *("up/lora_a", "up/lora_b", "out/kernel", "other/kernel", "other/bias")
  }
  frozen = lora.freeze(Net(nnx.Rngs(0)), parts=("other",))
  assert set(flat(nnx.state(frozen, lora.Frozen))) == {
    *("other/kernel", "other/bias")
  }


def test_frozen_maps_are_not_adapted():
  net = lora.freeze(Net(nnx.Rngs(0)), parts=("up",))
  config = lora.LoraConfig(rank=2, targets=("up", "out"))
  lora.adapt(net, config, rngs=nnx.Rngs(1))
  assert set(flat(nnx.state(net, nnx.Param))) == {"out/lora_a", "out/lora_b"}


def test_a_map_keeps_the_dtype_of_its_computation():
  base = nnx.Linear(6, 4, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
  config = lora.LoraConfig(rank=2)
  x = jax.random.normal(jax.random.key(0), (5, 6))
  out = lora.LoraLinear(base, config, rngs=nnx.Rngs(1))(x)
  assert out.dtype == jnp.bfloat16
  np.testing.assert_allclose(out, base(x), atol=1e-2)


@pytest.mark.parametrize("change", [dict(rank=-1), dict(alpha=0.0)])
def test_ranks_and_scales_out_of_range_are_refused(change):
  with pytest.raises(ValueError, match="is not in"):
    lora.LoraConfig(**change)


def test_unknown_targets_are_refused_with_the_known_ones():
  config = lora.LoraConfig(rank=2, targets=("query",))
  with pytest.raises(ValueError, match="'query'.*the model has none.*qkv"):
    lora.adapt(tiny.diffusion(), config, rngs=nnx.Rngs(0))
