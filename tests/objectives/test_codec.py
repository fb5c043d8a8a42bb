"""The codec's loss: per example, and two players who do not mix."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from v2a_jax.batch import Batch
from v2a_jax.codec.autoencoder import Codec, CodecConfig
from v2a_jax.codec.discriminators import Discriminator, DiscriminatorConfig
from v2a_jax.objectives.codec import CodecGAN, CodecObjective

CODEC = CodecConfig(
  strides=(8, 4),
  encoder_widths=(8, 16),
  decoder_widths=(8, 16),
  dilations=((1,), (1,)),
  latent_dim=8,
  num_codebooks=2,
  codebook_size=16,
  codebook_dim=4,
)
CRITICS = DiscriminatorConfig(
  periods=(2,), fft_sizes=(64,), num_bands=2, widths=(4, 4)
)
PLAIN = CodecObjective(crop=512, fft_sizes=(64, 128))


@pytest.fixture(scope="module")
def model():
  return CodecGAN(
    Codec(CODEC, rngs=nnx.Rngs(0)), Discriminator(CRITICS, rngs=nnx.Rngs(1))
  )


@pytest.fixture(scope="module")
def batch():
  audio = 0.2 * jax.random.normal(jax.random.key(0), (4, 1024, 1))
  return Batch(
    audio=audio, duration=jnp.ones(4), cond=None, example=np.arange(4)
  )


def _gradients(model, batch, **weights):
  objective = CodecObjective(crop=512, fft_sizes=(64, 128), **weights)
  graphdef, params, rest = nnx.split(model, nnx.Param, ...)

  def loss(params):
    merged = nnx.merge(graphdef, params, rest)
    losses, _ = objective.loss(merged, batch, key=jax.random.key(1), train=True)
    return jnp.mean(losses)

  return jax.jit(jax.grad(loss))(params)


def test_losses_and_metrics_are_per_example(model, batch):
  objective = CodecObjective(
    crop=512, fft_sizes=(64,), adversarial_weight=1.0, feature_weight=1.0
  )
  losses, metrics = objective.loss(
    model, batch, key=jax.random.key(0), train=True
  )
  assert losses.shape == (4,) and jnp.all(jnp.isfinite(losses))
  assert {k: v.shape for k, v in metrics.items()} == dict.fromkeys(
    metrics, (4,)
  )
  assert {"mel", "kl", "commitment", "discriminator"} <= metrics.keys()


def test_evaluation_does_not_depend_on_crops_or_gains(model, batch):
  _, first = PLAIN.loss(model, batch, key=jax.random.key(0), train=False)
  _, other = PLAIN.loss(model, batch, key=jax.random.key(9), train=False)
  np.testing.assert_allclose(first["kl"], other["kl"])


def test_without_weights_no_critic_learns(model, batch):
  grads = _gradients(model, batch)
  assert not any(jnp.any(g) for g in jax.tree.leaves(grads.discriminator))
  assert all(jnp.any(g) for g in jax.tree.leaves(grads.codec.decoder))


def test_the_two_players_do_not_mix(model, batch):
  """The codec's gradient is as if the critics were constants, and so on."""
  off = dict.fromkeys(
    (
      "convergence_weight",
      "log_magnitude_weight",
      "mel_weight",
      "waveform_weight",
      "kl_weight",
      "codebook_weight",
      "commitment_weight",
    ),
    0.0,
  )
  little = _gradients(model, batch, **off, adversarial_weight=1e-9)
  much = _gradients(model, batch, **off, adversarial_weight=1.0)
  size = optax.global_norm
  assert size(little.discriminator) > 1e-3
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
    little.discriminator,
    much.discriminator,
  )
  assert size(little.codec) < 1e-6 * size(much.codec)


def test_a_codec_without_critics_trains_and_gets_better(batch):
  model = CodecGAN(Codec(CODEC, rngs=nnx.Rngs(0)))
  graphdef, params, rest = nnx.split(model, nnx.Param, ...)
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(3e-3))
  tone = 0.3 * jnp.sin(jnp.arange(1024) * 0.2)[None, :, None]
  tones = batch.replace(audio=tone * jnp.array([1, 0.5, 0.3, 1])[:, None, None])

  @jax.jit
  def step(params, state, key):
    def loss(params):
      merged = nnx.merge(graphdef, params, rest)
      losses, metrics = PLAIN.loss(merged, tones, key=key, train=True)
      return jnp.mean(losses), jnp.mean(metrics["mel"])

    (_, mel), grads = jax.value_and_grad(loss, has_aux=True)(params)
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state, mel

  state, mels = optimizer.init(params), []
  for i in range(60):
    params, state, mel = step(params, state, jax.random.key(i))
    mels.append(float(mel))
  assert np.mean(mels[-5:]) < 0.6 * np.mean(mels[:5])


def test_a_codec_samples_nothing(model):
  with pytest.raises(NotImplementedError, match="train a generator"):
    PLAIN.sample(model, None, key=jax.random.key(0))
