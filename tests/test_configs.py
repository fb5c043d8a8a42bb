"""Configs: the swap is configuration, and wrong keys are refused by name."""

from ml_collections import config_dict
import pytest

from configs import ar_tiny, codec_tiny, diffusion_tiny
from v2a_jax import build

SWAPPED = ("name", "model.", "objective.", "sampler.", "data.target")


def _flat(config, prefix=""):
  rows = {}
  for key, value in config.items():
    if isinstance(value, config_dict.ConfigDict):
      rows |= _flat(value, f"{prefix}{key}.")
    else:
      rows[prefix + key] = value
  return rows


def test_diffusion_and_autoregression_differ_only_where_they_may():
  a, b = _flat(diffusion_tiny.get_config()), _flat(ar_tiny.get_config())
  missing = object()
  differing = {
    key
    for key in a.keys() | b.keys()
    if a.get(key, missing) != b.get(key, missing)
  }
  assert all(key.startswith(SWAPPED) for key in differing), differing
  assert {"model.name", "objective.name", "data.target"} <= differing
  assert not any(key.startswith("model.conditioner") for key in differing)


@pytest.mark.parametrize("module", [diffusion_tiny, ar_tiny, codec_tiny])
def test_every_section_becomes_its_dataclass(module):
  config = module.get_config()
  build.make_objective(config)
  if "sampler" in config:
    build.make_sampler(config.sampler)
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
    build.make_sampler(config.sampler)


def test_an_unknown_name_is_answered_with_those_there_are():
  config = diffusion_tiny.get_config()
  config.objective.name = "flow"
  with pytest.raises(build.ConfigError, match="flow_matching, next_token"):
    build.make_objective(config)


@pytest.mark.parametrize("module", [diffusion_tiny, ar_tiny])
def test_sweeps_name_keys_of_the_config(module):
  known = _flat(module.get_config())
  sweeps = [v for k, v in vars(module).items() if k.startswith("sweep_")]
  assert sweeps
  for sweep in sweeps:
    for point in sweep():
      assert set(point) <= set(known)
