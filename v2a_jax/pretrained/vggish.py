"""VGGish, the embedding of most published Fréchet audio distances.

A VGG network of six convolutions and three dense layers on log-mel patches of
0.96 s: 72 M parameters, 128 features. They are taken before the last ReLU, and
without the principal components and rounding that YouTube-8M added, as most
toolkits do now; some apply that ReLU, and their distances differ.

Hershey et al., "CNN architectures for large-scale audio classification",
https://arxiv.org/abs/1609.09430; for distances Kilgour et al.,
https://arxiv.org/abs/1812.08466. Weights in PyTorch's form:
https://github.com/harritaylor/torchvggish (Apache-2.0).

Front end (16 kHz): magnitudes of 400-sample frames every 160 samples under a
Hann window, padded to 512; 64 triangles, straight on the HTK mel scale, from
125 to 7500 Hz; log(mel + 0.01); 96 frames a patch.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.pretrained import convnet, spectrum
from v2a_jax.pretrained.convnet import Params, State
from v2a_jax.weights import registry as weights_lib

SAMPLE_RATE = 16_000
EMBEDDING_DIM, NUM_CLASSES = 128, 0
WINDOW, HOP = 15_600, 15_360  # samples of 96 frames, and of 96 hops

_FFT, _FRAME, _HOP, _BANDS, _LOW_HZ, _TOP_HZ = 512, 400, 160, 64, 125.0, 7500.0
_CONVS = (0, 3, 6, 8, 11, 13)
_POOLED = {0, 3, 8, 13}
_DENSE = (0, 2, 4)


def load(path: str | os.PathLike[str] | None = None) -> Params:
  """Reads the published weights; see `weights.registry.load`."""
  return convert(weights_lib.load("vggish", path))


def convert(state: State) -> Params:
  """Converts a PyTorch state dict."""
  names = [f"features.{i}" for i in _CONVS] + [
    f"embeddings.{i}" for i in _DENSE
  ]
  parts = (convnet.layer(state, name) for name in names)
  return functools.reduce(dict.__or__, parts)


@functools.cache
def mel_weights() -> np.ndarray:
  """Returns the filters, float32 [fft/2 + 1, bands]; the first bin has none."""
  mels = spectrum.htk(np.arange(_FFT // 2 + 1) * SAMPLE_RATE / _FFT)
  edges = spectrum.mel_edges(spectrum.htk, _BANDS, _LOW_HZ, _TOP_HZ)
  filters = spectrum.triangles(mels, edges)
  filters[0] = 0.0
  return filters.astype(np.float32)


def log_mel(waveform: jax.Array) -> jax.Array:
  """Computes the network's input.

  Args:
    waveform: float32 [b, samples] at 16 kHz, of at least 400 samples.

  Returns:
    float32 [b, frames, 64 bands], one frame every 10 ms.
  """
  framed = spectrum.frames(waveform, _FRAME, _HOP)
  magnitude = spectrum.magnitude(framed, spectrum.hann(_FRAME), _FFT)
  return jnp.log(spectrum.bands(magnitude, mel_weights()) + 0.01)


def apply(params: Params, waveform: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Embeds sounds.

  Args:
    params: from `load` or `convert`.
    waveform: float32 [b, 15600] at 16 kHz; mono, in [-1, 1].

  Returns:
    (embeddings float32 [b, 128], class logits [b, 0]: there are none).
  """
  x = log_mel(waveform)[..., None]
  for index in _CONVS:
    x = jax.nn.relu(convnet.conv(params, f"features.{index}", x))
    if index in _POOLED:
      x = convnet.max_pool(x)
  x = x.reshape(len(x), -1)
  for index in _DENSE:
    x = convnet.dense(params, f"embeddings.{index}", x)
    if index != _DENSE[-1]:
      x = jax.nn.relu(x)
  return x, x[:, :0]
