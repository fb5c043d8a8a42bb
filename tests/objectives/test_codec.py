"""The codec's loss: per example, with separate gradients of two networks."""

import dataclasses

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
  dilations=((1,), ()),
  latent_dim=8,
  num_codebooks=2,
  codebook_size=16,
  codebook_dim=4,
)
CRITICS = DiscriminatorConfig(
  periods=(2,), fft_sizes=(64,), num_bands=2, widths=(4, 4)
)
PLAIN = CodecObjective(crop=512, fft_sizes=(64,))
ADVERSARIAL = dataclasses.replace(
  PLAIN, adversarial_weight=1.0, feature_weight=1.0
)


def _gan(critics=True) -> CodecGAN:
  rngs = nnx.Rngs(0)
  players = Discriminator(CRITICS, rngs=rngs) if critics else None
  return CodecGAN(Codec(CODEC, rngs=rngs), players)


def _split(critics=True):
  """Graph, parameters and buffers, from one compilation."""
  make = lambda: nnx.split(_gan(critics), nnx.Param, ...)[1:]
  graphdef, _ = nnx.split(nnx.eval_shape(lambda: _gan(critics)))
  return graphdef, *jax.jit(make)()


@pytest.fixture(scope="module")
def batch():
  audio = 0.2 * jax.random.normal(jax.random.key(0), (4, 1024, 1))
  return Batch(
    audio=audio, duration=jnp.ones(4), cond=None, example=np.arange(4)
  )


def _loss(objective, split, batch, key, train):
  model = nnx.merge(*split)
  return objective.loss(model, batch, key=key, train=train)


@pytest.fixture(scope="module")
def adversarial_run(batch):
  """Losses, metrics and the gradients of two adversarial metrics."""
  graphdef, params, rest = _split()

  def run(params):
    losses, metrics = _loss(
      ADVERSARIAL, (graphdef, params, rest), batch, jax.random.key(1), True
    )
    pair = {k: metrics[k].mean() for k in ("discriminator", "adversarial")}
    return pair, (losses, metrics)

  return jax.jit(jax.jacrev(run, has_aux=True))(params)


def test_losses_and_metrics_are_per_example(adversarial_run):
  _, (losses, metrics) = adversarial_run
  assert losses.shape == (4,) and jnp.all(jnp.isfinite(losses))
  assert {v.shape for v in metrics.values()} == {(4,)}
  assert {"mel", "kl", "commitment", "discriminator"} <= metrics.keys()


def test_codec_and_discriminator_have_separate_gradients(adversarial_run):
  grads, _ = adversarial_run
  size = optax.global_norm
  assert size(grads["discriminator"].codec) == 0
  assert size(grads["discriminator"].discriminator) > 1e-3
  assert size(grads["adversarial"].discriminator) == 0
  assert size(grads["adversarial"].codec.decoder) > 1e-3
  assert size(grads["adversarial"].codec.encoder) > 1e-3


def test_evaluation_does_not_depend_on_crops_or_gains(batch):
  split = _split(critics=False)
  evaluate = jax.jit(lambda key: _loss(PLAIN, split, batch, key, False)[1])
  first, other = (evaluate(jax.random.key(i)) for i in (0, 9))
  np.testing.assert_allclose(first["kl"], other["kl"])
  np.testing.assert_allclose(first["commitment"], other["commitment"])


def test_validation_gives_the_loss_and_its_parts(batch):
  split = _split(critics=False)
  key = jax.random.key(0)
  loss, parts = jax.jit(lambda: _loss(PLAIN, split, batch, key, False))()
  metrics = jax.jit(lambda: PLAIN.evaluate(nnx.merge(*split), batch, key=key))()
  assert metrics.keys() == parts.keys() | {"loss"}
  np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
  weighted = sum(
    getattr(PLAIN, f"{name}_weight") * metrics[name] for name in parts
  )
  np.testing.assert_allclose(metrics["loss"], weighted, rtol=1e-5)


def test_without_adversarial_weights_the_discriminator_is_not_run(batch):
  split = _split()
  metrics = jax.eval_shape(
    lambda key: _loss(PLAIN, split, batch, key, True)[1], jax.random.key(0)
  )
  assert "discriminator" not in metrics and "features" not in metrics


def test_a_codec_without_discriminator_trains_and_gets_better(batch):
  graphdef, params, rest = _split(critics=False)
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(3e-3))
  tone = 0.3 * jnp.sin(jnp.arange(1024) * 0.2)[None, :, None]
  tones = batch.replace(audio=tone * jnp.array([1, 0.5, 0.3, 1])[:, None, None])

  @jax.jit
  def step(params, state, key):
    def loss(params):
      losses, metrics = _loss(PLAIN, (graphdef, params, rest), tones, key, True)
      return jnp.mean(losses), jnp.mean(metrics["mel"])

    (_, mel), grads = jax.value_and_grad(loss, has_aux=True)(params)
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state, mel

  state, mels = optimizer.init(params), []
  for i in range(60):
    params, state, mel = step(params, state, jax.random.key(i))
    mels.append(float(mel))
  assert np.mean(mels[-5:]) < 0.6 * np.mean(mels[:5])
