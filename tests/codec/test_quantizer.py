"""The residual quantizer: codes, decoding and gradients."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from v2a_jax.codec.autoencoder import CodecConfig
from v2a_jax.codec.quantizer import ResidualQuantizer, fit


@pytest.fixture
def quantizer():
  config = CodecConfig(
    latent_dim=6, num_codebooks=4, codebook_size=16, codebook_dim=3
  )
  return ResidualQuantizer(config, rngs=nnx.Rngs(0))


@pytest.fixture
def latents():
  return jax.random.normal(jax.random.key(0), (5, 7, 6))


def test_codes_are_in_range_and_stand_for_what_training_decodes(
  quantizer, latents
):
  codes = quantizer.quantize(latents)
  assert codes.shape == (5, 7, 4) and codes.dtype == jnp.int32
  assert codes.min() >= 0 and codes.max() < 16
  trained, _ = quantizer.train(latents, jnp.full((5,), 4))
  np.testing.assert_allclose(quantizer.dequantize(codes), trained, atol=1e-5)


def test_fewer_stages_are_a_prefix_of_the_codes(quantizer, latents):
  codes = quantizer.quantize(latents)
  trained, _ = quantizer.train(latents, jnp.array([1, 2, 3, 4, 2]))
  np.testing.assert_allclose(
    trained[1], quantizer.dequantize(codes[..., :2])[1], atol=1e-5
  )


def test_the_gradient_passes_straight_through(quantizer, latents):
  weight = jax.random.normal(jax.random.key(2), latents.shape)
  used = jnp.full((5,), 4)

  def decoded(x):
    return jnp.sum(weight * quantizer.train(x, used)[0])

  np.testing.assert_allclose(jax.grad(decoded)(latents), weight, atol=1e-6)


def test_codebook_loss_leaves_the_latents_alone(quantizer, latents):
  def loss(x, name):
    used = jnp.full((5,), 4)
    return quantizer.train(x, used)[1][name].sum()

  assert not jnp.any(jax.grad(loss)(latents, "codebook"))
  assert jnp.any(jax.grad(loss)(latents, "commitment"))


def test_training_brings_codes_near_the_latents_and_into_use(quantizer):
  graphdef, params = nnx.split(quantizer)
  optimizer = optax.adam(1e-2)
  data = jax.random.normal(jax.random.key(3), (8, 64, 6)) + 4.0
  used = jnp.full((8,), 4)

  def loss(params):
    _, losses = nnx.merge(graphdef, params).train(data, used)
    return jnp.mean(losses["codebook"]), jnp.mean(losses["commitment"])

  @jax.jit
  def step(params, state):
    (_, left), grads = jax.value_and_grad(loss, has_aux=True)(params)
    updates, state = optimizer.update(grads, state)
    return optax.apply_updates(params, updates), state, left

  state = optimizer.init(params)
  for _ in range(300):
    params, state, left = step(params, state)
  assert left < 0.25  # of a variance of 1, and a power of 17
  codes = nnx.merge(graphdef, params).quantize(data)
  assert len(np.unique(codes[..., 0])) >= 14


def test_fit_puts_codes_where_the_latents_are(quantizer):
  """Sixteen tight clusters: every code is used, and little is left over."""
  rng = np.random.default_rng(0)
  centres = rng.normal(size=(16, 6)) + 2.0
  latents = np.repeat(centres, 40, axis=0)
  latents = latents + 1e-3 * rng.normal(size=latents.shape)
  fit(quantizer, latents)
  codes = quantizer.quantize(jnp.asarray(latents[None], jnp.float32))
  assert len(np.unique(codes[..., 0])) == 16
  left = np.square(latents - quantizer.dequantize(codes)[0]).mean()
  assert left < 0.02 * latents.var(axis=0).mean()


def test_fit_needs_more_latents_than_codes(quantizer):
  with pytest.raises(ValueError, match="9 latents for 16 codes"):
    fit(quantizer, np.zeros((9, 6)))


def test_too_many_codes_are_refused(quantizer):
  with pytest.raises(ValueError, match="5 codes a step"):
    quantizer.dequantize(jnp.zeros((1, 2, 5), jnp.int32))


def test_codes_are_searched_in_full_precision(quantizer, latents):
  """TPUs and GPUs round the inputs of other products to 8 or 10 bits."""
  traced = jax.make_jaxpr(quantizer.codebooks[0].encode)(latents)
  exact = jax.lax.Precision.HIGHEST
  found = [
    equation.params["precision"]
    for equation in traced.eqns
    if equation.primitive.name == "dot_general"
  ]
  assert found == [(exact, exact)] * 2
