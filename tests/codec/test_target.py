"""Targets: values, times and masks."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from v2a_jax.batch import Batch
from v2a_jax.codec.autoencoder import Codec, CodecConfig
from v2a_jax.codec.frozen import FrozenCodec
from v2a_jax.codec.target import Codes, Latents

CONFIG = CodecConfig(
  sample_rate=1600,
  strides=(4, 4),
  encoder_widths=(4, 4),
  decoder_widths=(4, 4),
  dilations=((1,), (1,)),
  latent_dim=3,
  num_codebooks=2,
  codebook_size=5,
  codebook_dim=2,
)


@pytest.fixture(scope="module")
def codec():
  make = lambda: Codec(CONFIG, rngs=nnx.Rngs(0))
  graphdef, _ = nnx.split(nnx.eval_shape(make))
  return nnx.merge(graphdef, jax.jit(lambda: nnx.state(make()))())


@pytest.fixture(scope="module")
def frozen(codec):
  return FrozenCodec(CONFIG, *nnx.split(codec))


@pytest.fixture
def batch():
  audio = 0.1 * jax.random.normal(jax.random.key(0), (2, 160, 1))
  duration = jnp.array([0.1, 0.052])
  return Batch(audio=audio, duration=duration, cond=None, example=np.arange(2))


def test_latents_are_the_encoders_with_times_and_mask(codec, frozen, batch):
  filled = jax.jit(Latents(frozen))(frozen.state, batch)
  np.testing.assert_allclose(
    filled.target, codec.encode(batch.audio), atol=1e-5
  )
  np.testing.assert_allclose(
    filled.target_times, (np.arange(10) + 0.5) / 100, atol=1e-6
  )
  # 52 ms reach into the sixth step of 10 ms.
  np.testing.assert_array_equal(filled.target_mask.sum(axis=1), [10, 6])
  assert filled.target_mask[1, 5] and not filled.target_mask[1, 6]


def test_codes_are_the_quantized_latents(codec, frozen, batch):
  filled = jax.jit(Codes(frozen))(frozen.state, batch)
  wanted = codec.quantize(codec.encode(batch.audio))
  np.testing.assert_array_equal(filled.target, wanted)
  assert filled.target.dtype == jnp.int32
  assert filled.target_mask.shape == (2, 10)


def test_a_token_model_may_learn_the_first_codebooks_only(codec, frozen, batch):
  count = CONFIG.num_codebooks - 1
  filled = jax.jit(Codes(frozen, count))(frozen.state, batch)
  wanted = codec.quantize(codec.encode(batch.audio))[..., :count]
  np.testing.assert_array_equal(filled.target, wanted)


def test_targets_become_the_latents_that_the_decoder_takes(
  codec, frozen, batch
):
  """By the weights of the call; those of the codec may be shapes."""
  shapes = jax.eval_shape(lambda: frozen.state)
  described = FrozenCodec(CONFIG, frozen.graphdef, shapes)
  latents = codec.encode(batch.audio)
  same = Latents(described).latents(frozen.state, latents)
  np.testing.assert_array_equal(same, latents)
  codes = codec.quantize(latents)
  np.testing.assert_allclose(
    Codes(described).latents(frozen.state, codes), codec.dequantize(codes)
  )


def test_no_gradient_flows_to_the_codec(frozen, batch):
  power = lambda s: jnp.sum(Latents(frozen)(s, batch).target ** 2)
  grads = jax.jit(jax.grad(power))(frozen.state)
  assert not any(jnp.any(g) for g in jax.tree.leaves(grads))
