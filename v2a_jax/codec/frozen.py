"""Frozen codecs, which a generator uses, by name.

A kind of codec is a module with `recognises(name)`, `read_config(name)`,
`make(config)`, `load(name)`, `digest(name)`, `calibrated(name)`, whether its
latents are standardised, and `effective_rank(name)`; see `patches.py`. Its codec has
`encode`, `decode`, `decoder_halo` and, where generators are trained on draws of
the latents, `distribution(waveform)`, their mean and deviation; a decoder in
parts may name them, `decoder_stages` (`streaming.py`). To add one,
write the module and insert it in `KINDS`, in front of `bundled`, which takes
every name.
"""

import dataclasses
import functools
import types
from typing import Any

from flax import nnx
import jax

from v2a_jax.codec import bundled, dac_files, mmaudio, patches

KINDS: list[types.ModuleType] = [patches, mmaudio, dac_files, bundled]


@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no hash
class FrozenCodec:
  """A codec split for use inside a jitted function.

  Attributes:
    config: sizes; has `sample_rate`, `channels`, `hop`, `latent_rate`,
      `latent_dim` and `num_codebooks`.
    graphdef: structure of the module.
    state: its weights, or their shapes (see `describe`).
    sha256: what `digest` of its kind returns: sha256 of the weights, or of the
      name where there are none; "" if they were not read.
    calibrated: whether its latents are standardised.
  """

  config: Any
  graphdef: Any
  state: Any
  sha256: str = ""
  calibrated: bool = True

  def merge(self, state=None) -> nnx.Module:
    """Returns the codec with its own weights, or with those of `state`."""
    return nnx.merge(self.graphdef, self.state if state is None else state)


def describe(name: str) -> FrozenCodec:
  """Returns a codec with shapes in place of weights.

  Args:
    name: a bundle (its folder, or its name in `assets/`), a folder with a DAC,
      `mmaudio:16k` or another of MMAudio's (`mmaudio.py`), or
      `patches:RATE:HOP:CHANNELS` for patches of the waveform itself.

  Raises:
    BundleError, MissingWeightsError, WrongWeightsError, SettingError: there is
      no such codec.
  """
  kind = _kind(name)
  config = kind.read_config(name)
  parts = _abstract(kind, config)
  return FrozenCodec(config, *parts, calibrated=kind.calibrated(name))


@functools.cache
def _abstract(kind: types.ModuleType, config: Any) -> tuple[Any, Any]:
  return nnx.split(nnx.eval_shape(lambda: kind.make(config)))


@functools.cache
def load(name: str) -> FrozenCodec:
  """Reads a codec with its weights; see `describe`.

  Raises:
    BundleError, MissingWeightsError, WrongWeightsError, SettingError: there is
      no such codec, or its weights are damaged or of another model.
  """
  kind = _kind(name)
  # Kept for later calls, so they are arrays even where a trace asks first.
  with jax.core.eval_context():
    codec = kind.load(name)
  parts = nnx.split(codec)
  calibrated = kind.calibrated(name)
  return FrozenCodec(codec.config, *parts, kind.digest(name), calibrated)


def effective_rank(name: str) -> float | None:
  """Returns the number of directions that a codec's variance fills, if known."""
  return _kind(name).effective_rank(name)


def _kind(name: str) -> types.ModuleType:
  return next(kind for kind in KINDS if kind.recognises(name))
