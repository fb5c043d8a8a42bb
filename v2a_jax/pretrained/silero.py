"""Silero VAD, which says when somebody speaks.

A voice activity detector of 0.31 M parameters on chunks of 32 ms at 16 kHz:
magnitudes of a short-time Fourier transform, which its file holds as a
convolution, four convolutions over time, a recurrent cell (LSTM) that is
carried from chunk to chunk, and one probability. The ONNX graphs of the same
package hold other weights of this network.

Silero Team, "Silero VAD: pre-trained enterprise-grade voice activity detector",
https://github.com/snakers4/silero-vad (MIT), version 6.2 at 16 kHz.
"""

import os

import jax
import jax.numpy as jnp

from v2a_jax.pretrained import spectrum
from v2a_jax.pretrained.convnet import Params, State
from v2a_jax.weights import registry as weights_lib

SAMPLE_RATE = 16_000
CHUNK = 512  # samples
EMBEDDING_DIM, NUM_CLASSES = 1, 0

_CONTEXT = 64  # samples of the chunk before
_REFLECTED = 64  # samples after
_FFT, _HOP = 256, 128
_STRIDES = {"conv1": 1, "conv2": 2, "conv3": 2, "conv4": 1}


def load(path: str | os.PathLike[str] | None = None) -> Params:
  """Reads the published weights; see `weights.registry.load`."""
  return convert(weights_lib.load("silero", path))


def convert(state: State) -> Params:
  """Converts a PyTorch state dict: kernels [k, in, out], matrices [in, out]."""
  return {
    name: jnp.asarray(value.T if value.ndim > 1 else value, jnp.float32)
    for name, value in state.items()
  }


def apply(params: Params, waveform: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Counts the seconds in which speech is more likely than not.

  Args are those of `probabilities`.

  Returns:
    (seconds float32 [b, 1], class logits [b, 0]: there are none).
  """
  speaks = probabilities(params, waveform) > 0.5
  seconds = speaks.sum(axis=1, keepdims=True) * (CHUNK / SAMPLE_RATE)
  return seconds, seconds[:, :0]


def probabilities(params: Params, waveform: jax.Array) -> jax.Array:
  """Computes the probability of speech in each chunk.

  Args:
    params: from `load` or `convert`.
    waveform: float32 [b, samples] at 16 kHz; mono, in [-1, 1]. The last chunk
      is padded with silence.

  Returns:
    float32 [b, chunks], in 0..1.
  """
  x = jnp.pad(waveform, ((0, 0), (_CONTEXT, -waveform.shape[1] % CHUNK)))
  x = spectrum.frames(x, _CONTEXT + CHUNK, CHUNK)
  batch, chunks, _ = x.shape
  x = jnp.pad(x, ((0, 0), (0, 0), (0, _REFLECTED)), mode="reflect")
  x = spectrum.frames(x.reshape(batch * chunks, -1), _FFT, _HOP)
  basis = params["stft_conv.weight"][:, 0]
  real, imaginary = jnp.split(jnp.matmul(x, basis, precision="highest"), 2, -1)
  x = jnp.sqrt(real**2 + imaginary**2)
  for name, stride in _STRIDES.items():
    x = jax.nn.relu(_conv(params, name, x, stride))
  hidden = _recur(params, x.reshape(batch, chunks, -1))
  logits = jax.nn.relu(hidden) @ params["final_conv.weight"][0]
  return jax.nn.sigmoid(logits[..., 0] + params["final_conv.bias"])


def _conv(params: Params, name: str, x: jax.Array, stride: int) -> jax.Array:
  """Convolves [b, t, in] with a kernel of three steps, padded by one."""
  y = jax.lax.conv_general_dilated(
    x,
    params[f"{name}.weight"],
    window_strides=(stride,),
    padding=((1, 1),),
    dimension_numbers=("NWC", "WIO", "NWC"),
    precision="highest",
  )
  return y + params[f"{name}.bias"]


def _recur(params: Params, x: jax.Array) -> jax.Array:
  """Runs the LSTM over time: [b, t, in] to [b, t, out]."""
  bias = params["lstm_cell.bias_ih"] + params["lstm_cell.bias_hh"]
  inputs = jnp.matmul(x, params["lstm_cell.weight_ih"], precision="highest")

  def step(state, at):
    hidden, cell = state
    gates = at + jnp.matmul(
      hidden, params["lstm_cell.weight_hh"], precision="highest"
    )
    enter, forget, new, leave = jnp.split(gates, 4, axis=-1)
    cell = jax.nn.sigmoid(forget) * cell
    cell = cell + jax.nn.sigmoid(enter) * jnp.tanh(new)
    hidden = jax.nn.sigmoid(leave) * jnp.tanh(cell)
    return (hidden, cell), hidden

  start = jnp.zeros((len(x), len(bias) // 4))
  _, hidden = jax.lax.scan(
    step, (start, start), jnp.swapaxes(inputs + bias, 0, 1)
  )
  return jnp.swapaxes(hidden, 0, 1)
