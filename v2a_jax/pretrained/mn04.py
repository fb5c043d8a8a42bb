"""EfficientAT mn04, a small AudioSet tagger.

A MobileNetV3-large of width 0.4 on log-mel spectrograms, trained on AudioSet
by distillation from transformers: 0.98 M parameters, 43.2 mAP over 527 classes.
Its 384 features after the last convolution, averaged over frequency and time,
are the embedding; two more layers give the class logits.

Schmid, Koutini and Widmer, "Efficient large-scale audio tagging via
transformer-to-CNN knowledge distillation", https://arxiv.org/abs/2211.04772,
weights and original code: https://github.com/fschmid56/EfficientAT (MIT).

Front end (32 kHz): y[t] = x[t+1] - 0.97 x[t]; power spectra of 1024-sample
frames every 320 samples under a symmetric 800-sample Hann window; 128 Kaldi mel
bands from 0 to 15 kHz; (log(mel + 1e-5) + 4.5) / 5.

Its weights are never trained here, so `convert` folds the batch norms into the
convolutions.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.pretrained import convnet, spectrum
from v2a_jax.pretrained.convnet import Params, State, conv, dense
from v2a_jax.weights import registry as weights_lib

SAMPLE_RATE = 32_000
EMBEDDING_DIM, NUM_CLASSES = 384, 527
FRAME_RATE = 6.25  # Hz, of `frames`
FRAME_DIM = 8 * 48  # bands x channels

_FFT, _HOP, _WINDOW, _BANDS, _TOP_HZ = 1024, 320, 800, 128, 15_000.0
_BATCH_NORM_EPSILON = 1e-3
# MobileNetV3-large: blocks 1 to 15; those up to 6 use ReLU, later ones
# Hardswish. Channels, kernel sizes and squeeze-excitation follow from the
# weights themselves.
_STRIDES = (1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1)
_LAST_RELU_BLOCK = 6
_FRAME_BLOCK = 12


def load(path: str | os.PathLike[str] | None = None) -> Params:
  """Reads the published weights; see `weights.registry.load`."""
  return convert(weights_lib.load("mn04", path))


def convert(state: State) -> Params:
  """Converts a PyTorch state dict, with its batch norms folded."""
  params = {}
  for name, value in state.items():
    layer = name.removesuffix(".weight")
    if layer == name or value.ndim == 1:
      continue  # Biases and norms are taken with their layer.
    if value.ndim == 4:
      norm = layer.removesuffix("0") + "1"
      epsilon = _BATCH_NORM_EPSILON
      params |= convnet.folded(state, layer, norm, epsilon=epsilon)
    else:
      params |= convnet.layer(state, layer)
  return params


@functools.cache
def mel_weights() -> np.ndarray:
  """Returns Kaldi's triangular mel filters, float32 [fft/2 + 1, bands].

  Triangles are straight in mel = 1127 ln(1 + f / 700), not in Hz, and the bin
  at half the sample rate has no weight.
  """
  mels = spectrum.htk(np.arange(_FFT // 2) * SAMPLE_RATE / _FFT)
  edges = spectrum.mel_edges(spectrum.htk, _BANDS, 0.0, _TOP_HZ)
  filters = spectrum.triangles(mels, edges)
  return np.pad(filters, ((0, 1), (0, 0))).astype(np.float32)


def log_mel(waveform: jax.Array) -> jax.Array:
  """Computes the network's input.

  Args:
    waveform: float32 [b, samples] at 32 kHz, of at least 514 samples.

  Returns:
    float32 [b, 128 bands, frames], one frame every 10 ms.
  """
  emphasised = waveform[:, 1:] - 0.97 * waveform[:, :-1]
  window = np.pad(spectrum.hann(_WINDOW, periodic=False), (_FFT - _WINDOW) // 2)
  framed = spectrum.centred(emphasised, _FFT, _HOP)
  mel = spectrum.bands(spectrum.power(framed, window, _FFT), mel_weights())
  return (jnp.log(mel + 1e-5).swapaxes(1, 2) + 4.5) / 5.0


def _squeeze_excite(params: Params, name: str, x: jax.Array) -> jax.Array:
  squeezed = jax.nn.relu(dense(params, f"{name}.fc1", x.mean((1, 2))))
  gate = jax.nn.sigmoid(dense(params, f"{name}.fc2", squeezed))
  return x * gate[:, None, None, :]


def _block(params: Params, index: int, x: jax.Array) -> jax.Array:
  """Runs an inverted residual: expand, depthwise, squeeze-excite, project."""
  activation = jax.nn.relu if index <= _LAST_RELU_BLOCK else jax.nn.hard_swish
  stride = _STRIDES[index - 1]
  parts = [f"features.{index}.block.{part}" for part in range(4)]
  y = x
  if params[f"{parts[0]}.0/w"].shape[0] == 1:  # The first block has none.
    y = activation(conv(params, f"{parts.pop(0)}.0", y))
  y = activation(conv(params, f"{parts.pop(0)}.0", y, stride=stride))
  excite = f"{parts[0]}.conc_se_layers.0"
  if f"{excite}.fc1/w" in params:
    y = _squeeze_excite(params, excite, y)
    parts.pop(0)
  y = conv(params, f"{parts[0]}.0", y)
  return x + y if stride == 1 and x.shape == y.shape else y


def _blocks(params: Params, waveform: jax.Array, count: int) -> jax.Array:
  """Runs the first `count` blocks: [b, bands, frames, channels], bands and
  frames halved at each stride of 2."""
  x = log_mel(waveform)[..., None]
  x = jax.nn.hard_swish(conv(params, "features.0.0", x, stride=2))
  for index in range(1, count + 1):
    x = _block(params, index, x)
  return x


def frames(params: Params, waveform: jax.Array) -> jax.Array:
  """Computes features along time, before the last stride.

  Args:
    params: from `load` or `convert`.
    waveform: float32 [b, samples] at 32 kHz; mono, in [-1, 1].

  Returns:
    float32 [b, t, FRAME_DIM]; frame i is about i / FRAME_RATE seconds.
  """
  x = _blocks(params, waveform, _FRAME_BLOCK).swapaxes(1, 2)
  return x.reshape(*x.shape[:2], FRAME_DIM)


def apply(params: Params, waveform: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Embeds and tags sounds.

  Args:
    params: from `load` or `convert`.
    waveform: float32 [b, samples] at 32 kHz; mono, in [-1, 1].

  Returns:
    (embeddings float32 [b, 384], class logits float32 [b, 527] in AudioSet's
    order).
  """
  x = _blocks(params, waveform, len(_STRIDES))
  x = jax.nn.hard_swish(conv(params, "features.16.0", x))
  embedding = x.mean((1, 2))
  hidden = jax.nn.hard_swish(dense(params, "classifier.2", embedding))
  return embedding, dense(params, "classifier.5", hidden)
