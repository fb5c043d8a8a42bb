"""Shapes, the two views, alignment in time and calibration of the codec."""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from v2a_jax.codec import autoencoder, base, calibration
from v2a_jax.codec import frozen as frozen_codec
from v2a_jax.codec.autoencoder import Codec, CodecConfig
from v2a_jax.weights import bundle

TINY = CodecConfig(
  sample_rate=1600,
  channels=2,
  strides=(4, 4),
  encoder_widths=(4, 8),
  decoder_widths=(6, 8),
  dilations=((3,), (1,)),
  latent_dim=5,
  num_codebooks=2,
  codebook_size=7,
  codebook_dim=2,
)


@pytest.fixture(scope="module")
def codec():
  """Made under jit: one compilation instead of one per shape."""
  make = lambda: Codec(TINY, rngs=nnx.Rngs(0))
  graphdef, _ = nnx.split(nnx.eval_shape(make))
  return nnx.merge(graphdef, jax.jit(lambda: nnx.state(make()))())


@functools.partial(jax.jit, static_argnums=0)
def _apply(graphdef, state, waveform):
  codec = nnx.merge(graphdef, state)
  latents = codec.encode(waveform)
  codes = codec.quantize(latents)
  coded = codec.dequantize(codes)
  return latents, codes, coded, codec.decode(latents), codec.decode(coded)


def apply(codec, waveform):
  """Latents, codes, coded latents, and the two views decoded."""
  return _apply(*nnx.split(codec), jnp.asarray(waveform))


@pytest.fixture(scope="module")
def bundled():
  """The project's own trained codec."""
  return frozen_codec.load("codec_tiny").merge()


def test_one_first_asked_for_inside_a_trace_serves_later_calls():
  frozen_codec.load.cache_clear()
  latents = lambda x: frozen_codec.load("codec_tiny").merge().encode(x)
  sound = jnp.zeros((1, 1280, 1))
  inside = jax.jit(latents)(sound)
  np.testing.assert_allclose(latents(sound), inside, atol=1e-5)


def test_rates():
  assert TINY.hop == 16 and TINY.latent_rate == 100.0
  assert CodecConfig().hop == 512 and CodecConfig().latent_rate == 31.25


@pytest.mark.parametrize("samples", [17, 96])
def test_any_length_is_encoded_and_decoded_by_the_hop(codec, samples):
  waveform = jax.random.normal(jax.random.key(0), (2, samples, 2))
  steps = -(-samples // 16)
  latents, codes, coded, *views = apply(codec, waveform)
  assert latents.shape == coded.shape == (2, steps, 5)
  assert codes.shape == (2, steps, 2) and codes.dtype == jnp.int32
  assert all(view.shape == (2, steps * 16, 2) for view in views)


def test_both_views_pass_through_the_one_decoder(codec):
  waveform = jax.random.normal(jax.random.key(0), (2, 96, 2))
  before = apply(codec, waveform)
  other = nnx.merge(*nnx.split(codec))
  other.decoder.head.bias[...] += 1.0
  after = apply(other, waveform)
  for same in (0, 1, 2):
    np.testing.assert_array_equal(before[same], after[same])
  for changed in (3, 4):
    assert not np.allclose(before[changed], after[changed])


def test_fewer_codebooks_use_the_first_codes(codec):
  codes = jax.random.randint(jax.random.key(0), (1, 6, 2), 0, 7)
  np.testing.assert_allclose(
    codec.dequantize(codes, num_codebooks=1), codec.dequantize(codes[..., :1])
  )


def _waveforms():
  rng = np.random.default_rng(0)
  return [rng.normal(size=(4, 160, 2)).astype(np.float32) * 0.3 + 0.1] * 2


def test_calibrated_latents_are_white_and_decode_as_before(codec):
  waveforms = _waveforms()
  calibrated, _ = autoencoder.calibrate(codec, waveforms, fit_codes=False)
  before, after = apply(codec, waveforms[0]), apply(calibrated, waveforms[0])
  flat = np.asarray(after[0], np.float64).reshape(-1, after[0].shape[-1])
  np.testing.assert_allclose(flat.mean(axis=0), 0, atol=1e-4)
  covariance = np.cov(flat, rowvar=False, ddof=0)
  # A draw adds the encoder's noise, which the basis turns as it turns means.
  _, logvar = codec.posterior(waveforms[0])
  turned = np.asarray(calibrated.latent_basis[...], np.float64) ** 2
  noise = np.exp(np.asarray(logvar, np.float64)).mean(axis=(0, 1)) @ turned
  share = noise / np.asarray(calibrated.latent_std[...], np.float64) ** 2
  white = np.eye(len(share))
  np.testing.assert_allclose(covariance + np.diag(share), white, atol=2e-3)
  assert (np.diff(np.asarray(calibrated.latent_std[...])) <= 0).all()
  assert np.mean(before[1] == after[1]) > 0.99  # but for ties
  np.testing.assert_allclose(before[3], after[3], atol=1e-4)
  np.testing.assert_array_equal(codec.latent_std[...], 1.0)


def test_calibration_brings_codes_closer_to_the_latents(codec):
  waveforms, left = _waveforms(), []
  for fit_codes in (False, True):
    calibrated, _ = autoencoder.calibrate(codec, waveforms, fit_codes=fit_codes)
    latents, _, coded, *_ = apply(calibrated, waveforms[0])
    left.append(float(jnp.mean((latents - coded) ** 2)))
  assert left[1] < 0.5 * left[0]


def test_calibration_is_not_a_parameter(codec):
  params = nnx.to_flat_state(nnx.state(codec, nnx.Param))
  assert not any("latent_mean" in path for path, _ in params)
  assert len(nnx.to_flat_state(nnx.state(codec, base.Buffer))) == 3


def test_effective_rank_counts_the_directions_that_variance_fills():
  size, none = 6, np.zeros(6)
  even = calibration.Calibration.none(size)
  assert even.effective_rank == pytest.approx(size)
  one = np.array([0.7, *[1e-6] * (size - 1)])
  assert calibration.Calibration(
    none, one, np.eye(size)
  ).effective_rank == pytest.approx(1.0)
  rng = np.random.default_rng(1)
  turn, _ = np.linalg.qr(rng.normal(size=(size, size)))
  z = rng.normal(size=(20_000, 2)) @ turn[:2]
  assert calibration.measure(
    z, np.zeros((size, size))
  ).effective_rank == pytest.approx(2.0, rel=0.02)


def test_calibrate_needs_waveforms(codec):
  with pytest.raises(ValueError, match="no waveforms"):
    autoencoder.calibrate(codec, [])


def test_a_config_with_uneven_stages_is_refused():
  with pytest.raises(ValueError, match="encoder_widths=.* has 2 entries"):
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
  for view in apply(bundled, waveform[None, :, None])[3:]:
    sound = np.asarray(view)[0, :, 0]
    for place in places:
      window = slice(int((place - 0.1) * rate), int((place + 0.1) * rate))
      envelope = np.convolve(np.abs(sound[window]), np.ones(32) / 32, "same")
      rise = np.argmax(envelope > envelope.max() / 2) / rate - 0.1
      assert abs(rise) < 0.005


def test_the_bundled_codec_keeps_silence_quiet(bundled):
  """Silence comes back under -50 dBFS."""
  silence = jnp.zeros((1, 2 * bundled.config.sample_rate, 1))
  for view in apply(bundled, silence)[3:]:
    assert float(jnp.sqrt(jnp.mean(view**2))) < 10 ** (-50 / 20)


def test_the_bundle_is_small():
  path = bundle.ASSETS / "codec_tiny" / bundle.WEIGHTS
  assert path.stat().st_size < 4_000_000
