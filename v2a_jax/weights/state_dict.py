"""Modules whose layers are named as in a published PyTorch state dict.

A parameter `encoder/block/0/conv1/kernel` [..., in, out] is the tensor
`encoder.block.0.conv1.weight` [out, in, ...]; a `scale` or an `embedding` is
published as `weight` too, and other parameters have their own names.
"""

from collections.abc import Mapping

from flax import nnx
import jax.numpy as jnp
import numpy as np

from v2a_jax.weights import names
from v2a_jax.weights.tables import LEAVES

# Length g and direction v of a weight w = g v / |v|: old and new PyTorch.
_WEIGHT_NORM = (
  (".weight_g", ".weight_v"),
  (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
)


def shapes(module: nnx.Module) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of a module's tensors as published, by name."""
  leaves = names.flatten(nnx.state(module, nnx.Param))
  return {
    _tensor(name): leaf.shape[::-1] if name[-1] == "kernel" else leaf.shape
    for name, leaf in leaves.items()
  }


def fill(module: nnx.Module, tensors: Mapping[str, np.ndarray]) -> None:
  """Sets a module's parameters, which may be shapes, to published tensors.

  Args:
    module: module whose every parameter has a tensor.
    tensors: arrays of the shapes that `shapes` says, or with other axes of
      size 1.
  """
  params = nnx.state(module, nnx.Param)
  arrays = {}
  for name, leaf in names.flatten(params).items():
    tensor = tensors[_tensor(name)]
    tensor = tensor.T if name[-1] == "kernel" else tensor.reshape(leaf.shape)
    arrays[name] = jnp.asarray(tensor, leaf.dtype)
  nnx.update(module, names.fill(params, arrays))


def _tensor(name: names.Name) -> str:
  *layer, leaf = name
  return ".".join([*layer, LEAVES.get(leaf, leaf)])


def fold_weight_norm(
  tensors: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
  """Replaces each pair of weight normalisation by one `….weight`.

  w = g v / |v|, with the norm over all axes but the first (Salimans and Kingma,
  https://arxiv.org/abs/1602.07868). Other tensors stay as they are.
  """
  folded = dict(tensors)
  for length, direction in _WEIGHT_NORM:
    for name in [name for name in tensors if name.endswith(length)]:
      layer = name.removesuffix(length)
      g, v = tensors[name], tensors.get(layer + direction)
      if v is None or g.shape != (len(v), *(1,) * (v.ndim - 1)):
        continue
      norm = np.sqrt(np.square(v).sum(tuple(range(1, v.ndim)), keepdims=True))
      folded[f"{layer}.weight"] = g * v / norm
      del folded[name], folded[layer + direction]
  return folded
