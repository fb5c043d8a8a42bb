"""Weights that come from elsewhere: found, checked, converted, never assumed.

A file is looked for, in this order: at a path given by the caller; in the
folders (or files) that the environment variable `V2A_WEIGHTS` lists, separated
like `PATH`; in the cache, `$V2A_CACHE/weights` or `~/.cache/v2a_jax/weights`.
Its sha256 must be the one written here. Only `fetch` uses the network.

PyTorch files are converted once to safetensors in the cache, by a reader that
runs no code (see torch_file.py); beside the converted file lies its own sha256
and that of its source.
"""

from collections.abc import Iterator
import dataclasses
import hashlib
import json
import os
import pathlib
import urllib.request
import warnings

import numpy as np
from safetensors import numpy as safetensors

from v2a_jax.basics import files
from v2a_jax.weights import torch_file

PATH_VARIABLE = "V2A_WEIGHTS"
CACHE_VARIABLE = "V2A_CACHE"
_CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
  """One file of someone else's weights.

  Attributes:
    name: what the project calls it.
    file: the file's name as its makers publish it.
    sha256: of that file.
    bytes: its size.
    url: where `fetch` gets it.
    licence: SPDX identifier of the weights.
    about: one line for a listing.
  """

  name: str
  file: str
  sha256: str
  bytes: int
  url: str
  licence: str
  about: str

  @property
  def converted(self) -> str:
    return pathlib.Path(self.file).stem + ".safetensors"


WEIGHTS = {
  weights.name: weights
  for weights in [
    Weights(
      name="mn04",
      file="mn04_as_mAP_432.pt",
      sha256=(
        "899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c"
      ),
      bytes=4_066_513,
      url=(
        "https://github.com/fschmid56/EfficientAT/releases/download/"
        "v0.0.1/mn04_as_mAP_432.pt"
      ),
      licence="MIT",
      about="EfficientAT MobileNetV3, AudioSet classes, 32 kHz, for FAD",
    )
  ]
}


class MissingWeightsError(FileNotFoundError):
  """The weights are on no path; the message says where to get them."""


class WrongWeightsError(ValueError):
  """A file has the right name and the wrong content."""


def get(name: str) -> Weights:
  """The registry's entry.

  Raises:
    KeyError: no such name; the message lists the names.
  """
  if name not in WEIGHTS:
    known = ", ".join(sorted(WEIGHTS))
    raise KeyError(f"no weights are named '{name}'; there are: {known}")
  return WEIGHTS[name]


def cache_root() -> pathlib.Path:
  """Where what can be made again is kept: `$V2A_CACHE` or ~/.cache/v2a_jax."""
  root = os.environ.get(CACHE_VARIABLE) or "~/.cache/v2a_jax"
  return pathlib.Path(root).expanduser()


def cache_dir() -> pathlib.Path:
  """The weights' folder in the cache."""
  return cache_root() / "weights"


def _places(weights: Weights) -> Iterator[pathlib.Path]:
  listed = os.environ.get(PATH_VARIABLE, "").split(os.pathsep)
  for place in [*filter(None, listed), cache_dir()]:
    place = pathlib.Path(place).expanduser()
    yield place if place.name == weights.file else place / weights.file


def find(name: str, path: str | os.PathLike[str] | None = None) -> pathlib.Path:
  """The weights' file, its content checked.

  Args:
    name: an entry of `WEIGHTS`.
    path: the file itself, or its folder; None looks in the usual places.

  Raises:
    MissingWeightsError: it is nowhere.
    WrongWeightsError: it is there with another sha256.
  """
  weights = get(name)
  if path is None:
    places = list(_places(weights))
  else:
    path = pathlib.Path(path).expanduser()
    places = [path / weights.file if path.is_dir() else path]
  for place in places:
    if place.is_file():
      return _check(place, weights.sha256, f"{weights.name} weights have")
  raise MissingWeightsError(
    f"weights '{name}' not found (looked for"
    f" {', '.join(map(str, places))}): run `v2a weights fetch {name}`, or"
    f" download {weights.url} (sha256 {weights.sha256}) and set"
    f" {PATH_VARIABLE} to its folder"
  )


def _check(path: pathlib.Path, sha256: str, whose: str) -> pathlib.Path:
  found = files.sha256_of(path)
  if found != sha256:
    raise WrongWeightsError(
      f"{path}: sha256 is {found}, but the {whose} {sha256}; remove the file"
      " and get it again with `v2a weights fetch`"
    )
  return path


def load(
  name: str, path: str | os.PathLike[str] | None = None
) -> dict[str, np.ndarray]:
  """The weights as arrays by name, converted at the first call.

  Where the cache cannot be written the weights are still read, with a warning.

  Raises:
    MissingWeightsError, WrongWeightsError: see `find`.
  """
  weights = get(name)
  converted = cache_dir() / weights.converted
  record = converted.with_suffix(".json")
  if path is None and converted.is_file() and record.is_file():
    recorded = json.loads(record.read_text())
    if recorded["source_sha256"] == weights.sha256:
      _check(converted, recorded["sha256"], "file was recorded with")
      return safetensors.load_file(converted)
  source = find(name, path)
  try:
    return safetensors.load_file(convert(name, source))
  except OSError as error:
    warnings.warn(f"converted weights are not kept: {error}", stacklevel=2)
    return _read(source)


def _read(source: pathlib.Path) -> dict[str, np.ndarray]:
  """Floating-point tensors only: the rest counts training batches."""
  tensors = torch_file.read(source)
  return {k: v for k, v in tensors.items() if v.dtype.kind == "f"}


def convert(
  name: str,
  path: str | os.PathLike[str] | None = None,
  *,
  out: str | os.PathLike[str] | None = None,
) -> pathlib.Path:
  """Writes the weights as safetensors, with a record of both sha256.

  Args:
    name: an entry of `WEIGHTS`.
    path: see `find`.
    out: the folder to write into; None is the cache.

  Returns:
    The safetensors file.
  """
  weights = get(name)
  source = find(name, path)
  folder = cache_dir() if out is None else pathlib.Path(out).expanduser()
  target = folder / weights.converted
  metadata = {
    "source": weights.url,
    "source_sha256": weights.sha256,
    "licence": weights.licence,
  }
  data = safetensors.save(_read(source), metadata=metadata)
  record = metadata | {"sha256": hashlib.sha256(data).hexdigest()}
  folder.mkdir(parents=True, exist_ok=True)
  files.write_whole(target, data)
  files.write_json(target.with_suffix(".json"), record)
  return target


def fetch(
  name: str,
  *,
  out: str | os.PathLike[str] | None = None,
  timeout_seconds: float = 60.0,
) -> pathlib.Path:
  """Downloads the weights into the cache; the only use of the network.

  Nothing is left behind if the download fails, is longer than the entry says,
  or has another sha256.

  Raises:
    OSError: no connection, or no room; the message names the address.
    WrongWeightsError: what came is not what is written here.
  """
  weights = get(name)
  folder = cache_dir() if out is None else pathlib.Path(out).expanduser()
  target = folder / weights.file
  try:
    with urllib.request.urlopen(weights.url, timeout=timeout_seconds) as reply:
      data = reply.read(weights.bytes + 1)
  except OSError as error:
    raise OSError(
      f"weights '{name}' could not be fetched from {weights.url}: {error};"
      f" download them by other means and set {PATH_VARIABLE} to the folder"
    ) from None
  found = hashlib.sha256(data).hexdigest()
  if found != weights.sha256:
    raise WrongWeightsError(
      f"{weights.url}: sha256 is {found}, but the {name} weights have"
      f" {weights.sha256}; nothing was kept"
    )
  folder.mkdir(parents=True, exist_ok=True)
  files.write_whole(target, data)
  return target


def listing() -> list[dict[str, str]]:
  """What `v2a weights list` and `v2a doctor` show: one dict an entry.

  Each has `name`, `file`, `sha256`, `url`, `licence`, `about`, `state` (one of
  `found`, `converted`, `missing`, `wrong`) and `path` (empty when missing).
  """
  return [_state(weights) for weights in WEIGHTS.values()]


def _state(weights: Weights) -> dict[str, str]:
  entry = dataclasses.asdict(weights)
  try:
    return entry | {"state": "found", "path": str(find(weights.name))}
  except WrongWeightsError as error:
    return entry | {"state": "wrong", "path": str(error).split(": sha256")[0]}
  except MissingWeightsError:
    converted = cache_dir() / weights.converted
    if converted.is_file():
      return entry | {"state": "converted", "path": str(converted)}
    return entry | {"state": "missing", "path": ""}
