"""Configs: the swap is configuration, and wrong keys are refused by name."""

from flax import nnx
import jax
from ml_collections import config_dict
import pytest

from configs import (
  ar,
  ar_latents,
  ar_latents_tiny,
  ar_tiny,
  codec,
  codec_tiny,
  common,
  diffusion,
  diffusion_patches_tiny,
  diffusion_tiny,
)
from data_pipelines import tokenizer
from v2a_jax.codec.autoencoder import CodecConfig
from v2a_jax.experiment import build, workdir
from v2a_jax.weights import bundle

SWAPPED = ("name", "model.", "objective.", "sampler.", "data.target")


def _flat(config, prefix=""):
  rows = {}
  for key, value in config.items():
    if isinstance(value, config_dict.ConfigDict):
      rows |= _flat(value, f"{prefix}{key}.")
    else:
      rows[prefix + key] = value
  return rows


def _differing(one, other):
  a, b = _flat(one.get_config()), _flat(other.get_config())
  missing = object()
  return {
    key
    for key in a.keys() | b.keys()
    if a.get(key, missing) != b.get(key, missing)
  }


@pytest.mark.parametrize(
  "one, other",
  [
    (diffusion_tiny, ar_tiny),
    (diffusion, ar),
    (diffusion_tiny, ar_latents_tiny),
    (diffusion, ar_latents),
  ],
)
def test_diffusion_and_autoregression_differ_only_where_they_may(one, other):
  differing = _differing(one, other)
  assert all(key.startswith(SWAPPED) for key in differing), differing
  assert {"model.name", "objective.name", "sampler.name"} <= differing
  codes = other in (ar, ar_tiny)
  assert ("data.target" in differing) == codes
  assert not any(key.startswith("model.conditioner") for key in differing)


def test_patches_differ_from_latents_in_codec_and_prediction_only():
  differing = _differing(diffusion_tiny, diffusion_patches_tiny)
  assert all(
    key.startswith(("name", "codec", "objective.")) for key in differing
  ), differing


def test_both_autoregressive_arms_have_one_transformer():
  a, b = ar_tiny.get_config().model, ar_latents_tiny.get_config().model
  for key in ("width", "num_heads", "depth", "mlp_dim", "modulation_rank"):
    assert a[key] == b[key], key


@pytest.mark.parametrize(
  "size, millions",
  [("small", 157), ("medium", 600), ("large", 1000), ("xl", 5000)]
  + [("small-tile", 157), ("medium-tile", 600), ("large-tile", 1000)],
)
def test_full_sizes_have_the_parameters_of_their_names(size, millions):
  config = diffusion.get_config(size)
  model = nnx.eval_shape(
    lambda: build.make_generator(config, CodecConfig(), rngs=nnx.Rngs(0))
  )
  count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model)))
  assert count / 1e6 == pytest.approx(millions, rel=0.03)
  assert config.model.width % config.model.num_heads == 0
  if size.endswith("-tile"):
    assert config.model.width // config.model.num_heads == 128
    assert config.model.width % 256 == 0


def test_a_size_that_is_not_there_is_answered_with_those_there_are():
  with pytest.raises(ValueError, match="'huge'.*small, medium, large, xl"):
    diffusion.get_config("huge")
  for name in common.SIZES:
    assert ar.get_config(name).model.width == common.SIZES[name].width
    assert ar_latents.get_config(name).model.depth == common.SIZES[name].depth


@pytest.mark.parametrize(
  "variant, hertz, channels, rate, millions",
  [
    ("16k", 16_000, 1, 31.25, 49.6),
    ("44k", 44_100, 1, 43.07, 49.8),
    ("44k-stereo", 44_100, 2, 21.53, 54.8),
    ("48k-stereo", 48_000, 2, 25.0, 53.0),
  ],
)
def test_full_size_codecs(variant, hertz, channels, rate, millions):
  config = codec.get_config(variant)
  gan = nnx.eval_shape(lambda: build.make_codec_gan(config, rngs=nnx.Rngs(0)))
  sizes = gan.codec.config
  assert (sizes.sample_rate, sizes.channels) == (hertz, channels)
  assert sizes.latent_rate == pytest.approx(rate, abs=0.01)
  assert 20 <= sizes.latent_rate <= 50
  count = sum(x.size for x in jax.tree.leaves(nnx.state(gan.codec, nnx.Param)))
  assert count / 1e6 == pytest.approx(millions, abs=0.05)
  # Both kinds of critics, on sound of as many channels; whole latents.
  critics = gan.discriminator
  assert critics.config.periods == (2, 3, 5, 7, 11)
  assert len(critics.band_critics) == 3
  assert critics.config.channels == channels
  objective = build.make_objective(config)
  assert objective.adversarial and objective.crop % sizes.hop == 0
  with pytest.raises(ValueError, match="'8k'.*16k, 44k, 44k-stereo"):
    codec.get_config("8k")


@pytest.mark.parametrize(
  "module",
  [diffusion_tiny, ar_tiny, codec_tiny, codec, diffusion, ar]
  + [ar_latents, ar_latents_tiny, diffusion_patches_tiny],
)
def test_every_section_becomes_its_dataclass(module):
  config = module.get_config()
  build.make_objective(config)
  if "sampler" in config:
    build.make_sampler(config)
    assert module.__doc__.count("v2a train --config=configs/")


@pytest.mark.parametrize(
  "section, key, message",
  [
    ("objective", "cond_drop_rat", "config.objective: no key cond_drop_rat"),
    ("sampler", "num_stepss", "config.sampler: no key num_stepss"),
  ],
)
def test_a_stray_key_is_refused_by_name(section, key, message):
  config = diffusion_tiny.get_config()
  config[section][key] = 1
  with pytest.raises(build.ConfigError, match=message):
    build.make_objective(config)
    build.make_sampler(config)


def test_average_steps_need_a_model_of_averages():
  config = diffusion_tiny.get_config()
  with pytest.raises(build.ConfigError, match="config.model.average"):
    build.make_sampler(config, {"solver": "average"})
  config.model.average = True
  assert build.make_sampler(config, {"solver": "average"}).solver == "average"


def test_an_unknown_name_is_answered_with_those_there_are():
  config = diffusion_tiny.get_config()
  config.objective.name = "flow"
  with pytest.raises(build.ConfigError, match="codec, diffusion, mean_flow"):
    build.make_objective(config)


def test_infilling_needs_a_model_that_reads_what_is_known():
  config = diffusion_tiny.get_config()
  config.objective.infill_rate = 0.2
  with pytest.raises(build.ConfigError, match="infill_rate=0.2.*model.infill"):
    build.make_objective(config)
  config.model.infill = True
  assert build.make_objective(config).infill_rate == 0.2


def test_a_token_model_cannot_have_more_codebooks_than_the_codec():
  config = ar_tiny.get_config()
  config.model.num_codebooks = 9
  with pytest.raises(build.ConfigError, match="num_codebooks=9.*give 1 to 8"):
    build.make_generator(config, CodecConfig(), rngs=nnx.Rngs(0))


@pytest.mark.parametrize("module", [diffusion_tiny, ar_tiny, ar_latents_tiny])
def test_sweeps_name_keys_of_the_config(module):
  known = _flat(module.get_config())
  sweeps = [v for k, v in vars(module).items() if k.startswith("sweep_")]
  assert sweeps
  for sweep in sweeps:
    for point in sweep():
      assert set(point) <= set(known)


def described(tmp_path, **changes):
  """A workdir with a checkpoint, and the config that made it, changed."""
  config = ar_tiny.get_config()
  data = tmp_path / "data"
  if not data.exists():
    data.mkdir()
    (data / "tokenizer.model").write_bytes(
      (bundle.ASSETS / "diffusion_tiny" / "tokenizer.model").read_bytes()
    )
  config.data.tokenizer = str(data)
  loader = build.loader_config(config, CodecConfig())
  workdir.write_workdir(config, loader, tmp_path / "run")
  (tmp_path / "run" / "checkpoints" / "3").mkdir(parents=True, exist_ok=True)
  config.update_from_flattened_dict(changes)
  return lambda: workdir.write_workdir(config, loader, tmp_path / "run")


@pytest.mark.parametrize(
  "key,value", [("model.depth", 9), ("codec", "x"), ("data.target", "latents")]
)
def test_a_workdir_keeps_the_config_of_its_weights(tmp_path, key, value):
  again = described(tmp_path, **{key: value})
  before = (tmp_path / "run" / "config.json").read_text()
  with pytest.raises(
    build.ConfigError, match=rf"config.{key}=.* not {value!r}"
  ):
    again()
  assert (tmp_path / "run" / "config.json").read_text() == before


def test_a_workdir_goes_on_with_more_steps(tmp_path):
  described(tmp_path, num_train_steps=7)()
  assert bundle.read_config(tmp_path / "run")["num_train_steps"] == 7


def test_a_workdir_keeps_its_tokenizer(tmp_path):
  again = described(tmp_path)
  model = tokenizer.train(["another tongue altogether"], vocab_size=512)
  (tmp_path / "data" / "tokenizer.model").write_bytes(model)
  with pytest.raises(build.ConfigError, match="another tokenizer"):
    again()
