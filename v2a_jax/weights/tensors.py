"""Named tensors of a safetensors file, compared with what a model expects.

Files whose sha256 nobody here knows are still not taken on trust: each tensor
is there, with its shape, and there is no other.
"""

from collections.abc import Mapping
import os

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from v2a_jax.weights import mismatch
from v2a_jax.weights import registry as weights

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
    raise weights.MissingWeightsError(
      f"{os.fspath(path)}: there is no such file; download it, or name another"
      " folder"
    )
  try:
    return safetensors.load_file(path)
  except (OSError, SafetensorError) as error:
    raise weights.WrongWeightsError(
      f"{os.fspath(path)}: not a whole safetensors file ({error}); get it again"
    ) from None


def check(
  tensors: Mapping[str, np.ndarray],
  shapes: Mapping[str, tuple[int, ...]],
  source: str | os.PathLike[str],
) -> None:
  """Compares tensors with the names and shapes that a model expects.

  Args:
    tensors: by name.
    shapes: what each must be.
    source: where the tensors are from, for the message.

  Raises:
    WrongWeightsError: one line that names everything missing, extra or
      misshapen.
  """
  if told := mismatch.faults(tensors, shapes):
    raise weights.WrongWeightsError(
      f"{os.fspath(source)} is not of this model: {told}"
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
