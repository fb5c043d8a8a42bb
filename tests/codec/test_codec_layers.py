"""Layers against closed forms and against JAX's own convolutions."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from v2a_jax.codec import layers


def test_snake_is_its_closed_form():
  x = np.linspace(-40, 40, 999)[:, None]
  alpha = np.array([0.3, 1.0, 2.0])
  wanted = x + np.sin(alpha * x) ** 2 / alpha
  ours = layers.snake(jnp.asarray(x, jnp.float32), jnp.asarray(alpha))
  np.testing.assert_allclose(ours, wanted, atol=3e-5)


def test_snake_has_the_gradient_of_its_closed_form():
  x = np.linspace(-5, 5, 101)
  slope = jax.vmap(jax.grad(lambda v: layers.snake(v, jnp.float32(1.5))))
  ours = slope(jnp.asarray(x, jnp.float32))
  np.testing.assert_allclose(ours, 1 + np.sin(2 * 1.5 * x), atol=1e-4)


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_downsample_is_a_strided_convolution(stride):
  layer = layers.Downsample(3, 5, stride, rngs=nnx.Rngs(0))
  x = jax.random.normal(jax.random.key(0), (2, 6 * stride, 3))
  before = stride // 2
  wanted = jax.lax.conv_general_dilated(
    x,
    layer.kernel[...].reshape(2 * stride, 3, 5),
    (stride,),
    [(before, stride - before)],
    dimension_numbers=("NWC", "WIO", "NWC"),
  )
  np.testing.assert_allclose(layer(x), wanted, atol=1e-5)


def test_upsample_is_the_transpose_of_downsample():
  down = layers.Downsample(3, 5, 4, rngs=nnx.Rngs(0))
  up = layers.Upsample(5, 3, 4, rngs=nnx.Rngs(0))
  kernel = down.kernel[...].reshape(2, 4 * 3, 5)
  up.kernel = nnx.Param(jnp.swapaxes(kernel, 1, 2))
  keys = jax.random.split(jax.random.key(0))
  x = jax.random.normal(keys[0], (2, 24, 3))
  y = jax.random.normal(keys[1], (2, 6, 5))
  np.testing.assert_allclose(
    jnp.sum(down(x) * y), jnp.sum(x * up(y)), rtol=1e-4
  )


def test_downsample_refuses_a_length_that_is_no_multiple():
  layer = layers.Downsample(1, 2, 4, rngs=nnx.Rngs(0))
  with pytest.raises(ValueError, match="10 steps are not a multiple"):
    layer(jnp.zeros((1, 10, 1)))
