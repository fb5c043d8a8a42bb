"""Reads a DAC (dac.py) from a folder as Hugging Face publishes it.

  config.json        sizes, with `"model_type": "dac"`
  model.safetensors  float tensors with the names of `transformers`' DacModel,
                     with or without weight normalisation
  calibration.safetensors   what `calibrate` measures, float32: latent_mean [c],
                     latent_std [c] and latent_basis [c, c]

Public models (MIT): https://huggingface.co/descript/dac_16khz, …/dac_24khz and
…/dac_44khz, of 74 to 77 M parameters. Download both files into a folder and set
`config.codec` to its path; it must stay there for models trained on that codec.
The files' sha256 are not known, so they have no entry in `weights.registry`;
instead the names and shapes of all tensors are compared with the config.

The encoder's output has no certain scale, so a generator of latents needs the
last file (`v2a weights calibrate`); one of codes does not.
"""

from collections.abc import Iterable, Mapping
import dataclasses
import hashlib
import pathlib
from typing import Any

from flax import nnx
import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from v2a_jax.basics import files
from v2a_jax.basics.paths import as_path
from v2a_jax.codec import dac
from v2a_jax.codec.base import padded
from v2a_jax.codec.calibration import Calibration, encoded, measure
from v2a_jax.weights import published, state_dict
from v2a_jax.weights.registry import WrongWeightsError

CONFIG, FILE = published.CONFIG, published.FILE
CALIBRATION = "calibration.safetensors"
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
  tensors = state_dict.fold_weight_norm(published.read_tensors(folder))
  codec = nnx.eval_shape(lambda: make(config))
  shapes = {
    name: (1, *shape, 1) if name.endswith(".alpha") else shape
    for name, shape in state_dict.shapes(codec).items()
  }
  published.check(tensors, shapes, folder / FILE)
  state_dict.fill(codec, tensors)
  measured = Calibration.none(config.latent_dim)
  if calibrated(name):
    measured = _read_calibration(folder / CALIBRATION, config)
  measured.put_into(codec)
  return codec


def calibrated(name: str) -> bool:
  """Returns whether the latents of the codec in a folder were measured."""
  return (as_path(name) / CALIBRATION).is_file()


def effective_rank(name: str) -> float | None:
  """Returns the number of directions that variance fills, once calibrated."""
  if not calibrated(name):
    return None
  path = as_path(name) / CALIBRATION
  return _read_calibration(path, read_config(name)).effective_rank


def calibrate(name: str, waveforms: Iterable[np.ndarray]) -> Calibration:
  """Measures the latents of the codec in a folder, and writes it there.

  The noise is what the quantizer leaves: a direction in which codes say nothing
  is not enlarged to the size of the others.

  Args:
    name: the folder.
    waveforms: batches float32 [b, t, channels] of one shape, many seconds.

  Raises:
    MissingWeightsError, WrongWeightsError: see `load`.
    ValueError: there is no waveform.
    OSError: the file cannot be written.
  """

  def and_left(codec: dac.Dac, waveform):
    z = codec.encoder(padded(waveform, codec.config.hop))
    return z, z - codec.quantizer.dequantize(codec.quantizer.quantize(z))

  z, left = encoded(load(name), and_left, waveforms)
  measured = measure(z, left.T @ left / len(left))
  arrays = {
    key: np.ascontiguousarray(value, np.float32)
    for key, value in dataclasses.asdict(measured).items()
  }
  with files.written(as_path(name) / CALIBRATION) as part:
    safetensors.save_file(arrays, part)
  return measured


def digest(name: str) -> str:
  """Computes the sha256 of weights and, if there is one, calibration."""
  folder = as_path(name)
  weights = files.sha256_of(folder / FILE)
  if not calibrated(name):
    return weights
  both = weights + files.sha256_of(folder / CALIBRATION)
  return hashlib.sha256(both.encode()).hexdigest()


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


def _read_calibration(path: pathlib.Path, config: dac.DacConfig) -> Calibration:
  size = config.latent_dim
  shapes = {"latent_mean": (size,), "latent_std": (size,)}
  shapes["latent_basis"] = (size, size)
  try:
    arrays = safetensors.load_file(path)
  except (OSError, SafetensorError) as error:
    raise WrongWeightsError(f"cannot read {path}: {error}") from None
  published.check(arrays, shapes, path)
  finite = all(np.isfinite(array).all() for array in arrays.values())
  if not finite or not (arrays["latent_std"] > 0).all():
    raise WrongWeightsError(
      f"{path}: values must be finite, and deviations positive; measure them"
      " again with v2a weights calibrate"
    )
  return Calibration(**arrays)
