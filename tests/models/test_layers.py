"""The layers: positions from seconds, stacks, convolved feed-forward."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from v2a_jax.models import attention, layers


def test_rotary_scores_depend_on_time_differences_only():
  q, k = jax.random.normal(jax.random.key(0), (2, 1, 5, 2, 8))
  times = jnp.asarray([[0.0, 0.1, 0.35, 0.4, 2.0]])

  def scores(shift):
    return jnp.einsum(
      "bthk,bshk->bhts",
      layers.rotary(q, times + shift),
      layers.rotary(k, times + shift),
    )

  np.testing.assert_allclose(scores(0.0), scores(3.7), atol=1e-3)
  assert np.abs(scores(0.0) - jnp.einsum("bthk,bshk->bhts", q, k)).max() > 0.1


def test_rotary_keeps_norms():
  x = jax.random.normal(jax.random.key(0), (1, 3, 2, 8))
  turned = layers.rotary(x, jnp.asarray([0.0, 1.0, 2.5]))
  np.testing.assert_allclose(
    jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-5
  )


@pytest.mark.parametrize("causal", [False, True])
def test_convolved_feed_forward_equals_a_convolution(causal):
  mlp = layers.FeedForward(4, 6, kernel=3, causal=causal, rngs=nnx.Rngs(0))
  x = jax.random.normal(jax.random.key(1), (2, 7, 4))
  kernel = mlp.up.kernel[...].reshape(3, 4, 12)
  padding = [(2, 0)] if causal else [(1, 1)]
  wide = jax.lax.conv_general_dilated(
    x, kernel, (1,), padding, dimension_numbers=("NTC", "TIO", "NTC")
  )
  gate, value = jnp.split(wide, 2, axis=-1)
  expected = mlp.down(jax.nn.silu(gate) * value)
  np.testing.assert_allclose(mlp(x), expected, atol=1e-5)


@pytest.mark.parametrize("remat", ["none", "full", "dots"])
def test_stack_equals_its_blocks_one_after_another(remat):
  make = lambda rngs: layers.FeedForward(4, 6, rngs=rngs)
  stack = layers.Stack(make, 3, rngs=nnx.Rngs(0), remat=remat)
  x = jax.random.normal(jax.random.key(1), (2, 5, 4))
  graphdef, state = nnx.split(stack.blocks)
  expected = x
  for i in range(3):
    block = nnx.merge(graphdef, jax.tree.map(lambda a, i=i: a[i], state))
    expected = block(expected)
  np.testing.assert_allclose(stack(x), expected, atol=1e-5)
  assert np.abs(stack(x) - x).max() > 1e-3


def test_attention_ignores_masked_keys():
  q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 6, 2, 4))
  mask = jnp.arange(6)[None] < jnp.asarray([[4], [6]])
  spoiled = jnp.where(mask[..., None, None], k, 100.0)
  np.testing.assert_allclose(
    attention.attend(q, k, v, mask=mask),
    attention.attend(q, spoiled, v, mask=mask),
    atol=1e-6,
  )
