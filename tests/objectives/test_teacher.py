"""Representation alignment: features, their times and what learns from them."""

import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from configs import diffusion_tiny
from tests import tiny
from tests.pretrained.test_mn04 import WEIGHTS
from v2a_jax.codec import frozen as frozen_codec
from v2a_jax.codec.target import Latents
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.experiment.sections import ConfigError
from v2a_jax.objectives import teacher
from v2a_jax.objectives.diffusion import Diffusion
from v2a_jax.pretrained import mn04

T = 8
KEY = jax.random.key(0)


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("samples", [16_000, 15_999])
def test_resampling_agrees_with_scipy(rate, samples):
  rng = np.random.default_rng(0)
  spectrum = np.fft.rfft(rng.standard_normal((2, samples)))
  spectrum[:, samples // 3 :] = 0  # below either Nyquist frequency
  sound = np.fft.irfft(spectrum, n=samples)
  count = round(samples * 32_000 / rate)
  actual = teacher.resample(sound.astype(np.float32), rate, 32_000)
  wanted = scipy.signal.resample(sound, count, axis=1)
  np.testing.assert_allclose(actual, wanted, atol=1e-5)


def test_features_are_those_at_the_latents_times():
  if not WEIGHTS.is_file():
    pytest.skip("../shared/weights is not here")
  rng = np.random.default_rng(0)
  rate, seconds = 16_000, 4.0
  sound = 0.001 * rng.standard_normal((2, int(rate * seconds), 1))
  start = int(2.5 * rate)
  sound[1, start : start + rate // 5, 0] += 0.5 * rng.standard_normal(rate // 5)
  codec = frozen_codec.load("codec_tiny")
  target = teacher.Taught(Latents(codec), "mn04", rate)
  batch = tiny.batch(np.zeros((2, T, 1))).replace(
    target=None,
    audio=sound.astype(np.float32),
    duration=np.array([seconds, 3.0]),
  )
  frozen = {"target": codec.state, "teacher": mn04.load(WEIGHTS)}
  batch = jax.jit(target)(frozen, batch)
  quiet, loud = batch.representation
  assert batch.representation.shape == (*batch.target.shape[:2], 384)
  apart = np.linalg.norm(loud - quiet, axis=-1)
  middle = batch.target_times[int(apart.argmax())]
  assert 2.4 < middle < 2.8
  # Over what exists of the batch, the mean is zero.
  mask = np.asarray(batch.target_mask)
  np.testing.assert_allclose(
    batch.representation[mask].mean(axis=0), 0.0, atol=1e-4
  )
  assert mask[1].sum() < mask[0].sum()


def taught(model, weight=0.5, b=2):
  latents = jax.random.normal(jax.random.key(5), (b, T, tiny.CHANNELS))
  features = jax.random.normal(jax.random.key(6), (b, T, 5))
  mask = np.arange(T)[None] < np.array([[5], [8]])
  batch = tiny.batch(latents, target_mask=mask, representation=features)
  objective = Diffusion(
    teacher="mn04", representation_weight=weight, cond_drop_rate=0.0
  )
  return objective, batch


def test_the_error_is_one_minus_the_cosine_within_the_clip():
  _, batch = taught(None)
  features = np.asarray(batch.representation)
  error = lambda x: teacher.representation_error(jnp.asarray(x), batch)
  np.testing.assert_allclose(error(3 * features), 0.0, atol=1e-5)
  np.testing.assert_allclose(error(-features), 2.0, atol=1e-5)
  spoiled = features.copy()
  spoiled[0, 5:] = 9.0  # after the clip's end
  np.testing.assert_allclose(error(spoiled), 0.0, atol=1e-5)
  prediction = np.random.default_rng(0).standard_normal(features.shape)
  cosine = np.sum(prediction * features, -1) / (
    np.linalg.norm(prediction, axis=-1) * np.linalg.norm(features, axis=-1)
  )
  wanted = [1 - cosine[0, :5].mean(), 1 - cosine[1].mean()]
  np.testing.assert_allclose(error(prediction), wanted, rtol=1e-4)


def test_the_joint_blocks_learn_from_it_and_the_prediction_is_as_before():
  model = tiny.diffusion(representation=5)
  objective, batch = taught(model)
  graphdef, params = nnx.split(model)

  def errors(params):
    """The teacher's part of the loss, and the generator's."""
    model = nnx.merge(graphdef, params)
    both, metrics = objective.loss(model, batch, key=KEY, train=True)
    extra = objective.representation_weight * metrics["representation_error"]
    return extra.mean(), both - extra

  slope, actual = jax.jit(jax.grad(errors, has_aux=True))(params)
  plain = dataclasses.replace(objective, teacher="", representation_weight=0.0)
  wanted, _ = tiny.loss(plain, model, batch, key=KEY, train=True)
  np.testing.assert_allclose(actual, wanted, rtol=1e-4)
  size = lambda part: max(
    float(jnp.abs(x).max()) for x in jax.tree.leaves(part)
  )
  assert size(slope.backbone.last_joint) > 1e-6
  assert size(slope.backbone.head) > 1e-6
  assert size(slope.backbone.audio) == 0.0


@pytest.mark.parametrize(
  "changes,message",
  [
    (dict(teacher="mn04"), "representation_weight=0.0 with teacher='mn04'"),
    (
      dict(representation_weight=0.5),
      "representation_weight=0.5 with teacher=",
    ),
    (
      dict(teacher="mn05", representation_weight=0.5),
      "config.objective.teacher='mn05' is not one of '', mn04",
    ),
  ],
)
def test_a_teacher_and_its_weight_are_set_together(changes, message):
  config = diffusion_tiny.get_config()
  config.objective.update(changes)
  with pytest.raises(ConfigError, match=message):
    Experiment.from_config(config)


def test_the_model_has_a_head_for_the_teachers_features():
  config = diffusion_tiny.get_config()
  config.objective.update(teacher="mn04", representation_weight=0.5)
  experiment = Experiment.from_config(config)
  assert isinstance(experiment.target, teacher.Taught)
  assert experiment.model.representation == mn04.FRAME_DIM
