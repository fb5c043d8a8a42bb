"""Published weight files: found, checked by sha256, converted, downloaded.

A file is searched for at the path that the caller gives; or else in the folders
(or files) that the environment variable `V2A_WEIGHTS` lists, separated like
`PATH`, and then in the cache, `$V2A_CACHE/weights` or
`~/.cache/v2a_jax/weights`. Its sha256 must be the one in `WEIGHTS`. Only
`fetch` uses the network.

Files are converted once to safetensors in the cache, by readers that run no
code, in a process of their own (reading.py); a JSON file beside the converted
one records its sha256 and that of its source.
"""

from collections.abc import Collection, Iterator
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import tempfile
from typing import Any
import warnings
import zipfile
import zlib

import numpy as np
from safetensors import safe_open

from v2a_jax.basics import cache, files
from v2a_jax.basics.paths import PathError, as_path
from v2a_jax.weights import download, reading
from v2a_jax.weights.catalog import WEIGHTS, Weights

PATH_VARIABLE = "V2A_WEIGHTS"


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
  others = {of.file for of in WEIGHTS.values()} - {weights.file}
  for place in places:
    if place.is_file() and place.name not in others:
      return _check(cache.fetch(place), weights)
  raise MissingWeightsError(
    f"weights '{name}' not found (looked for"
    f" {', '.join(map(str, places))}): run `v2a weights fetch {name}`, or"
    f" download {weights.url} (sha256 {weights.sha256}) and set"
    f" {PATH_VARIABLE} to its folder"
  )


def _check(path: pathlib.Path, weights: Weights) -> pathlib.Path:
  digest = _content_sha256(path, weights)
  if not digest.startswith(weights.sha256):
    raise WrongWeightsError(
      f"{path}: sha256 is {digest}, but the {weights.name} weights have"
      f" {weights.sha256}; remove the file and get it again with `v2a weights"
      " fetch`"
    )
  return path


def _content_sha256(path: pathlib.Path, weights: Weights) -> str:
  """Returns the sha256 of the weights in a file."""
  if not reading.has_member(path, weights.member):
    return files.sha256_of(path)
  digest, left = hashlib.sha256(), weights.bytes + 1
  try:
    with zipfile.ZipFile(path) as archive, archive.open(weights.member) as file:
      while left and (chunk := file.read(min(left, 1 << 20))):
        digest.update(chunk)
        left -= len(chunk)
  except (zipfile.BadZipFile, EOFError, zlib.error) as error:
    raise WrongWeightsError(f"{path} is damaged: {error}") from None
  return digest.hexdigest()


def load(
  name: str,
  path: str | os.PathLike[str] | None = None,
  *,
  only: Collection[str] = (),
) -> dict[str, np.ndarray]:
  """Reads floating-point arrays by name; converts them at the first call.

  If the cache cannot be written, warns and reads the source itself.

  Args:
    name: key of `WEIGHTS`.
    path: see `find`.
    only: names of the arrays that are read, where they exist; () for all.

  Raises:
    MissingWeightsError, WrongWeightsError: see `find`.
  """
  weights = get(name)
  if path is None and (record := _conversion(weights)):
    converted = cache_dir() / weights.converted
    if files.sha256_of(converted) != record["sha256"]:
      raise WrongWeightsError(
        f"{converted} is damaged: its sha256 is not the recorded one; remove it"
      )
    return _arrays(converted, only)
  source = find(name, path)
  try:
    return _arrays(convert(name, source), only)
  except OSError as error:
    warnings.warn(f"converted weights are not kept: {error}", stacklevel=2)
    with tempfile.TemporaryDirectory() as folder:
      target = pathlib.Path(folder, weights.converted)
      _to_safetensors(source, target, weights)
      return _arrays(target, only)


def _to_safetensors(
  source: pathlib.Path, target: pathlib.Path, weights: Weights
) -> None:
  which = {"member": weights.member, "part": weights.part}
  reading.to_safetensors(source, target, **which)


def _arrays(path: pathlib.Path, only: Collection[str]) -> dict[str, np.ndarray]:
  with safe_open(path, "numpy") as file:
    names = [name for name in file.keys() if not only or name in only]
    return {name: file.get_tensor(name) for name in names}


def digest(name: str, path: str | os.PathLike[str] | None = None) -> str:
  """Returns the sha256 of the weights that `load` reads, all digits."""
  weights = get(name)
  if len(weights.sha256) == 64:
    return weights.sha256
  if path is None and (record := _conversion(weights)):
    return record["source_sha256"]
  return _content_sha256(find(name, path), weights)


def _conversion(weights: Weights) -> dict[str, Any] | None:
  """Returns the record of converted weights in the cache."""
  converted = cache_dir() / weights.converted
  try:
    record = files.read_json(converted.with_suffix(".json"))
  except FileNotFoundError:
    return None
  mine = record["source_sha256"].startswith(weights.sha256)
  return record if mine and converted.is_file() else None


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
  record = {
    "source": weights.url,
    "source_sha256": _content_sha256(source, weights),
    "licence": weights.licence,
    "credit": weights.credit,
  }
  with files.written(target) as part:
    _to_safetensors(source, part, weights)
    record["sha256"] = files.sha256_of(part)
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
  timeout_seconds: float = 30.0,
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
  folder = cache_dir() if out is None else as_path(out).expanduser()
  target = folder / weights.file
  with _new_folder(folder), files.written(target) as part:
    try:
      download.download(weights, part, timeout_seconds=timeout_seconds)
    except OSError as error:
      raise OSError(
        f"weights '{name}' could not be fetched from {weights.url}: {error};"
        f" download them by other means and set {PATH_VARIABLE} to the folder"
      ) from None
    digest = _content_sha256(part, weights)
    if not digest.startswith(weights.sha256):
      raise WrongWeightsError(
        f"{weights.url}: sha256 is {digest}, but the {name} weights have"
        f" {weights.sha256}; nothing was kept"
      )
  return target


@contextlib.contextmanager
def _new_folder(folder: pathlib.Path) -> Iterator[None]:
  """Makes a folder; after an exception takes back what it made."""
  made = [path for path in (folder, *folder.parents) if not path.exists()]
  folder.mkdir(parents=True, exist_ok=True)
  try:
    yield
  except BaseException:
    with contextlib.suppress(OSError):
      for path in made:
        path.rmdir()
    raise


def listing() -> list[dict[str, Any]]:
  """Lists the entries of `WEIGHTS` with the state of their files.

  Returns:
    One dict an entry: the fields of `Weights`, `state` (`found`, `converted`,
    `missing` or `wrong`) and `path` ("" if missing).
  """
  return [_state(weights) for weights in WEIGHTS.values()]


def _state(weights: Weights) -> dict[str, Any]:
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
