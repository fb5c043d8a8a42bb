"""LAION's CLAP: sounds and texts in one space.

The folder is one of `transformers`, such as laion/clap-htsat-unfused: config.json,
model.safetensors and tokenizer.json.
"""

import functools
import os

import jax
import numpy as np
import soxr

from v2a_jax.basics import files
from v2a_jax.basics.paths import as_path
from v2a_jax.pretrained import clap_audio, clap_text
from v2a_jax.weights import published

SECONDS = 10
MAX_TOKENS = 77


class Clap:
  """Both towers of a folder."""

  def __init__(self, folder: str | os.PathLike[str]):
    """Reads the weights.

    Raises:
      MissingWeightsError, WrongWeightsError: a file is missing or damaged, or of
        another network.
    """
    folder = as_path(folder)
    text = clap_text.load(folder)
    self._sound = functools.partial(
      jax.jit(lambda params, x: clap_audio.apply(params, x)[0]),
      clap_audio.load(folder),
    )
    self._text = jax.jit(lambda ids, mask: text.feature(text(ids, mask)))
    self.sha256 = files.sha256_of(folder / published.FILE)

  def text(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Embeds a text of token ids [l] and their mask; float32 [d] of length 1."""
    return _unit(np.asarray(self._text(ids[None], mask[None]))[0])

  def sound(self, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Embeds a sound.

    Args:
      waveform: float [samples, channels]. Longer sounds are cut into pieces of
        10 s, the last of which ends with the sound, and their features are
        averaged; shorter ones are repeated while they fit whole.
      sample_rate: Hz.

    Returns:
      float32 [d] of length 1.
    """
    mono = np.asarray(waveform, np.float32).mean(axis=1)
    rate = clap_audio.SAMPLE_RATE
    if sample_rate != rate:
      mono = soxr.resample(mono, sample_rate, rate, quality="HQ")
    size = SECONDS * rate
    if len(mono) < size:
      mono = np.tile(mono, max(size // max(len(mono), 1), 1))
      mono = np.pad(mono, (0, size - len(mono)))
    last = len(mono) - size
    starts = [*range(0, last, size), last]
    features = [
      _unit(np.asarray(self._sound(mono[None, i : i + size]))[0])
      for i in starts
    ]
    return _unit(np.mean(features, axis=0))


def _unit(x: np.ndarray) -> np.ndarray:
  return x / max(float(np.linalg.norm(x)), 1e-12)


@functools.cache
def load(folder: str) -> Clap:
  """Returns the network of a folder, read once; see `Clap`."""
  return Clap(folder)
