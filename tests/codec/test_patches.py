"""Waveform patches: lossless, with the interface of a codec."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import ar_tiny, diffusion_patches_tiny
from v2a_jax.codec import frozen as frozen_codec
from v2a_jax.codec.patches import PatchConfig, Patches
from v2a_jax.codec.target import Latents
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.experiment.sections import ConfigError

STEREO = PatchConfig(sample_rate=48_000, hop=20, channels=2)


def test_every_waveform_comes_back():
  ramp = np.linspace(-1, 1, 400_000, dtype=np.float32)
  quiet = np.float32(10.0) ** np.linspace(-9, 0, 4000, dtype=np.float32)
  patches = Patches(STEREO)
  for x in (ramp, quiet, np.zeros(400, np.float32)):
    x = x.reshape(1, -1, 2)
    again = jax.jit(lambda x: patches.decode(patches.encode(x)))(x)
    np.testing.assert_allclose(again, x, rtol=2e-6, atol=1e-6)


def test_a_patch_is_its_samples_and_the_last_is_padded():
  x = jax.random.uniform(jax.random.key(0), (2, 50, 2), minval=-1)
  latents = Patches(STEREO).encode(x)
  assert latents.shape == (2, 3, STEREO.latent_dim)
  assert STEREO.latent_rate == 2400 and STEREO.latent_dim == 40
  by_hand = np.sign(x) * np.log(1 + 255 * np.abs(x)) / 2
  np.testing.assert_allclose(
    latents[:, 1].reshape(2, 20, 2), by_hand[:, 20:40], rtol=1e-5
  )
  assert not latents[:, 2, 20:].any()
  # A change of one sample is seen in one patch only.
  moved = Patches(STEREO).encode(x.at[0, 25, 1].add(0.1)) != latents
  assert np.argwhere(moved).tolist() == [[0, 1, 11]]


def test_decoded_sound_is_clipped_to_full_scale():
  latents = jnp.asarray([[[-50.0, 3.0] * 20]])
  waveform = Patches(STEREO).decode(latents)
  np.testing.assert_array_equal(waveform[0], [[-1.0, 1.0]] * 20)


def test_sound_has_about_unit_variance():
  """Noise at the levels of speech and music, 20 and 30 dB below full scale."""
  noise = jax.random.normal(jax.random.key(0), (2, 4000, 2))
  levels = jnp.asarray([0.1, 0.03])[:, None, None]
  latents = Patches(STEREO).encode(jnp.clip(levels * noise, -1, 1))
  rms = jnp.sqrt(jnp.mean(latents**2, axis=(1, 2)))
  assert 0.7 < rms[1] < rms[0] < 1.5


def test_a_name_gives_rate_hop_and_channels():
  codec = frozen_codec.load("patches:48000:20:2")
  assert codec.config == STEREO
  assert codec.merge().config == STEREO
  assert not jax.tree.leaves(codec.state)


@pytest.mark.parametrize(
  "name", ["patches:16000", "patches:1:0:1", "patches:16000:x:1"]
)
def test_another_form_of_the_name_is_refused(name):
  config = diffusion_patches_tiny.get_config()
  config.codec = name
  with pytest.raises(
    ConfigError,
    match=f"config.codec='{name}': .*RATE:HOP:CHANNELS.*16000:512:1",
  ):
    Experiment.from_config(config)


def test_codes_of_patches_are_refused():
  config = diffusion_patches_tiny.get_config()
  experiment = Experiment.from_config(config)
  assert isinstance(experiment.target, Latents)
  codes = ar_tiny.get_config()
  codes.codec = config.codec
  with pytest.raises(ConfigError, match="model.name='ar' generates codes, but"):
    Experiment.from_config(codes)
