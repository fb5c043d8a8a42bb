"""Codecs by name: bundles, folders of DAC, and patches of the waveform."""

import dataclasses
import functools
import pathlib
from typing import Any

from flax import nnx
from ml_collections import config_dict

from v2a_jax.codec import dac, dac_files, patches
from v2a_jax.codec.autoencoder import Codec, CodecConfig
from v2a_jax.experiment.sections import ConfigError, fill
from v2a_jax.weights import bundle
from v2a_jax.weights import registry as weights


@dataclasses.dataclass(frozen=True)
class FrozenCodec:
  """A codec as it is, ready to be merged inside a jitted function."""

  config: CodecConfig | dac.DacConfig | patches.PatchConfig
  graphdef: Any
  state: Any
  sha256: str

  def merge(self, state=None) -> Codec | dac.Dac | patches.Patches:
    return nnx.merge(self.graphdef, self.state if state is None else state)


@functools.cache
def load(name: str) -> FrozenCodec:
  """Reads the codec `name`.

  Args:
    name: of a bundle (`bundle.find`); a folder of DAC; or, for no codec at all,
      `patches:RATE:HOP:CHANNELS` (`codec/patches.py`).

  Raises:
    BundleError: there is none, or it is of another model.
    ConfigError: these are no patches.
    MissingWeightsError, WrongWeightsError: see `dac_files.load`.
  """
  if name.startswith(patches.PREFIX):
    return describe(name)
  if dac_files.holds_dac(name):
    codec = dac_files.load(name)
    sha256 = weights.sha256_of(pathlib.Path(name) / dac_files.WEIGHTS)
    return FrozenCodec(codec.config, *nnx.split(codec), sha256)
  folder, codec = bundle.find(name), describe(name)
  return dataclasses.replace(
    codec,
    state=bundle.load_state(folder, codec.state),
    sha256=bundle.digest(folder),
  )


def describe(name: str) -> FrozenCodec:
  """What `load` gives, its state of shapes; no weights are read.

  Raises:
    BundleError, ConfigError, MissingWeightsError, WrongWeightsError: see
      `load`.
  """
  if name.startswith(patches.PREFIX):
    codec = _patches(name)
    config = codec.config
  elif dac_files.holds_dac(name):
    config = dac_files.read_config(name)
    codec = dac_files.abstract(config)
  else:
    config = config_dict.ConfigDict(bundle.read_config(bundle.find(name)))
    config = sizes(config)
    codec = nnx.eval_shape(lambda: Codec(config, rngs=nnx.Rngs(0)))
  return FrozenCodec(config, *nnx.split(codec), sha256="")


def _patches(name: str) -> patches.Patches:
  try:
    return patches.Patches(patches.PatchConfig.parse(name))
  except ValueError as error:
    raise ConfigError(f"config.codec: {error}") from None


def sizes(config) -> CodecConfig:
  """Sizes of the codec that a config trains, from `config.model`."""
  section = {k: v for k, v in config.model.items() if k != "discriminator"}
  return fill(CodecConfig, section, where="model")
