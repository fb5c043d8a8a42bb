"""Named tensors of a safetensors file, compared with what a model expects.

Files whose sha256 nobody here knows are still not taken on trust: each tensor
is there, with its shape, and there is no other.
"""

from collections.abc import Mapping
import os
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from v2a_jax.weights import names, registry

# Length g and direction v of a weight w = g v / |v|: old and new PyTorch.
_WEIGHT_NORM = (
  (".weight_g", ".weight_v"),
  (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
)


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """All tensors of a file, by name.

  Raises:
    MissingWeightsError: there is no such file.
    WrongWeightsError: it is cut short or not a safetensors file.
  """
  if not os.path.isfile(path):
    raise registry.MissingWeightsError(
      f"{os.fspath(path)}: there is no such file; download it, or name another"
      " folder"
    )
  try:
    return safetensors.load_file(path)
  except (OSError, SafetensorError) as error:
    raise registry.WrongWeightsError(
      f"{os.fspath(path)}: not a whole safetensors file ({error}); get it again"
    ) from None


def check(
  tensors: Mapping[str, Any],
  shapes: Mapping[str, Any],
  source: str | os.PathLike[str],
) -> None:
  """Compares tensors with the names and shapes that a model expects.

  Args:
    tensors: objects with a shape, by name.
    shapes: the model's shapes, by name.
    source: file or folder that the tensors are from, for the message.

  Raises:
    WrongWeightsError: names everything missing, extra or misshapen.
  """
  if faults := names.compare(tensors, shapes):
    raise registry.WrongWeightsError(
      f"{os.fspath(source)} is not of this model: {faults}"
    )


def fold_weight_norm(
  tensors: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
  """The same tensors with each pair of weight norm as one `….weight`.

  w = g v / |v|, the norm over all axes but the first (Salimans and Kingma,
  https://arxiv.org/abs/1602.07868). What is no pair stays as it is.
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
