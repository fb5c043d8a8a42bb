"""Outputs of MMAudio's networks for drawn weights, in a folder of their own.

The folder is `$V2A_MMAUDIO_REFERENCE`, or else `../shared/mmaudio` beside the
repository. NAME.json holds the shapes of a network's tensors, NAME.npz inputs
and outputs that the original computed, and `salt` a word from which the tensors
are drawn, each by its name.
"""

import json
import os
import pathlib
import zlib

import numpy as np
import pytest

VARIABLE = "V2A_MMAUDIO_REFERENCE"
_BESIDE = pathlib.Path(__file__).parents[3] / "shared" / "mmaudio"
_FILTER = "activation_post_downsample_lowpass_filter"


def folder() -> pathlib.Path:
  """Returns the folder; skips the test where there is none."""
  path = pathlib.Path(os.environ.get(VARIABLE) or _BESIDE)
  if not (path / "salt").is_file():
    pytest.skip(f"no reference of MMAudio in {path}; set {VARIABLE}")
  return path


def draw(name, shape, scale=1.0):
  """Draws normal float32 numbers that depend on the salt and the name."""
  salt = (folder() / "salt").read_text().strip()
  rng = np.random.default_rng(zlib.crc32((salt + name).encode()))
  return (scale * rng.standard_normal(tuple(shape))).astype(np.float32)


def shapes(reference) -> dict[str, tuple[int, ...]]:
  """Reads the published shapes of a network's tensors, by name."""
  found = json.loads((folder() / f"{reference}.json").read_text())["tensors"]
  return {name: tuple(shape) for name, shape in found.items()}


def outputs(reference) -> dict[str, np.ndarray]:
  """Reads the inputs and outputs of a network."""
  with np.load(folder() / f"{reference}.npz") as file:
    return dict(file)


def weights(reference) -> dict[str, np.ndarray]:
  """Returns the state dict with which `outputs` were computed."""
  vocoder = reference.startswith("bigvgan")
  given = outputs(reference)
  state = {}
  for name, shape in shapes(reference).items():
    if name.endswith(".filter"):
      state[name] = given[_FILTER]
    elif name in ("data_mean", "data_std"):
      state[name] = given[name]
    else:
      state[name] = _tensor(name, shape, vocoder)
  return state


def _tensor(name, shape, vocoder) -> np.ndarray:
  """Draws a tensor; a vocoder's gains are small so that nothing clips."""
  gain = name.endswith("original0")
  flat = ("original0", "_norm.weight", "latent_mean", "latent_std")
  if len(shape) >= 2 and not name.endswith(flat):
    value = draw(name, shape, float(np.prod(shape[1:])) ** -0.5)
  elif name.endswith("latent_std"):
    value = np.exp(draw(name, shape, 0.1))
  elif gain or ("norm" in name and name.endswith("weight")):
    value = 1.0 + draw(name, shape, 0.1)
  else:
    value = draw(name, shape, 0.1)
  if vocoder and gain:
    value = value * (0.05 if "conv_post" in name else 0.4)
  return np.asarray(value, np.float32)


def difference(got, wanted) -> float:
  """Returns the relative L2 distance; shapes must agree."""
  got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
  assert got.shape == wanted.shape, (got.shape, wanted.shape)
  return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))
