"""aiSFX, an embedding learned on libraries of sound effects.

Four blocks of two 3x3 convolutions on log-mel spectrograms, trained to name the
category of sound effects in a dozen professional libraries at once: 4.7 M
parameters, 512 features of 2.3 s of sound. It has no class logits here, as each
library has classes of its own.

Ma and Lerch, "Representation learning for the automatic indexing of sound
effects libraries", ISMIR 2022, https://arxiv.org/abs/2208.09096. Weights of the
model X-Sequential-CE: https://pypi.org/project/aisfx (CC BY 4.0).

Front end (44.1 kHz, Essentia's): power spectra of 2048-sample frames every 1024
samples under a symmetric Hann window; 96 triangles, straight on the HTK mel
scale, from 0 to 22.05 kHz, the weights of each summing to 1; log10(1e4 x + 1)
over 9.457798957824707, the largest value of the training data. A window is 100
frames that lie whole in the sound; the original's first one begins half a frame
before the sound.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.pretrained import convnet, spectrum
from v2a_jax.pretrained.convnet import Params, State
from v2a_jax.weights import registry as weights_lib

SAMPLE_RATE = 44_100
EMBEDDING_DIM, NUM_CLASSES = 512, 0
WINDOW, HOP = 101 * 1024, 50 * 1024  # samples of 100 frames, and of 50 hops

_FFT, _HOP, _BANDS = 2048, 1024, 96
_LARGEST = 9.457798957824707
_BLOCKS = [f"conv_block{i}" for i in (1, 2, 3, 4)]


def load(path: str | os.PathLike[str] | None = None) -> Params:
  """Reads the published weights; see `weights.registry.load`."""
  return convert(weights_lib.load("aisfx", path))


def convert(state: State) -> Params:
  """Converts a PyTorch state dict, with its batch norms folded.

  The checkpoint is a pair of the network's tensors and the sizes of its class
  heads, so its names begin with "0.".
  """
  prefix = "0.embedding_net."
  own = {
    name.removeprefix(prefix): array
    for name, array in state.items()
    if name.startswith(prefix)
  }
  parts = (convnet.double_conv_params(own, name) for name in _BLOCKS)
  return functools.reduce(dict.__or__, parts)


@functools.cache
def mel_weights() -> np.ndarray:
  """Returns the filters, float32 [fft/2 + 1, bands]."""
  mels = spectrum.htk(np.arange(_FFT // 2 + 1) * SAMPLE_RATE / _FFT)
  edges = spectrum.mel_edges(spectrum.htk, _BANDS, 0.0, SAMPLE_RATE / 2)
  filters = spectrum.triangles(mels, edges)
  return (filters / filters.sum(axis=0)).astype(np.float32)


def log_mel(waveform: jax.Array) -> jax.Array:
  """Computes the network's input.

  Args:
    waveform: float32 [b, samples] at 44.1 kHz, of at least 2048 samples.

  Returns:
    float32 [b, frames, 96 bands], one frame every 23 ms, from 0 to about 1.
  """
  framed = spectrum.frames(waveform, _FFT, _HOP)
  power = spectrum.power(framed, spectrum.hann(_FFT, periodic=False), _FFT)
  return jnp.log10(spectrum.bands(power, mel_weights()) * 1e4 + 1) / _LARGEST


def embed(params: Params, mel: jax.Array) -> jax.Array:
  """Embeds log-mel spectrograms [b, frames, 96], at least 8 frames long."""
  x = mel[..., None]
  for name in _BLOCKS:
    x = convnet.double_conv(params, name, x)
    if name != _BLOCKS[-1]:
      x = convnet.max_pool(x)
  return x.mean(axis=2).max(axis=1)


def apply(params: Params, waveform: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Embeds sounds.

  Args:
    params: from `load` or `convert`.
    waveform: float32 [b, samples] at 44.1 kHz; mono, in [-1, 1].

  Returns:
    (embeddings float32 [b, 512], class logits [b, 0]: there are none).
  """
  embedding = embed(params, log_mel(waveform))
  return embedding, embedding[:, :0]
