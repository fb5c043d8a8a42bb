"""Shapes, the two views, alignment in time and calibration of the codec."""

import json
import pathlib

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from v2a_jax import bundle
from v2a_jax.codec import autoencoder
from v2a_jax.codec.autoencoder import Codec, CodecConfig

TINY = CodecConfig(
  sample_rate=1600,
  channels=2,
  strides=(4, 2, 2),
  encoder_widths=(4, 6, 8),
  decoder_widths=(6, 6, 8),
  dilations=((1, 3), (1,), (1,)),
  latent_dim=5,
  num_codebooks=3,
  codebook_size=7,
  codebook_dim=2,
)


@pytest.fixture(scope="module")
def codec():
  return Codec(TINY, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def bundled():
  """The project's own trained codec."""
  folder = bundle.ASSETS / "codec_tiny"
  if not (folder / bundle.WEIGHTS).is_file():
    pytest.skip("v2a_jax/assets/codec_tiny holds no weights")
  section = json.loads((folder / bundle.CONFIG).read_text())["model"]
  section = {k: v for k, v in section.items() if k != "discriminator"}
  fresh = Codec(CodecConfig(**section), rngs=nnx.Rngs(0))
  graphdef, state = nnx.split(fresh)
  return nnx.merge(graphdef, bundle.load_state(folder, state))


def test_rates():
  assert TINY.hop == 16 and TINY.latent_rate == 100.0
  assert CodecConfig().hop == 512 and CodecConfig().latent_rate == 31.25


@pytest.mark.parametrize("samples", [16, 17, 95, 96])
def test_any_length_is_encoded_and_decoded_by_the_hop(codec, samples):
  waveform = jax.random.normal(jax.random.key(0), (2, samples, 2))
  steps = -(-samples // 16)
  latents = codec.encode(waveform)
  codes = codec.quantize(latents)
  assert latents.shape == (2, steps, 5)
  assert codes.shape == (2, steps, 3) and codes.dtype == jnp.int32
  assert codec.dequantize(codes).shape == latents.shape
  assert codec.decode(latents).shape == (2, steps * 16, 2)


def test_both_views_pass_through_the_one_decoder(codec):
  waveform = jax.random.normal(jax.random.key(0), (1, 64, 2))
  latents = codec.encode(waveform)
  approximate = codec.dequantize(codec.quantize(latents))
  before = [codec.decode(x) for x in (latents, approximate)]
  graphdef, state = nnx.split(codec)
  other = nnx.merge(graphdef, state)
  other.decoder.head.bias[...] += 1.0
  for x, was in zip((latents, approximate), before):
    assert not np.allclose(other.decode(x), was)


def test_fewer_codebooks_use_the_first_codes(codec):
  codes = jax.random.randint(jax.random.key(0), (1, 6, 3), 0, 7)
  np.testing.assert_allclose(
    codec.dequantize(codes, num_codebooks=2), codec.dequantize(codes[..., :2])
  )


def test_calibrated_latents_have_unit_variance_and_decode_as_before(codec):
  rng = np.random.default_rng(0)
  waveforms = [rng.normal(size=(4, 160, 2)).astype(np.float32) * 0.3 + 0.1] * 2
  calibrated = autoencoder.calibrate(codec, waveforms)
  latents = calibrated.encode(waveforms[0])
  np.testing.assert_allclose(latents.mean(axis=(0, 1)), 0, atol=1e-4)
  np.testing.assert_allclose(latents.std(axis=(0, 1)), 1, atol=1e-3)
  raw = codec.encode(waveforms[0])
  np.testing.assert_allclose(
    calibrated.decode(latents), codec.decode(raw), atol=1e-4
  )
  plain = autoencoder.calibrate(codec, waveforms, fit_codes=False)
  codes = codec.quantize(raw)
  np.testing.assert_array_equal(plain.quantize(latents), codes)
  np.testing.assert_allclose(
    plain.decode(plain.dequantize(codes)),
    codec.decode(codec.dequantize(codes)),
    atol=1e-4,
  )
  np.testing.assert_array_equal(codec.latent_std[...], 1.0)


def test_calibration_brings_codes_closer_to_the_latents(codec):
  rng = np.random.default_rng(0)
  waveforms = [rng.normal(size=(4, 160, 2)).astype(np.float32)]
  left = []
  for fit_codes in (False, True):
    made = autoencoder.calibrate(codec, waveforms, fit_codes=fit_codes)
    latents = made.encode(waveforms[0])
    coded = made.dequantize(made.quantize(latents))
    left.append(float(jnp.mean((latents - coded) ** 2)))
  assert left[1] < 0.5 * left[0]


def test_calibration_is_no_parameter(codec):
  params = nnx.to_flat_state(nnx.state(codec, nnx.Param))
  assert not any("latent_mean" in path for path, _ in params)
  assert len(nnx.to_flat_state(nnx.state(codec, autoencoder.Buffer))) == 2


def test_calibrate_needs_waveforms(codec):
  with pytest.raises(ValueError, match="no waveforms"):
    autoencoder.calibrate(codec, [])


def test_a_config_with_uneven_stages_is_refused():
  with pytest.raises(ValueError, match="encoder_widths has 2 entries"):
    CodecConfig(encoder_widths=(8, 8))


def test_the_bundled_codec_keeps_clicks_in_place(bundled):
  """Both views put a click within 5 ms of where it was."""
  rate = bundled.config.sample_rate
  places = np.array([0.31, 0.735, 1.25])
  decay = np.exp(-np.arange(rate // 20) / 60)
  click = decay * np.random.default_rng(0).normal(size=len(decay)) * 0.3
  waveform = np.zeros(rate * 2, np.float32)
  for start in (places * rate).astype(int):
    waveform[start : start + len(click)] += click
  latents = bundled.encode(jnp.asarray(waveform[None, :, None]))
  coded = bundled.dequantize(bundled.quantize(latents))
  for view in (latents, coded):
    made = np.asarray(bundled.decode(view))[0, :, 0]
    for place in places:
      window = slice(int((place - 0.1) * rate), int((place + 0.1) * rate))
      envelope = np.convolve(np.abs(made[window]), np.ones(32) / 32, "same")
      rise = np.argmax(envelope > envelope.max() / 2) / rate - 0.1
      assert abs(rise) < 0.005


def test_the_bundled_codec_keeps_silence_quiet(bundled):
  """Silence comes back under -50 dBFS."""
  silence = jnp.zeros((1, bundled.config.sample_rate, 1))
  made = bundled.decode(bundled.encode(silence))
  assert float(jnp.sqrt(jnp.mean(made**2))) < 10 ** (-50 / 20)


def test_the_bundle_is_small():
  path = pathlib.Path(bundle.ASSETS) / "codec_tiny" / bundle.WEIGHTS
  if not path.is_file():
    pytest.skip("v2a_jax/assets/codec_tiny holds no weights")
  assert path.stat().st_size < 4_000_000
