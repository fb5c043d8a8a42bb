"""DAC in JAX against `transformers`' DacModel, and as a frozen codec."""

import dataclasses
import functools
import json
import logging
import types

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from v2a_jax.basics.files import sha256_of
from v2a_jax.codec import dac, dac_files
from v2a_jax.codec import frozen as frozen_codec
from v2a_jax.codec.target import Codes, Latents
from v2a_jax.weights import names, state_dict
from v2a_jax.weights import registry as weights

# Even and odd strides, as in the published models.
CONFIG = dac.DacConfig(
  sample_rate=16000,
  strides=(2, 5),
  encoder_width=4,
  decoder_width=16,
  num_codebooks=4,
  codebook_size=32,
  codebook_dim=4,
)
# https://github.com/descriptinc/descript-audio-codec, conf/final.
PUBLISHED = {
  "16khz": dac.DacConfig(
    sample_rate=16000, strides=(2, 4, 5, 8), num_codebooks=12
  ),
  "24khz": dac.DacConfig(
    sample_rate=24000, strides=(2, 4, 5, 8), num_codebooks=32
  ),
  "44khz": dac.DacConfig(),
}
FRAMES = 24
SAMPLES = FRAMES * CONFIG.hop


def settings(config: dac.DacConfig) -> dict:
  """Contents of Hugging Face's config.json."""
  return dict(
    model_type="dac",
    sampling_rate=config.sample_rate,
    downsampling_ratios=list(config.strides),
    encoder_hidden_size=config.encoder_width,
    decoder_hidden_size=config.decoder_width,
    n_codebooks=config.num_codebooks,
    codebook_size=config.codebook_size,
    codebook_dim=config.codebook_dim,
  )


def tensor_shapes(config: dac.DacConfig) -> dict[str, tuple[int, ...]]:
  """Shapes of the tensors of a file, by name."""
  codec = nnx.eval_shape(lambda: dac_files.make(config))
  shapes = {}
  for path, leaf in names.flatten(nnx.state(codec, nnx.Param)).items():
    shape = (1, *leaf.shape, 1) if path[-1] == "alpha" else leaf.shape
    name = ".".join(path)
    if path[-1] in ("kernel", "embedding"):
      name = name.removesuffix(path[-1]) + "weight"
    shapes[name] = shape[::-1] if path[-1] == "kernel" else shape
  return shapes


def random_tensors(config: dac.DacConfig) -> dict[str, np.ndarray]:
  """Weights with which activations keep their size."""
  rng = np.random.default_rng(0)

  def draw(name, shape):
    if name.endswith("alpha"):
      return rng.uniform(0.5, 2.0, shape)
    if name.endswith("bias"):
      return rng.normal(0, 0.1, shape)
    fan_in = shape[0] * 2 if "conv_t" in name else np.prod(shape[1:])
    return rng.normal(0, 0.7 / np.sqrt(fan_in), shape)

  shapes = tensor_shapes(config)
  return {k: draw(k, s).astype(np.float32) for k, s in shapes.items()}


@pytest.fixture(scope="module")
def arrays():
  return random_tensors(CONFIG)


@pytest.fixture
def folder(tmp_path, arrays):
  """As downloaded, without transformers."""
  write(tmp_path, arrays)
  return tmp_path


def write(path, arrays, **more):
  safetensors.save_file(arrays, path / "model.safetensors")
  (path / "config.json").write_text(json.dumps(settings(CONFIG) | more))


def waveform(samples: int, seed: int = 1) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return rng.uniform(-1, 1, (2, samples, 1)).astype(np.float32)


def difference(ours, theirs) -> float:
  """Largest difference, relative to the largest value."""
  theirs = np.asarray(theirs)
  assert ours.shape == theirs.shape
  return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


@pytest.fixture(scope="module")
def transformers():
  pytest.importorskip("torch", reason="parity needs torch")
  module = pytest.importorskip(
    "transformers", reason="parity needs transformers"
  )
  logging.getLogger("transformers").setLevel(logging.ERROR)
  return module


def reference(transformers, config):
  names = settings(config)
  del names["model_type"]
  return transformers.DacModel(transformers.DacConfig(**names)).eval()


@functools.partial(jax.jit, static_argnums=0)
def views(graphdef, state, x) -> dict[str, jax.Array]:
  """All outputs of a codec for a waveform."""
  codec = nnx.merge(graphdef, state)
  latents = codec.encode(x)
  codes = codec.quantize(latents)
  quantized = codec.dequantize(codes)
  return {
    "latents": latents,
    "codes": codes,
    "quantized": quantized,
    "sound": codec.decode(quantized),
    "sound of latents": codec.decode(latents),
  }


def views_of(folder, x):
  return views(*nnx.split(dac_files.load(folder)), x)


def views_of_transformers(model, x) -> dict[str, np.ndarray]:
  import torch

  with torch.no_grad():
    x = torch.tensor(x).transpose(1, 2)
    latents = model.encoder(x)
    encoded = model.encode(x)
    quantized = encoded.quantized_representation
    outputs = {
      "latents": latents,
      "codes": encoded.audio_codes,
      "quantized": quantized,
      "sound": model.decoder(quantized),
      "sound of latents": model.decoder(latents),
    }
  return {
    name: value.transpose(1, 2).numpy() for name, value in outputs.items()
  }


@pytest.mark.parametrize(
  "strides,weight_norm,left_off", [((2, 5), False, 2), ((2, 4), True, 0)]
)
def test_equals_transformers(
  transformers, tmp_path, strides, weight_norm, left_off
):
  import torch

  config = dataclasses.replace(CONFIG, strides=strides)
  model = reference(transformers, config)
  state = {k: torch.tensor(v) for k, v in random_tensors(config).items()}
  model.load_state_dict(state)
  if weight_norm:
    model.apply_weight_norm()
  model.save_pretrained(tmp_path)
  assert dac_files.load(tmp_path).config == config

  x = waveform(FRAMES * config.hop)
  theirs = views_of_transformers(model, x)
  ours = {k: np.asarray(v) for k, v in views_of(tmp_path, x).items()}
  # Samples that the network leaves off are zero here.
  kept = x.shape[1] - left_off
  for name in ("sound", "sound of latents"):
    assert ours[name].shape == x.shape and not ours[name][:, kept:].any()
    ours[name] = ours[name][:, :kept]
  assert len(np.unique(theirs["codes"])) > 16, "few codes show little"
  np.testing.assert_array_equal(ours.pop("codes"), theirs.pop("codes"))
  differences = {k: difference(ours[k], theirs[k]) for k in theirs}
  print(differences)
  assert max(differences.values()) < 1e-5, differences


@pytest.mark.parametrize("name", ["16khz", "44khz"])
def test_published_sizes_name_every_tensor(transformers, name):
  import torch

  with torch.device("meta"):
    model = reference(transformers, PUBLISHED[name])
  shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
  assert tensor_shapes(PUBLISHED[name]) == shapes


def test_published_rates():
  rates = {name: config.latent_rate for name, config in PUBLISHED.items()}
  assert rates["16khz"] == 50 and rates["24khz"] == 75
  assert rates["44khz"] == pytest.approx(86.13, abs=0.01)


def test_it_has_the_interface_of_a_frozen_codec(folder):
  frozen = frozen_codec.load(str(folder))
  config = frozen.config
  assert (config.sample_rate, config.channels) == (16000, 1)
  assert (config.hop, config.latent_rate) == (10, 1600.0)
  assert frozen.sha256 == sha256_of(folder / "model.safetensors")
  x = waveform(SAMPLES)
  outputs = views(frozen.graphdef, frozen.state, x)
  assert outputs["latents"].shape == (2, FRAMES, config.latent_dim)
  assert outputs["codes"].shape == (2, FRAMES, config.num_codebooks)
  assert outputs["codes"].dtype == jnp.int32
  assert 0 <= outputs["codes"].min() <= outputs["codes"].max() < 32
  assert outputs["sound"].shape == x.shape
  assert 0.1 < np.abs(outputs["sound"]).max() <= 1


def test_short_sound_is_that_with_silence_after_it(folder):
  codec = dac_files.load(folder)
  x = waveform(SAMPLES)
  x[:, -3:] = 0
  latents = jax.jit(codec.encode)(x[:, :-3])
  expected = views(*nnx.split(codec), x)["latents"]
  np.testing.assert_allclose(latents, expected, atol=1e-5)


def test_calibration_whitens_latents_and_changes_nothing_else(folder):
  x = waveform(SAMPLES)
  plain, before = views_of(folder, x), dac_files.digest(folder)
  assert not frozen_codec.describe(str(folder)).calibrated
  sounds = [waveform(SAMPLES, seed) for seed in range(2, 12)]
  measured = dac_files.calibrate(folder, sounds)
  assert dac_files.digest(folder) != before
  outputs = views_of(folder, x)
  np.testing.assert_array_equal(outputs["codes"], plain["codes"])
  for name in ("sound", "sound of latents"):
    np.testing.assert_allclose(outputs[name], plain[name], atol=1e-4)
  # By another way: white is what the data's covariance and the quantizer's
  # error together are, in the basis that is stored.
  codec = dac_files.load(folder)
  latents, quantized = [], []
  for sound in sounds:
    seen = views(*nnx.split(codec), sound)
    latents.append(np.asarray(seen["latents"], np.float64))
    quantized.append(np.asarray(seen["quantized"], np.float64))
  latents = np.concatenate(latents).reshape(-1, CONFIG.latent_dim)
  left = latents - np.concatenate(quantized).reshape(latents.shape)
  np.testing.assert_allclose(latents.mean(axis=0), 0, atol=1e-3)
  power = latents.var(axis=0) + np.square(left).mean(axis=0)
  np.testing.assert_allclose(power, 1, atol=1e-2)
  across = np.cov(latents, rowvar=False)
  np.testing.assert_allclose(across - np.diag(np.diag(across)), 0, atol=1e-2)
  assert 1 <= measured.effective_rank <= CONFIG.latent_dim


def test_latents_that_were_not_measured_are_not_learned(folder):
  codec = frozen_codec.describe(str(folder))
  with pytest.raises(ValueError, match="v2a weights calibrate FOLDER --set"):
    Latents.for_model(codec, None)
  sizes = types.SimpleNamespace(num_codebooks=2)
  assert Codes.for_model(codec, sizes).num_codebooks == 2
  dac_files.calibrate(folder, [waveform(SAMPLES)])
  assert Latents.for_model(frozen_codec.describe(str(folder)), None)


@pytest.mark.parametrize(
  "change,message",
  [
    (dict(latent_mean=np.zeros(3, np.float32)), r"latent_mean is \(3,\)"),
    (dict(latent_std=np.zeros(16, np.float32)), "deviations positive"),
    (dict(latent_basis=np.full((16, 16), np.nan, np.float32)), "finite"),
    (dict(more=np.zeros(1, np.float32)), "more is extra"),
  ],
)
def test_a_damaged_calibration_is_refused(folder, change, message):
  dac_files.calibrate(folder, [waveform(SAMPLES)])
  path = folder / "calibration.safetensors"
  safetensors.save_file(safetensors.load_file(path) | change, path)
  with pytest.raises(weights.WrongWeightsError, match=message):
    dac_files.load(folder)
  path.write_bytes(path.read_bytes()[:40])
  with pytest.raises(weights.WrongWeightsError, match="cannot read"):
    dac_files.load(folder)


def test_first_codes_alone(folder):
  codec = dac_files.load(folder)
  codes = jax.random.randint(jax.random.key(0), (1, 3, 4), 0, 32)
  few = codec.dequantize(codes, num_codebooks=2)
  np.testing.assert_array_equal(few, codec.dequantize(codes[..., :2]))
  with pytest.raises(ValueError, match="5 codes a step, .* only 4 codebooks"):
    codec.dequantize(jnp.zeros((1, 2, 5), jnp.int32))


def test_wrong_tensors_are_all_named_in_one_line(folder, arrays):
  wrong = dict(arrays)
  missing = [name for name in arrays if "res_unit2" in name]
  for name in missing:
    del wrong[name]
  extra = [f"discriminator.{i}" for i in range(12)]
  wrong |= {name: np.zeros(2, np.float32) for name in extra}
  wrong["decoder.conv2.bias"] = np.zeros(3, np.float32)
  write(folder, wrong)
  with pytest.raises(weights.WrongWeightsError) as caught:
    frozen_codec.load(str(folder))
  message = str(caught.value)
  assert "\n" not in message and str(folder / "model.safetensors") in message
  assert all(f"{name} is missing" in message for name in missing)
  assert all(f"{name} is extra" in message for name in extra)
  assert "decoder.conv2.bias is (3,), the model has (1,)" in message
  assert "encoder.conv1.weight" not in message


def test_a_lone_half_of_weight_norm_is_named(arrays):
  lone = {"encoder.conv1.weight_g": np.ones((4, 1, 1), np.float32)}
  assert state_dict.fold_weight_norm(lone) == lone


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_cut_file_is_refused(folder, share):
  path = folder / "model.safetensors"
  data = path.read_bytes()
  path.write_bytes(data[: int(share * len(data))])
  with pytest.raises(weights.WrongWeightsError, match="cannot read") as caught:
    dac_files.load(folder)
  assert str(path) in str(caught.value)


def test_missing_files_are_named(folder):
  (folder / "config.json").unlink()
  with pytest.raises(weights.MissingWeightsError, match="config.json"):
    dac_files.load(folder)


def test_a_folder_without_tensors_is_described_and_not_loaded(folder):
  (folder / "model.safetensors").unlink()
  assert dac_files.read_config(folder) == CONFIG
  with pytest.raises(weights.MissingWeightsError, match="model.safetensors"):
    dac_files.load(folder)


@pytest.mark.parametrize(
  "change,message",
  [
    (dict(model_type="encodec"), "model_type is 'encodec'"),
    (dict(n_codebooks="many"), "many"),
    (dict(downsampling_ratios=[2, 1]), "strides=.2, 1. is not in"),
    (dict(downsampling_ratios=8), "config.json"),
    (dict(decoder_hidden_size=30), "decoder_width=30 .* 2 times"),
    (dict(n_codebooks=None), "no key n_codebooks"),
    (dict(upsampling_ratios=[2, 5]), r"upsampling_ratios .* imply \[5, 2\]"),
    (dict(hidden_size=48), "hidden_size is 48, .* imply 16"),
  ],
)
def test_strange_configs_are_refused(folder, arrays, change, message):
  write(folder, arrays, **change)
  with pytest.raises(weights.WrongWeightsError, match=message):
    dac_files.load(folder)


def test_missing_keys_are_all_named(folder):
  (folder / "config.json").write_text('{"model_type": "dac"}')
  with pytest.raises(
    weights.WrongWeightsError, match="codebook_dim, .*sampling_rate"
  ):
    dac_files.load(folder)
