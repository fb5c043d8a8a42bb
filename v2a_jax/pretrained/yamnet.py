"""YAMNet, a small AudioSet tagger for devices.

A MobileNetV1 on log-mel spectrograms of 0.975 s: 3.7 M parameters, 1024
features after the last convolution, averaged over time and bands, and logits of
521 classes. The weights are those of the published 8-bit model, whose integers
are scaled back; here all sums are float32, so that outputs are not rounded.

Howard et al., "MobileNets", https://arxiv.org/abs/1704.04861; YAMNet:
https://github.com/tensorflow/models/tree/master/research/audioset/yamnet.
Weights: tensorflow/tflite-support (Apache-2.0). Batch norms are folded in the
file.

Front end (16 kHz): magnitudes of 400-sample frames every 160 samples under a
Hann window, padded to 512; log(mel + 0.001) of 64 bands. Window and mel filters
are in the file.
"""

import os

import jax
import jax.numpy as jnp

from v2a_jax.pretrained import convnet, spectrum
from v2a_jax.pretrained.convnet import Params, State
from v2a_jax.weights import registry as weights_lib

SAMPLE_RATE = 16_000
EMBEDDING_DIM, NUM_CLASSES = 1024, 521
# Of AudioSet's 527 classes it lacks those of male and female speech and singing,
# "Battle cry" and "Funny music"; the others are in the same order.
LACKS = (1, 2, 12, 32, 33, 277)
WINDOW, HOP = 15_600, 7_680  # samples

_FFT, _FRAME, _HOP = 512, 400, 160
_HANN, _MEL = "stft/hann_window/sub_2", "mel_spectrogram"
_LAST_LAYER = 27
_STRIDE_TWO = {1, 4, 8, 12, 24}


def load(path: str | os.PathLike[str] | None = None) -> Params:
  """Reads the published weights; see `weights.registry.load`."""
  return convert(weights_lib.load("yamnet", path))


def convert(state: State) -> Params:
  """Converts arrays by the names of the TensorFlow Lite model.

  Its kernels are [out, h, w, in], and [1, h, w, channels] where depthwise;
  those of layers that share a name with another operation end in more names.
  """
  params = {"hann": jnp.asarray(state[_HANN]), "mel": state[_MEL].T}
  for index in range(1, _LAST_LAYER + 1):
    part = "sepconv" if _depthwise(index) else "conv"
    layer = f"tower0/network/layer{index}/{part}/"
    norm = f"{layer}BatchNorm/FusedBatchNormV3"
    if _depthwise(index):
      (name,) = (n for n in state if n.startswith(f"{norm};"))
      kernel = state[name].transpose(1, 2, 0, 3)
    else:
      kernel = state[f"{layer}Conv2D"]
      kernel = kernel.transpose(1, 2, 3, 0)
    params |= {f"{index}/w": kernel, f"{index}/b": state[norm]}
  params["classes/w"] = state["tower0/network/layer29/fc/MatMul"].T
  params["classes/b"] = state["network/layer29/fc/biases"]
  return {name: jnp.asarray(array) for name, array in params.items()}


def _depthwise(index: int) -> bool:
  return index % 2 == 0


def log_mel(params: Params, waveform: jax.Array) -> jax.Array:
  """Computes the network's input.

  Args:
    params: from `load` or `convert`.
    waveform: float32 [b, samples] at 16 kHz, of at least 400 samples.

  Returns:
    float32 [b, frames, 64 bands], one frame every 10 ms.
  """
  framed = spectrum.frames(waveform, _FRAME, _HOP)
  magnitude = spectrum.magnitude(framed, params["hann"], _FFT)
  return jnp.log(spectrum.bands(magnitude, params["mel"]) + 0.001)


def apply(params: Params, waveform: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Embeds and tags sounds.

  Args:
    params: from `load` or `convert`.
    waveform: float32 [b, samples] at 16 kHz; mono, in [-1, 1]; 15,600 samples
      are what it was trained on.

  Returns:
    (embeddings float32 [b, 1024], class logits float32 [b, 521] in YAMNet's
    order).
  """
  x = log_mel(params, waveform)[..., None]
  for index in range(1, _LAST_LAYER + 1):
    stride = 2 if index in _STRIDE_TWO else 1
    x = convnet.conv(params, str(index), x, stride=stride, padding="SAME")
    x = jnp.clip(x, 0.0, 6.0)
  embedding = x.mean((1, 2))
  return embedding, convnet.dense(params, "classes", embedding)
