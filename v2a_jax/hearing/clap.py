"""LAION's CLAP: sounds and texts in one space.

They are in a folder of `transformers` with config.json, model.safetensors and
tokenizer.json, or they are what `v2a weights fetch clap:htsat_unfused` gets.
"""

import functools
import os

import jax
import numpy as np
import soxr

from data_pipelines.tokenizer import load_prompt_tokenizer
from v2a_jax.basics import files
from v2a_jax.basics.paths import as_path
from v2a_jax.pretrained import clap_audio, clap_text
from v2a_jax.weights import catalog, published, registry, tables

PUBLISHED = catalog.CLAP
MAX_TOKENS = 77


class Clap:
  """Both towers, and their tokenizer.

  Attributes:
    name: name of the folder, or `PUBLISHED`.
    sha256: digest of the weights.
  """

  def __init__(self, folder: str | os.PathLike[str]):
    """Reads the tokenizer and the weights of a folder, or of `PUBLISHED`.

    Raises:
      DataError: there is no tokenizer.
      MissingWeightsError, WrongWeightsError: a file is missing or damaged, or of
        another network.
    """
    if str(folder) == PUBLISHED:
      tokenizer, text, sound = _published()
      self.name, self.sha256 = PUBLISHED, registry.digest("clap")
    else:
      folder = as_path(folder)
      tokenizer = load_prompt_tokenizer(folder / "tokenizer.json")
      text, sound = clap_text.load(folder), clap_audio.load_folder(folder)
      self.name = folder.name
      self.sha256 = files.sha256_of(folder / published.FILE)
    self._tokenizer = tokenizer
    self._sound = functools.partial(
      jax.jit(lambda params, x: clap_audio.apply(params, x)[0]), sound
    )
    self._text = jax.jit(lambda ids, mask: text.feature(text(ids, mask)))
    self._texts: dict[str, np.ndarray] = {}

  def agreement(
    self, text: str, waveform: np.ndarray, sample_rate: int
  ) -> float:
    """Returns the cosine of the features of a text and of a sound.

    Args:
      text: description of a sound.
      waveform: float [samples, channels], as for `sound`.
      sample_rate: Hz.
    """
    return float(self.sound(waveform, sample_rate) @ self.text(text))

  def text(self, text: str) -> np.ndarray:
    """Embeds a text; float32 [d] of length 1."""
    if text not in self._texts:
      ids, mask = self._tokenizer.encode(text, MAX_TOKENS)
      feature = np.asarray(self._text(ids[None], mask[None]))[0]
      self._texts[text] = _unit(feature)
    return self._texts[text]

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
    size = clap_audio.SECONDS * rate
    if len(mono) < size:
      mono = clap_audio.repeated(mono, size)
    last = len(mono) - size
    starts = [*range(0, last, size), last]
    features = [
      _unit(np.asarray(self._sound(mono[None, i : i + size]))[0])
      for i in starts
    ]
    return _unit(np.mean(features, axis=0))


def _published():
  """Returns the tokenizer, the text tower and the weights of the other."""
  weights, words = catalog.SETS[PUBLISHED]
  text = clap_text.NETWORK.assemble(
    tables.in_memory(registry.load(weights)),
    clap_text.ClapTextConfig(),
    source=weights,
  )
  tokenizer = load_prompt_tokenizer(registry.find(words))
  return tokenizer, text, clap_audio.load()


def _unit(x: np.ndarray) -> np.ndarray:
  return x / max(float(np.linalg.norm(x)), 1e-12)


@functools.cache
def load(folder: str) -> Clap:
  """Returns the network of a folder or `PUBLISHED`, read once; see `Clap`."""
  return Clap(folder)
