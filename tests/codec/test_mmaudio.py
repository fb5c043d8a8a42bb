"""MMAudio's codecs as frozen codecs: names, files, windows and training."""

import dataclasses
import functools
import hashlib

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import ar_tiny, diffusion_tiny
from tests import tiny
from tests.pretrained.test_mmaudio_codec import (
  VAE,
  VOCODER,
  vae_tensors,
  vocoder_tensors,
)
from v2a_jax.codec import frozen, mmaudio, mmaudio_files, streaming
from v2a_jax.codec.target import Latents
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.experiment.sections import ConfigError
from v2a_jax.objectives.diffusion import Diffusion
from v2a_jax.weights import catalog, registry

CONFIG = mmaudio.MMAudioConfig(vae=VAE, vocoder=VOCODER)


@functools.cache
def codec() -> mmaudio.MMAudio:
  """A small codec, read from published tensors."""
  codec = mmaudio.make(CONFIG)
  codec.vae = mmaudio_files.read_vae(vae_tensors(), VAE, "drawn")
  read = mmaudio_files.read_vocoder
  codec.vocoder = read(vocoder_tensors(), VOCODER, "drawn")
  return codec


@functools.partial(jax.jit, static_argnums=(0, 1))
def _call(method, graphdef, state, x):
  return getattr(nnx.merge(graphdef, state), method)(x)


def run(method, x, of=None):
  """Calls a method of a codec, jitted."""
  return _call(method, *nnx.split(of or codec()), x)


def sound(samples, seed=0):
  rng = np.random.default_rng(seed)
  return rng.uniform(-1, 1, (2, samples, 1)).astype(np.float32)


def test_published_rates():
  sizes = {}
  for name in ("mmaudio:16k", "mmaudio:large_44k_v2"):
    config = frozen.describe(name).config
    seconds = 8 * config.latent_rate
    assert config.vae.context == int(np.ceil(seconds))
    sizes[name] = (config.sample_rate, config.hop, config.latent_dim)
    assert (config.channels, config.num_codebooks) == (1, 0)
  assert sizes == {
    "mmaudio:16k": (16000, 512, 20),
    "mmaudio:large_44k_v2": (44100, 1024, 40),
  }


def test_every_published_generator_has_its_codec():
  for network, (rate, *_) in catalog.MMAUDIO_NETWORKS.items():
    config = mmaudio.read_config(f"mmaudio:{network}")
    assert config == mmaudio.CONFIGS[rate]


def test_latents_and_sound_have_the_lengths_of_a_codec():
  x = sound(5 * CONFIG.hop - 3)
  mean, std = run("distribution", x)
  assert mean.shape == std.shape == (2, 5, 3)
  silent_end = np.pad(x, [(0, 0), (0, 3), (0, 0)])
  np.testing.assert_allclose(run("encode", silent_end), mean, atol=1e-5)
  assert run("decode", mean).shape == (2, 5 * CONFIG.hop, 1)


def test_a_long_sound_in_windows_is_the_whole_decode():
  halo, rng = codec().decoder_halo, np.random.default_rng(0)
  latents = rng.normal(size=(1, 3 * halo + 11, 3)).astype(np.float32)
  whole = np.asarray(run("decode", latents))
  for chunk in (4, halo + 3):
    windows = streaming.decode(codec(), latents, chunk=chunk)
    assert np.abs(windows - whole).max() < 1e-5 * np.abs(whole).max()


def test_samples_depend_on_latents_within_the_halo_and_no_others():
  """By derivatives, which are exactly 0 where there is no dependence.

  In float64, since those of the farthest latents are products of many ends of
  filters.
  """
  halo, hop = codec().decoder_halo, CONFIG.hop
  middle = halo + 3
  rng = np.random.default_rng(0)
  with jax.enable_x64(True):
    graphdef, state = nnx.split(codec())
    state = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), state)

    def samples(latents):
      sound = nnx.merge(graphdef, state).decode(latents)
      sound = sound[0, middle * hop : (middle + 1) * hop, 0]
      return jnp.sum(sound * jnp.arange(1.0, hop + 1))

    latents = jnp.asarray(rng.normal(size=(1, 2 * middle + 1, 3)))
    gradient = np.asarray(jax.jit(jax.grad(samples))(latents))
  seen = np.flatnonzero(np.abs(gradient[0]).sum(-1)) - middle
  assert max(abs(seen)) == halo


@pytest.fixture
def published(tmp_path, monkeypatch):
  """Files of a small codec and of a generator, under the published names."""
  torch = pytest.importorskip("torch")
  rng = np.random.default_rng(5)
  statistics = {
    "latent_mean": rng.normal(size=(1, 1, 3)).astype(np.float32),
    "latent_std": rng.uniform(0.5, 2, (1, 1, 3)).astype(np.float32),
    "empty_clip_feat": np.zeros((1, 4), np.float32),
  }
  contents = {
    "mmaudio_vae_16k": vae_tensors(),
    "bigvgan_16k": {"generator": vocoder_tensors()},
    "mmaudio_small_16k": statistics,
  }
  for name, tensors in contents.items():
    entry = catalog.WEIGHTS[name]
    file = tmp_path / entry.file
    torch.save(jax.tree.map(torch.tensor, tensors), file)
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    entry = dataclasses.replace(entry, md5=md5)
    monkeypatch.setitem(catalog.WEIGHTS, name, entry)
  monkeypatch.setitem(mmaudio.CONFIGS, "16k", CONFIG)
  monkeypatch.setenv("V2A_CACHE", str(tmp_path / "cache"))
  monkeypatch.setenv(registry.PATH_VARIABLE, str(tmp_path))
  frozen.load.cache_clear()
  yield statistics
  frozen.load.cache_clear()


def test_a_generators_name_standardises_latents(published):
  bare, named = map(frozen.load, ("mmaudio:16k", "mmaudio:small_16k"))
  assert len({bare.sha256, named.sha256}) == 2 and len(bare.sha256) == 64
  bare, named = bare.merge(), named.merge()
  x = sound(7 * CONFIG.hop)
  z, z_std = run("distribution", x)
  np.testing.assert_allclose(run("encode", x, bare), z, atol=1e-5)
  latents, std = run("distribution", x, named)
  mean, scale = published["latent_mean"], published["latent_std"]
  np.testing.assert_allclose(latents, (z - mean) / scale, atol=1e-5)
  np.testing.assert_allclose(std, z_std / scale, rtol=1e-4)
  decoded = run("decode", latents, named)
  np.testing.assert_allclose(decoded, run("decode", z), atol=1e-5)


def test_missing_weights_say_how_to_get_them(tmp_path, monkeypatch):
  monkeypatch.setenv("V2A_CACHE", str(tmp_path))
  monkeypatch.delenv(registry.PATH_VARIABLE, raising=False)
  frozen.load.cache_clear()
  with pytest.raises(registry.MissingWeightsError, match="v2a weights fetch"):
    frozen.load("mmaudio:44k")


def test_an_unknown_name_lists_the_known():
  config = diffusion_tiny.get_config()
  config.codec = "mmaudio:8k"
  with pytest.raises(ConfigError, match="'8k' is not one of 16k, 44k, small_1"):
    Experiment.from_config(config)


def test_codes_are_refused():
  config = ar_tiny.get_config()
  config.codec = "mmaudio:16k"
  with pytest.raises(ConfigError, match="model.name='ar' generates codes, but"):
    Experiment.from_config(config)


def test_training_sees_draws_of_the_latents_and_evaluation_their_mean():
  small = frozen.FrozenCodec(CONFIG, *nnx.split(codec()))
  batch = tiny.batch(np.zeros((2, 30, 3), np.float32))
  batch = batch.replace(audio=sound(30 * CONFIG.hop), target=None)
  filled = jax.jit(Latents(small))(small.state, batch)
  objective = Diffusion()
  draw = functools.partial(objective.latents, filled)
  np.testing.assert_array_equal(
    draw(key=jax.random.key(0), train=False), filled.target
  )
  keys = jax.random.split(jax.random.key(0), 400)
  drawn = jax.vmap(lambda key: draw(key=key, train=True))(keys)
  off = (drawn - filled.target) / filled.target_std
  assert abs(float(off.mean())) < 0.01
  np.testing.assert_allclose(off.std(axis=0), 1, atol=0.2)
