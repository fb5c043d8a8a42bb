"""A kind of codec from outside the package: this file and one list entry."""

import sys

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import diffusion_tiny
from v2a_jax.codec import frozen, streaming
from v2a_jax.codec.patches import PatchConfig
from v2a_jax.experiment.experiment import Experiment


class Scaled(nnx.Module):
  """Latents are samples times a weight."""

  decoder_halo = 0

  def __init__(self, config, scale=1.0):
    self.config = config
    self.scale = nnx.Param(jnp.asarray(scale))

  def encode(self, waveform):
    x = waveform.reshape(len(waveform), -1, self.config.latent_dim)
    return x * self.scale[...]

  def decode(self, latents):
    x = latents.reshape(len(latents), -1, self.config.channels)
    return x / self.scale[...]


def recognises(name):
  return name.startswith("scaled:")


def read_config(name):
  del name
  return PatchConfig(sample_rate=16_000, hop=160, channels=1)


def make(config):
  return Scaled(config)


def load(name):
  return Scaled(read_config(name), float(name.partition(":")[2]))


def digest(name):
  return f"of {name}"


def calibrated(name):
  return True


def effective_rank(name):
  return None


@pytest.fixture
def registered():
  frozen.KINDS.insert(0, sys.modules[__name__])
  yield
  frozen.KINDS.remove(sys.modules[__name__])


def test_a_codec_from_outside_is_one_entry_of_the_list(registered):
  config = diffusion_tiny.get_config()
  config.codec = "scaled:4"
  experiment = Experiment.from_config(config)
  assert experiment.model.channels == 160
  assert experiment.data.sample_rate == 16_000
  loaded = frozen.load("scaled:4")
  assert loaded.sha256 == "of scaled:4"
  sound = 0.1 * np.random.default_rng(0).standard_normal((2, 1600, 1))
  batch = experiment.blank_batch(2).replace(audio=sound.astype(np.float32))
  filled = jax.jit(experiment.target)(loaded.state, batch)
  np.testing.assert_allclose(
    filled.target.reshape(2, 1600), 4 * sound[..., 0], rtol=1e-5
  )
  np.testing.assert_allclose(filled.target_times[:2], [0.005, 0.015])
  again = streaming.decode(loaded.merge(), filled.target)
  np.testing.assert_allclose(again, sound, rtol=1e-5)


def test_without_the_entry_its_name_is_no_codec():
  with pytest.raises(ValueError, match="no bundle 'scaled:5'"):
    frozen.describe("scaled:5")
