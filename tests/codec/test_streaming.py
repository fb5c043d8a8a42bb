"""A stream of chunks is the whole decode, at any chunk and length."""

import functools

from flax import nnx
import jax
import numpy as np
import pytest

from tests import tiny
from v2a_jax.codec import streaming
from v2a_jax.codec.autoencoder import Codec, CodecConfig
from v2a_jax.codec.dac import Dac, DacConfig


def _sizes(*strides, dilations):
  count = len(strides)
  return CodecConfig(
    channels=2,
    strides=strides,
    encoder_widths=(4,) * count,
    decoder_widths=(6,) * count,
    dilations=dilations,
    latent_dim=4,
    num_codebooks=2,
    codebook_size=8,
    codebook_dim=2,
  )


def _dac(*strides):
  return DacConfig(
    strides=strides,
    encoder_width=4,
    decoder_width=4 * 2 ** len(strides),
    num_codebooks=2,
    codebook_size=8,
    codebook_dim=2,
  )


CONFIGS = {
  "even": _sizes(8, 4, 2, dilations=((1, 3), (1,), (1,))),
  "odd": _sizes(6, 5, 3, dilations=((1, 9), (3,), (1,))),
  "dac": _dac(2, 5, 3),
}


@functools.cache
def _make(name):
  config = CONFIGS[name]
  cls = Dac if isinstance(config, DacConfig) else Codec
  return tiny.drawn(lambda: cls(config, rngs=nnx.Rngs(0)))


def _latents(codec, length, seed=0):
  rng = np.random.default_rng(seed)
  size = (1, length, codec.config.latent_dim)
  return rng.normal(size=size).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def _run(graphdef, state, latents):
  return nnx.merge(graphdef, state).decode(latents)


def _whole(codec, latents):
  return np.asarray(_run(*nnx.split(codec), latents))


@pytest.mark.parametrize(
  "name, more", [("even", 11), ("even", 18), ("odd", 11), ("dac", 11)]
)
def test_chunks_together_are_the_whole_decode(name, more):
  codec = _make(name)
  halo, hop = codec.decoder_halo, codec.config.hop
  length = 3 * halo + more
  latents = _latents(codec, length)
  whole = _whole(codec, latents)
  for chunk in (4, halo + 3):
    parts = list(streaming.stream(codec, latents, chunk=chunk))
    sizes = [min(chunk, length - i) * hop for i in range(0, length, chunk)]
    assert [part.shape[1] for part in parts] == sizes
    off = np.abs(np.concatenate(parts, axis=1) - whole).max()
    assert off < 1e-5 * np.abs(whole).max()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_halo_holds_all_that_a_latents_samples_depend_on_and_no_more(name):
  codec = _make(name)
  halo, hop = codec.decoder_halo, codec.config.hop
  length, middle = 3 * halo + 11, halo + 5
  kept, other = (_latents(codec, length, seed) for seed in (0, 1))
  distances = abs(np.arange(length) - middle)[None, :, None]

  def samples(distance):
    latents = np.where(distances <= distance, kept, other)
    return _whole(codec, latents)[:, middle * hop : (middle + 1) * hop]

  np.testing.assert_array_equal(samples(halo), samples(length))
  assert not np.array_equal(samples(halo - 1), samples(length))


def test_codes_are_decoded_as_their_latents_are():
  codec = _make("even")
  codes = np.random.default_rng(0).integers(0, 8, (1, 26, 2))
  waveform = streaming.decode(codec, codes)
  wanted = _whole(codec, np.asarray(codec.dequantize(codes)))
  np.testing.assert_allclose(waveform, wanted, rtol=1e-5, atol=1e-5)


def test_a_long_sound_is_decoded_by_one_small_program():
  """One shape is traced, which does not grow with the length."""
  traced = []

  class Watched(Codec):
    def decode(self, latents):
      traced.append(latents.shape)
      return super().decode(latents)

  codec = tiny.drawn(lambda: Watched(CONFIGS["even"], rngs=nnx.Rngs(0)))
  for length in (50, 83):
    streaming.decode(codec, _latents(codec, length), chunk=8)
  assert traced == [(1, 8 + 2 * codec.decoder_halo, 4)]


def test_a_chunk_of_0_latents_is_refused():
  codec = _make("even")
  with pytest.raises(ValueError, match="chunk=0 latents; give at least 1"):
    streaming.decode(codec, _latents(codec, 3), chunk=0)
