"""PaSST-S, an AudioSet transformer.

A vision transformer on overlapping 16x16 patches of 10 s of log-mel
spectrogram: 86 M parameters, 768 features, logits of 527 classes; 47.6 mAP. With
patches z_ft of band f and time t, positions p_f + p_t, and two tokens c and d

  x = [c + p_c, d + p_d, z_ft + p_f + p_t];  per layer
  x = x + attend(norm(x)),  x = x + W_2 gelu(W_1 norm(x) + b_1) + b_2;
  feature = the mean of c and d after the last norm

Koutini et al., "Efficient training of audio transformers with patchout",
https://arxiv.org/abs/2110.05069. Weights: https://github.com/kkoutini/PaSST
(Apache-2.0). Its front end is that of mn04.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.pretrained import convnet, mn04
from v2a_jax.pretrained.convnet import Params, State
from v2a_jax.weights import registry as weights_lib

SAMPLE_RATE = mn04.SAMPLE_RATE
EMBEDDING_DIM, NUM_CLASSES = 768, 527

_HEAD_DIM, _STRIDE = 64, 10
_DENSE = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
log_mel = mn04.log_mel


def load(path: str | os.PathLike[str] | None = None) -> Params:
  """Reads the published weights; see `weights.registry.load`."""
  return convert(weights_lib.load("passt", path))


def convert(state: State) -> Params:
  """Converts a PyTorch state dict."""
  tokens = np.concatenate([state["cls_token"], state["dist_token"]], axis=1)
  to_channels_last = lambda name: state[name][0].transpose(1, 2, 0)
  params = {
    "tokens": tokens[0] + state["new_pos_embed"][0],
    "bands": to_channels_last("freq_new_pos_embed"),
    "times": to_channels_last("time_new_pos_embed"),
  } | convnet.layer(state, "patch_embed.proj")
  norms = ["norm", "head.0"]
  for index in range(convnet.count(state, "blocks.")):
    norms += [f"blocks.{index}.norm1", f"blocks.{index}.norm2"]
    for name in _DENSE:
      params |= convnet.layer(state, f"blocks.{index}.{name}")
  for name in norms:
    params |= convnet.norm(state, name)
  params |= convnet.layer(state, "head.1")
  return {name: jnp.asarray(value) for name, value in params.items()}


def _attend(params: Params, name: str, x: jax.Array) -> jax.Array:
  b, t, width = x.shape
  qkv = convnet.dense(params, f"{name}.qkv", x)
  q, k, v = jnp.moveaxis(qkv.reshape(b, t, 3, -1, _HEAD_DIM), 2, 0)
  with jax.default_matmul_precision("highest"):
    y = jax.nn.dot_product_attention(q, k, v)
  return convnet.dense(params, f"{name}.proj", y.reshape(b, t, width))


def _block(params: Params, name: str, x: jax.Array) -> jax.Array:
  norm = functools.partial(convnet.layer_norm, params, epsilon=1e-6)
  x = x + _attend(params, f"{name}.attn", norm(f"{name}.norm1", x))
  y = convnet.dense(params, f"{name}.mlp.fc1", norm(f"{name}.norm2", x))
  y = jax.nn.gelu(y, approximate=False)
  return x + convnet.dense(params, f"{name}.mlp.fc2", y)


def patches(params: Params, mel: jax.Array) -> jax.Array:
  """Embeds patches of [b, 128 bands, frames], to [b, bands, times, width].

  What is beyond the last learned time, 10 s, is left out.
  """
  kernel = params["patch_embed.proj/w"]
  x = jax.lax.conv_general_dilated(
    mel[..., None],
    kernel,
    window_strides=(_STRIDE, _STRIDE),
    padding="VALID",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    precision="highest",
  )
  times = params["times"]
  x = (x + params["patch_embed.proj/b"])[:, :, : times.shape[1]]
  return x + params["bands"] + times[:, : x.shape[2]]


def encode(params: Params, mel: jax.Array) -> jax.Array:
  """Runs the transformer on [b, 128, frames], to features [b, width]."""
  x = patches(params, mel)
  b, width = x.shape[0], x.shape[-1]
  tokens = jnp.broadcast_to(params["tokens"], (b, 2, width))
  x = jnp.concatenate([tokens, x.reshape(b, -1, width)], axis=1)
  for index in range(convnet.count(params, "blocks.")):
    x = _block(params, f"blocks.{index}", x)
  x = convnet.layer_norm(params, "norm", x[:, :2], epsilon=1e-6)
  return x.mean(axis=1)


def apply(params: Params, waveform: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Embeds and tags sounds.

  Args:
    params: from `load` or `convert`.
    waveform: float32 [b, samples] at 32 kHz; mono, in [-1, 1], of at most 10 s;
      it was trained on 10 s, with shorter sounds padded with silence.

  Returns:
    (embeddings float32 [b, 768], class logits float32 [b, 527] in AudioSet's
    order).
  """
  embedding = encode(params, log_mel(waveform))
  hidden = convnet.layer_norm(params, "head.0", embedding, epsilon=1e-5)
  return embedding, convnet.dense(params, "head.1", hidden)
