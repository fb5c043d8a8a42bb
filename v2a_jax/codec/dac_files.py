"""Reads a folder with a DAC as Hugging Face publishes it; see dac.py.

  config.json        sizes, with `"model_type": "dac"`
  model.safetensors  float tensors by the names of `transformers`' DacModel,
                     weight norm folded or not

Public models (MIT): https://huggingface.co/descript/dac_16khz, …/dac_24khz and
…/dac_44khz. Download both files into a folder and set `config.codec` to it; a
model trained on that codec remembers the folder's name. The sha256 of these
files are not known to this project, so they have no entry in `weights.WEIGHTS`
and nothing is fetched; instead every tensor's name and shape is compared with
what the config asks for.

Two keys of `config.json` are ours and may be added by hand: `latent_mean` and
`latent_std`, by which latents are standardised; a number for each channel of
the latents, or one for all.
"""

from collections.abc import Mapping
import os
import pathlib
from typing import Any

from flax import nnx
import jax.numpy as jnp
import numpy as np

from v2a_jax.basics.files import sha256_of
from v2a_jax.codec import dac
from v2a_jax.codec.base import Buffer
from v2a_jax.weights import names, published, tensors
from v2a_jax.weights import registry as weights

WEIGHTS, CONFIG = published.FILE, published.CONFIG
_KINDS = {"dac": None}  # `model_type`, and no section of the file

# A field of `DacConfig` and its key in config.json. Its `hop_length` is not
# read: that follows from the strides.
_KEYS = {
  "sample_rate": "sampling_rate",
  "strides": "downsampling_ratios",
  "encoder_width": "encoder_hidden_size",
  "decoder_width": "decoder_hidden_size",
  "num_codebooks": "n_codebooks",
  "codebook_size": "codebook_size",
  "codebook_dim": "codebook_dim",
}
_LEAVES = {"kernel": "weight", "embedding": "weight"}


def recognises(name: str) -> bool:
  """Says whether a codec's name is a folder that holds `model.safetensors`."""
  return (pathlib.Path(name) / WEIGHTS).is_file()


def make(config: dac.DacConfig) -> dac.Dac:
  """Makes a codec with fresh weights."""
  return dac.Dac(config, rngs=nnx.Rngs(0))


def digest(name: str) -> str:
  """Returns the sha256 of the weights in hexadecimal."""
  return sha256_of(pathlib.Path(name) / WEIGHTS)


def read_config(folder: str | os.PathLike[str]) -> dac.DacConfig:
  """The sizes of the codec that a folder holds; its tensors are not read.

  Raises:
    MissingWeightsError, WrongWeightsError: see `load`.
  """
  folder = pathlib.Path(folder)
  return _config(published.read_config(folder, _KINDS), folder / CONFIG)


def load(folder: str | os.PathLike[str]) -> dac.Dac:
  """The codec that a folder holds.

  Raises:
    MissingWeightsError: one of the two files is not there.
    WrongWeightsError: the config is not that of a DAC; or the file is damaged;
      or tensors are missing, extra or misshapen, and all are named.
  """
  folder = pathlib.Path(folder)
  settings = published.read_config(folder, _KINDS)
  config = _config(settings, folder / CONFIG)
  statistics = _statistics(settings, config.latent_dim, folder / CONFIG)
  found = tensors.fold_weight_norm(tensors.read(folder / WEIGHTS))
  codec = abstract(config)
  tensors.check(found, _shapes(codec), folder / WEIGHTS)
  _put(found, codec)
  for name, value in statistics.items():
    setattr(codec, name, value)
  return codec


def abstract(config: dac.DacConfig) -> dac.Dac:
  """Makes a codec of shapes alone: nothing is allocated."""
  return nnx.eval_shape(lambda: make(config))


def tensor_shapes(config: dac.DacConfig) -> dict[str, tuple[int, ...]]:
  """Returns the shape of every tensor of the file, by name."""
  return _shapes(abstract(config))


def _shapes(codec: dac.Dac) -> dict[str, tuple[int, ...]]:
  shapes = {}
  for name, leaf in names.flatten(nnx.state(codec, nnx.Param)).items():
    shape = (1, *leaf.shape, 1) if name[-1] == "alpha" else leaf.shape
    shapes[_tensor(name)] = shape[::-1] if name[-1] == "kernel" else shape
  return shapes


def _tensor(name: names.Name) -> str:
  """encoder/block/0/conv1/kernel -> encoder.block.0.conv1.weight."""
  *layer, leaf = name
  return ".".join([*layer, _LEAVES.get(leaf, leaf)])


def _put(tensors_by_name: Mapping[str, np.ndarray], codec: dac.Dac) -> None:
  """Puts checked tensors into a codec of shapes."""
  params = nnx.state(codec, nnx.Param)
  arrays = {
    # A convolution is [d c k] in PyTorch; the others differ at most in ones.
    name: tensor.T if name[-1] == "kernel" else tensor.reshape(leaf.shape)
    for name, leaf in names.flatten(params).items()
    for tensor in (tensors_by_name[_tensor(name)],)
  }
  cast = lambda array, leaf: jnp.asarray(array, leaf.dtype)
  nnx.update(codec, names.fill(params, arrays, cast))


def _config(settings: Mapping[str, Any], path: pathlib.Path) -> dac.DacConfig:
  missing = sorted(set(_KEYS.values()) - settings.keys())
  if missing:
    raise weights.WrongWeightsError(f"{path}: no key {', '.join(missing)}")
  try:
    values = {field: settings[key] for field, key in _KEYS.items()}
    strides = tuple(int(stride) for stride in values.pop("strides"))
    sizes = {field: int(value) for field, value in values.items()}
    config = dac.DacConfig(strides=strides, **sizes)
  except (TypeError, ValueError) as error:
    raise weights.WrongWeightsError(f"{path}: {error}") from None
  derived = {
    "upsampling_ratios": list(strides[::-1]),
    "hidden_size": config.latent_dim,
  }
  for key, value in derived.items():
    if settings.get(key, value) != value:
      raise weights.WrongWeightsError(
        f"{path}: {key} is {settings[key]}; only {value}, which follows from"
        " the encoder, is read"
      )
  return config


def _statistics(
  settings: Mapping[str, Any], channels: int, path: pathlib.Path
) -> dict[str, Buffer]:
  """`latent_mean` and `latent_std`, each [channels]."""
  statistics = {}
  for name, default in (("latent_mean", 0.0), ("latent_std", 1.0)):
    given = settings.get(name, default)
    try:
      value = np.broadcast_to(np.asarray(given, np.float32), (channels,))
    except (TypeError, ValueError):
      raise weights.WrongWeightsError(
        f"{path}: {name} must be a number, or {channels} numbers"
      ) from None
    low = 0.0 if name == "latent_std" else -np.inf
    if not (np.isfinite(value) & (value > low)).all():
      raise weights.WrongWeightsError(
        f"{path}: {name} must be finite, and a deviation positive"
      )
    statistics[name] = Buffer(jnp.asarray(value))
  return statistics
