"""Layers of published audio networks, with batch norms folded.

Weights are never trained here, so a network is a dict of arrays by the
original's layer names: `NAME/w`, [h, w, in, out] or [in, out], and `NAME/b`,
[out]. Pictures are [b, h, w, c]. Products are full float32 on every device.
"""

from collections.abc import Iterable, Mapping
import re

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

Params = dict[str, jax.Array]
State = Mapping[str, np.ndarray]


def layer(state: State, name: str) -> Params:
  """Converts a PyTorch convolution or dense layer."""
  kernel, bias = state[f"{name}.weight"], state.get(f"{name}.bias")
  kernel = kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T
  if bias is None:
    bias = np.zeros(kernel.shape[-1])
  return _params(name, kernel, bias)


def folded(state: State, name: str, norm: str, *, epsilon: float) -> Params:
  """Converts a PyTorch convolution without bias and the batch norm after it."""
  scale, shift = norm_affine(state, norm, epsilon=epsilon)
  kernel = state[f"{name}.weight"] * scale[:, None, None, None]
  return _params(name, kernel.transpose(2, 3, 1, 0), shift)


def norm_affine(state: State, norm: str, *, epsilon: float):
  """Returns scale and shift [c] that a batch norm in inference is."""
  variance = state[f"{norm}.running_var"] + epsilon
  scale = state[f"{norm}.weight"] / np.sqrt(variance)
  return scale, state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale


def norm(state: State, name: str) -> Params:
  """Converts a layer norm, which `layer_norm` runs."""
  return {
    f"{name}/scale": jnp.asarray(state[f"{name}.weight"], jnp.float32),
    f"{name}/shift": jnp.asarray(state[f"{name}.bias"], jnp.float32),
  }


def count(names: Iterable[str], start: str) -> int:
  """Counts the parts that are named `start` and an index."""
  rest = (name[len(start) :] for name in names if name.startswith(start))
  return len({re.split("[./]", name)[0] for name in rest})


def _params(name, kernel, bias) -> Params:
  return {
    f"{name}/w": jnp.asarray(kernel, jnp.float32),
    f"{name}/b": jnp.asarray(bias, jnp.float32),
  }


def conv(
  params: Params, name: str, x: jax.Array, *, stride: int = 1, padding=None
) -> jax.Array:
  """Convolves; depthwise if the kernel is.

  Args:
    params: weights by name.
    name: name of the layer.
    x: [b, h, w, c].
    stride: stride of both axes.
    padding: "SAME" as TensorFlow pads; None for half the kernel on both sides,
      as PyTorch networks do.
  """
  kernel = params[f"{name}/w"]
  half = kernel.shape[0] // 2
  y = lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(stride, stride),
    padding=padding or ((half, half), (half, half)),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=x.shape[-1] // kernel.shape[2],
    precision="highest",
  )
  return y + params[f"{name}/b"]


def dense(params: Params, name: str, x: jax.Array) -> jax.Array:
  """Maps [..., in] to [..., out]."""
  product = jnp.matmul(x, params[f"{name}/w"], precision="highest")
  return product + params[f"{name}/b"]


def layer_norm(
  params: Params, name: str, x: jax.Array, *, epsilon: float
) -> jax.Array:
  """Normalises the last axis, with gain and bias."""
  x = x - x.mean(axis=-1, keepdims=True)
  x = x / jnp.sqrt(jnp.square(x).mean(axis=-1, keepdims=True) + epsilon)
  return x * params[f"{name}/scale"] + params[f"{name}/shift"]


def max_pool(x: jax.Array, size: int = 2) -> jax.Array:
  """Takes the largest of each size x size square; leaves out the rest."""
  return _squares(x, size).max((2, 4))


def mean_pool(x: jax.Array, size: int = 2) -> jax.Array:
  """Averages each size x size square; leaves out the rest."""
  return _squares(x, size).mean((2, 4))


def _squares(x: jax.Array, size: int) -> jax.Array:
  b, h, w, c = x.shape
  x = x[:, : h // size * size, : w // size * size]
  return x.reshape(b, h // size, size, w // size, size, c)


def double_conv(params: Params, name: str, x: jax.Array) -> jax.Array:
  """Runs two convolutions with ReLU, the block of PANNs and their kin."""
  for part in (f"{name}.conv1", f"{name}.conv2"):
    x = jax.nn.relu(conv(params, part, x))
  return x


def double_conv_params(state: State, name: str) -> Params:
  """Converts the block that `double_conv` runs."""
  parts = [
    folded(state, f"{name}.conv{i}", f"{name}.bn{i}", epsilon=1e-5)
    for i in (1, 2)
  ]
  return parts[0] | parts[1]
