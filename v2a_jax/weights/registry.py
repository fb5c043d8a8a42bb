"""Published weight files: found, checked by sha256, converted, downloaded.

A file is searched for at the path that the caller gives; or else in the folders
(or files) that the environment variable `V2A_WEIGHTS` lists, separated like
`PATH`, and then in the cache, `$V2A_CACHE/weights` or
`~/.cache/v2a_jax/weights`. Its sha256 must be the one in `WEIGHTS`. Only
`fetch` uses the network.

PyTorch files are converted once to safetensors in the cache, by a reader that
runs no code (torch_file.py); a JSON file beside the converted one records its
sha256 and that of its source.
"""

from collections.abc import Iterator
import dataclasses
import hashlib
import os
import pathlib
import urllib.request
import warnings

import numpy as np
from safetensors import numpy as safetensors

from v2a_jax.basics import cache, files
from v2a_jax.basics.paths import PathError, as_path
from v2a_jax.weights import torch_file

PATH_VARIABLE = "V2A_WEIGHTS"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
  """A published weight file.

  Attributes:
    name: its name in this project.
    file: published file name.
    sha256: sha256 of the file, in hexadecimal.
    bytes: size of the file in bytes.
    url: address that `fetch` downloads.
    licence: SPDX identifier of the weights' licence.
    about: one-line description.
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
    """File name after conversion."""
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
  """A weight file is not found; the message says where to get it."""


class WrongWeightsError(ValueError):
  """A weight file has other content than expected."""


def get(name: str) -> Weights:
  """Returns an entry of `WEIGHTS`.

  Raises:
    KeyError: there is no such name; lists those that exist.
  """
  if name not in WEIGHTS:
    known = ", ".join(sorted(WEIGHTS))
    raise KeyError(f"no weights are named '{name}'; there are: {known}")
  return WEIGHTS[name]


def cache_dir() -> pathlib.Path:
  """Returns the folder of weights in the cache."""
  return cache.root() / "weights"


def _places(weights: Weights) -> Iterator[pathlib.Path]:
  listed = os.environ.get(PATH_VARIABLE, "")
  if "://" in listed:  # The colon separates folders.
    raise PathError(
      f"{PATH_VARIABLE}={listed}: lists folders of this machine; name a URL in"
      " the command"
    )
  listed = listed.split(os.pathsep)
  for place in [*filter(None, listed), cache_dir()]:
    place = pathlib.Path(place).expanduser()
    yield place if place.name == weights.file else place / weights.file


def find(name: str, path: str | os.PathLike[str] | None = None) -> pathlib.Path:
  """Returns the path of a weight file whose sha256 is right.

  Args:
    name: key of `WEIGHTS`.
    path: the file or its folder; None searches `V2A_WEIGHTS` and the cache.

  Raises:
    MissingWeightsError: the file is not found.
    WrongWeightsError: it has another sha256.
  """
  weights = get(name)
  if path is None:
    places = list(_places(weights))
  else:
    path = as_path(path).expanduser()
    places = [path / weights.file if path.is_dir() else path]
  for place in places:
    if place.is_file():
      whose = f"{weights.name} weights have"
      return _check(cache.fetch(place), weights.sha256, whose)
  raise MissingWeightsError(
    f"weights '{name}' not found (looked for"
    f" {', '.join(map(str, places))}): run `v2a weights fetch {name}`, or"
    f" download {weights.url} (sha256 {weights.sha256}) and set"
    f" {PATH_VARIABLE} to its folder"
  )


def _check(path: pathlib.Path, sha256: str, whose: str) -> pathlib.Path:
  digest = files.sha256_of(path)
  if digest != sha256:
    raise WrongWeightsError(
      f"{path}: sha256 is {digest}, but the {whose} {sha256}; remove the file"
      " and get it again with `v2a weights fetch`"
    )
  return path


def load(
  name: str, path: str | os.PathLike[str] | None = None
) -> dict[str, np.ndarray]:
  """Reads floating-point arrays by name; converts them at the first call.

  If the cache cannot be written, warns and reads the source itself.

  Raises:
    MissingWeightsError, WrongWeightsError: see `find`.
  """
  weights = get(name)
  converted = cache_dir() / weights.converted
  record = converted.with_suffix(".json")
  if path is None and converted.is_file() and record.is_file():
    recorded = files.read_json(record)
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
  """Reads floating-point tensors only: the others count training batches."""
  tensors = torch_file.read(source)
  return {k: v for k, v in tensors.items() if v.dtype.kind == "f"}


def convert(
  name: str,
  path: str | os.PathLike[str] | None = None,
  *,
  out: str | os.PathLike[str] | None = None,
) -> pathlib.Path:
  """Converts weights to safetensors, with a record of both sha256.

  Args:
    name: key of `WEIGHTS`.
    path: see `find`.
    out: output folder; None for the cache.
  """
  weights = get(name)
  source = find(name, path)
  target = _output_folder(out) / weights.converted
  metadata = {
    "source": weights.url,
    "source_sha256": weights.sha256,
    "licence": weights.licence,
  }
  data = safetensors.save(_read(source), metadata=metadata)
  record = metadata | {"sha256": hashlib.sha256(data).hexdigest()}
  files.write_whole(target, data)
  files.write_json(target.with_suffix(".json"), record)
  return target


def _output_folder(out: str | os.PathLike[str] | None) -> pathlib.Path:
  folder = cache_dir() if out is None else as_path(out).expanduser()
  folder.mkdir(parents=True, exist_ok=True)
  return folder


def fetch(
  name: str,
  *,
  out: str | os.PathLike[str] | None = None,
  timeout_seconds: float = 60.0,
) -> pathlib.Path:
  """Downloads weights; writes nothing unless their sha256 is right.

  Args:
    name: key of `WEIGHTS`.
    out: output folder; None for the cache.
    timeout_seconds: longest wait for the server, in seconds.

  Raises:
    OSError: no connection, or the disk is full; names the address.
    WrongWeightsError: the download has another size or sha256.
  """
  weights = get(name)
  try:
    with urllib.request.urlopen(weights.url, timeout=timeout_seconds) as reply:
      data = reply.read(weights.bytes + 1)
  except OSError as error:
    raise OSError(
      f"weights '{name}' could not be fetched from {weights.url}: {error};"
      f" download them by other means and set {PATH_VARIABLE} to the folder"
    ) from None
  digest = hashlib.sha256(data).hexdigest()
  if digest != weights.sha256:
    raise WrongWeightsError(
      f"{weights.url}: sha256 is {digest}, but the {name} weights have"
      f" {weights.sha256}; nothing was kept"
    )
  target = _output_folder(out) / weights.file
  files.write_whole(target, data)
  return target


def listing() -> list[dict[str, str]]:
  """Lists the entries of `WEIGHTS` with the state of their files.

  Returns:
    One dict an entry: the fields of `Weights`, `state` (`found`, `converted`,
    `missing` or `wrong`) and `path` ("" if missing).
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
