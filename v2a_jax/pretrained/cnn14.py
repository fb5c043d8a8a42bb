"""Cnn14 of PANNs, an AudioSet tagger.

Six blocks of two 3x3 convolutions on log-mel spectrograms of a whole clip: 81 M
parameters, 2048 features after a dense layer and ReLU, logits of 527 classes;
43.8 mAP. This is the network at 16 kHz, whose Fréchet distance, divergence and
inception score most papers on video-to-audio print.

Kong et al., "PANNs: Large-scale pretrained audio neural networks for audio
pattern recognition", https://arxiv.org/abs/1912.10211. Weights:
https://zenodo.org/records/3987831 (CC BY 4.0).

Front end (16 kHz): power spectra of 512-sample frames every 160 samples under a
Hann window, the ends mirrored; 64 triangles of equal area, straight in Hz, their
edges on Slaney's mel scale from 50 to 8000 Hz; decibels, at least -100.
"""

import os

import jax
import jax.numpy as jnp

from v2a_jax.pretrained import convnet, spectrum
from v2a_jax.pretrained.convnet import Params, State
from v2a_jax.weights import registry as weights_lib

SAMPLE_RATE = 16_000
EMBEDDING_DIM, NUM_CLASSES = 2048, 527

_FFT, _HOP = 512, 160
_FILTERS = (SAMPLE_RATE, _FFT, 64, 50.0, 8000.0)
_BLOCKS = [f"conv_block{i}" for i in range(1, 7)]
_SHORTEST = 32  # frames: five halvings


def load(path: str | os.PathLike[str] | None = None) -> Params:
  """Reads the published weights; see `weights.registry.load`."""
  return convert(weights_lib.load("cnn14", path))


def convert(state: State) -> Params:
  """Converts a PyTorch state dict, with its batch norms folded.

  The first norm, of the bands, is before a convolution that pads with zeros, so
  it stays apart. The checkpoint's names begin with "model.".
  """
  state = {name.removeprefix("model."): value for name, value in state.items()}
  scale, shift = convnet.norm_affine(state, "bn0", epsilon=1e-5)
  params = {
    "bands/scale": jnp.asarray(scale),
    "bands/shift": jnp.asarray(shift),
  }
  for name in _BLOCKS:
    params |= convnet.double_conv_params(state, name)
  for name in ("fc1", "fc_audioset"):
    params |= convnet.layer(state, name)
  return params


def log_mel(waveform: jax.Array) -> jax.Array:
  """Computes the network's input, before its norm.

  Args:
    waveform: float32 [b, samples] at 16 kHz, of at least 257 samples.

  Returns:
    float32 [b, frames, 64 bands] in dB, one frame every 10 ms.
  """
  filters = spectrum.slaney_filters(*_FILTERS)
  return spectrum.log_mel(waveform, filters, fft=_FFT, hop=_HOP)


def blocks(params: Params, mel: jax.Array) -> jax.Array:
  """Runs the convolutions on [b, frames, 64], to [b, t, bands, channels].

  Shorter sounds than 0.32 s are padded with frames of the norm's mean.
  """
  x = mel * params["bands/scale"] + params["bands/shift"]
  x = jnp.pad(x, ((0, 0), (0, max(0, _SHORTEST - x.shape[1])), (0, 0)))[
    ..., None
  ]
  for name in _BLOCKS:
    x = convnet.double_conv(params, name, x)
    if name != _BLOCKS[-1]:
      x = convnet.mean_pool(x)
  return x


def apply(params: Params, waveform: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Embeds and tags sounds.

  Args:
    params: from `load` or `convert`.
    waveform: float32 [b, samples] at 16 kHz; mono, in [-1, 1].

  Returns:
    (embeddings float32 [b, 2048], class logits float32 [b, 527] in AudioSet's
    order).
  """
  x = blocks(params, log_mel(waveform)).mean(axis=2)
  x = x.max(axis=1) + x.mean(axis=1)
  embedding = jax.nn.relu(convnet.dense(params, "fc1", x))
  return embedding, convnet.dense(params, "fc_audioset", embedding)
