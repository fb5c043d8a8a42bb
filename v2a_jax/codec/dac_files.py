"""Reads a DAC (dac.py) from a folder as Hugging Face publishes it.

  config.json        sizes, with `"model_type": "dac"`
  model.safetensors  float tensors with the names of `transformers`' DacModel,
                     with or without weight normalisation

Public models (MIT): https://huggingface.co/descript/dac_16khz, …/dac_24khz and
…/dac_44khz, of 74 to 77 M parameters. Download both files into a folder and set
`config.codec` to its path; it must stay there for models trained on that codec.
The files' sha256 are not known, so they have no entry in `weights.registry`;
instead the names and shapes of all tensors are compared with the config.

Two keys may be added to `config.json`: `latent_mean` and `latent_std`, with
which latents are standardised, as one number per channel or one for all.
"""

from collections.abc import Mapping
import pathlib
from typing import Any

from flax import nnx
import jax.numpy as jnp
import numpy as np

from v2a_jax.basics.files import sha256_of
from v2a_jax.basics.paths import as_path
from v2a_jax.codec import dac
from v2a_jax.codec.base import Buffer
from v2a_jax.weights import published, state_dict
from v2a_jax.weights.registry import WrongWeightsError

CONFIG, FILE = published.CONFIG, published.FILE
_MODEL_TYPES = {"dac": None}  # with its settings at the top level

# Key in config.json by field of `DacConfig`.
_KEYS = {
  "sample_rate": "sampling_rate",
  "strides": "downsampling_ratios",
  "encoder_width": "encoder_hidden_size",
  "decoder_width": "decoder_hidden_size",
  "num_codebooks": "n_codebooks",
  "codebook_size": "codebook_size",
  "codebook_dim": "codebook_dim",
}


def recognises(name: str) -> bool:
  """Returns whether a codec's name is a folder with `model.safetensors`."""
  return (as_path(name) / FILE).is_file()


def read_config(name: str) -> dac.DacConfig:
  """Reads the sizes of the codec in a folder.

  Raises:
    MissingWeightsError, WrongWeightsError: see `load`.
  """
  folder = as_path(name)
  return _config(published.read_config(folder, _MODEL_TYPES), folder / CONFIG)


def make(config: dac.DacConfig) -> dac.Dac:
  """Makes a codec with initial weights."""
  return dac.Dac(config, rngs=nnx.Rngs(0))


def load(name: str) -> dac.Dac:
  """Reads the codec in a folder.

  Raises:
    MissingWeightsError: a file is missing.
    WrongWeightsError: the config is not that of a DAC; or the file is damaged;
      or tensors are missing, extra or misshapen, and all are named.
  """
  folder = as_path(name)
  values = published.read_config(folder, _MODEL_TYPES)
  config = _config(values, folder / CONFIG)
  statistics = _statistics(values, config.latent_dim, folder / CONFIG)
  tensors = state_dict.fold_weight_norm(published.read_tensors(folder))
  codec = nnx.eval_shape(lambda: make(config))
  shapes = {
    name: (1, *shape, 1) if name.endswith(".alpha") else shape
    for name, shape in state_dict.shapes(codec).items()
  }
  published.check(tensors, shapes, folder / FILE)
  state_dict.fill(codec, tensors)
  for field, value in statistics.items():
    setattr(codec, field, value)
  return codec


def digest(name: str) -> str:
  """Computes the sha256 of the weights, in hexadecimal."""
  return sha256_of(as_path(name) / FILE)


def _config(values: Mapping[str, Any], path: pathlib.Path) -> dac.DacConfig:
  missing = sorted(key for key in _KEYS.values() if values.get(key) is None)
  if missing:
    raise WrongWeightsError(f"{path}: no key {', '.join(missing)}")
  fields = {field: values[key] for field, key in _KEYS.items()}
  config = published.sizes(dac.DacConfig, fields, path)
  derived = {
    "upsampling_ratios": list(config.strides[::-1]),
    "hidden_size": config.latent_dim,
  }
  for key, value in derived.items():
    if values.get(key, value) != value:
      raise WrongWeightsError(
        f"{path}: {key} is {values[key]}, but the encoder's sizes imply"
        f" {value}; other decoders are not supported"
      )
  return config


def _statistics(
  values: Mapping[str, Any], channels: int, path: pathlib.Path
) -> dict[str, Buffer]:
  """Reads `latent_mean` and `latent_std`, each [channels]."""
  statistics = {}
  for name, default in (("latent_mean", 0.0), ("latent_std", 1.0)):
    try:
      value = np.asarray(values.get(name, default), np.float32)
      value = np.broadcast_to(value, (channels,))
    except (TypeError, ValueError):
      raise WrongWeightsError(
        f"{path}: {name} must be a number or {channels} numbers"
      ) from None
    low = 0.0 if name == "latent_std" else -np.inf
    if not (np.isfinite(value) & (value > low)).all():
      raise WrongWeightsError(
        f"{path}: {name} must be finite, and a standard deviation positive"
      )
    statistics[name] = Buffer(jnp.asarray(value))
  return statistics
