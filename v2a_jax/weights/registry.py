"""Published weight files: found, checked by their digest, converted, listed.

A file is searched for at the path that the caller gives; or else in the folders
(or files) that the environment variable `V2A_WEIGHTS` lists, separated like
`PATH`, and then in the cache, `$V2A_CACHE/weights` or
`~/.cache/v2a_jax/weights`. Its digest must be the one in `WEIGHTS`; where none
is published, it must be the one that was recorded when it was fetched, if it
was (fetching.py). Nothing here uses the network.

Files are converted once to safetensors in the cache, by readers that run no
code, in a process of their own (reading.py); a JSON file beside the converted
one records its sha256 and that of its source.
"""

from collections.abc import Collection, Iterator
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
from v2a_jax.weights import reading
from v2a_jax.weights.catalog import SETS, WEIGHTS, Weights

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
    known = ", ".join(sorted([*WEIGHTS, *SETS]))
    raise KeyError(f"no weights are named '{name}'; there are: {known}")
  return WEIGHTS[name]


def entries(name: str) -> list[Weights]:
  """Returns the entries that a name of `WEIGHTS` or `SETS` stands for.

  Raises:
    KeyError: there is no such name; lists those that exist.
  """
  return [get(part) for part in SETS.get(name, (name,))]


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
    if place.name in weights.files:
      yield place
    else:
      yield from (place / name for name in weights.files)


def find(name: str, path: str | os.PathLike[str] | None = None) -> pathlib.Path:
  """Returns the path of a weight file whose digest is right.

  Args:
    name: key of `WEIGHTS`.
    path: the file or its folder; None searches `V2A_WEIGHTS` and the cache.

  Raises:
    MissingWeightsError: the file is not found.
    WrongWeightsError: it has another digest.
  """
  weights = get(name)
  place = _locate(weights, path)
  if wrong := fault(place, weights):
    raise WrongWeightsError(f"{place}: {wrong}; {_again(weights)}")
  return place


def _again(weights: Weights) -> str:
  return (
    f"remove the file and get it again with `v2a weights fetch {weights.name}`"
  )


def _locate(weights: Weights, path=None) -> pathlib.Path:
  """Returns the path of a file, whatever is in it."""
  if path is None:
    places = list(_places(weights))
  else:
    path = as_path(path).expanduser()
    inside = [path / name for name in weights.files]
    places = inside if path.is_dir() else [path]
  others = {name: of.name for of in WEIGHTS.values() for name in of.files}
  for name in weights.files:
    del others[name]
  for place in (place for place in places if place.is_file()):
    if place.name not in others:
      return cache.fetch(place)
    raise MissingWeightsError(
      f"{place} is by its name the file of '{others[place.name]}', not of"
      f" '{weights.name}', which is {weights.file}"
    )
  raise MissingWeightsError(
    f"weights '{weights.name}' not found (looked for"
    f" {', '.join(map(str, places))}): run `v2a weights fetch {weights.name}`,"
    f" or download {weights.url} as {weights.file} ({weights.digest}) and set"
    f" {PATH_VARIABLE} to its folder"
  )


def record_of(path: pathlib.Path) -> pathlib.Path:
  """Returns the path of the record that is kept beside a fetched file."""
  return path.with_name(f"{path.name}.json")


def fault(path: pathlib.Path, weights: Weights) -> str:
  """Says how a file differs from what is published; "" if it does not."""
  kind = "md5" if weights.md5 else "sha256"
  wanted = getattr(weights, kind)
  if not wanted:
    size = path.stat().st_size
    if size < weights.at_least:
      return (
        f"it has {size:,} bytes, but the {weights.name} weights have at least"
        f" {weights.at_least:,}"
      )
    if not record_of(path).is_file():
      return ""
    wanted = files.read_json(record_of(path))["sha256"]
  found = _digest(path, weights, kind)
  if found.startswith(wanted):
    return ""
  whose = "".join(
    f", that of {other.name}"
    for other in WEIGHTS.values()
    if (digest := getattr(other, kind)) and found.startswith(digest)
  )
  return (
    f"{kind} is {found}{whose}, but the {weights.name} weights have {wanted}"
  )


def _digest(path: pathlib.Path, weights: Weights, kind: str = "sha256") -> str:
  """Returns the digest of the weights in a file, in hexadecimal."""
  if not reading.has_member(path, weights.member):
    with open(files.open_regular(path), "rb") as file:
      return hashlib.file_digest(file, kind).hexdigest()
  digest, left = hashlib.new(kind), weights.bytes + 1
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
  if path is None and _conversion(weights):
    return _arrays(as_safetensors(name), only)
  source = find(name, path)
  try:
    return _arrays(convert(name, source), only)
  except OSError as error:
    warnings.warn(f"converted weights are not kept: {error}", stacklevel=2)
    with tempfile.TemporaryDirectory() as folder:
      target = pathlib.Path(folder, weights.converted)
      _to_safetensors(source, target, weights)
      return _arrays(target, only)


def as_safetensors(name: str) -> pathlib.Path:
  """Returns the path of weights in the cache; converts them at the first call.

  Raises:
    MissingWeightsError, WrongWeightsError: see `find`.
    OSError: the cache cannot be written.
  """
  weights = get(name)
  if not (record := _conversion(weights)):
    return convert(name, find(name))
  path = cache_dir() / weights.converted
  if files.sha256_of(path) != record["sha256"]:
    raise WrongWeightsError(
      f"{path} is damaged: its sha256 is not the recorded one; remove it"
    )
  return path


def check_here(name: str) -> None:
  """Checks that all files of a set are on this machine, in any state.

  Args:
    name: key of `WEIGHTS` or of `SETS`.

  Raises:
    MissingWeightsError: names every file that is not.
  """
  gone = []
  for weights in entries(name):
    try:
      converted(weights) or _locate(weights)
    except MissingWeightsError:
      gone.append(weights.file)
  if gone:
    raise MissingWeightsError(
      f"{name} lacks {', '.join(gone)}: run `v2a weights fetch {name}`, or put"
      f" them into {cache_dir()} or a folder of ${PATH_VARIABLE}"
    )


def _to_safetensors(
  source: pathlib.Path, target: pathlib.Path, weights: Weights
) -> None:
  which = {"member": weights.member, "part": weights.part}
  try:
    reading.to_safetensors(source, target, **which)
  except reading.UnreadableError as error:
    raise WrongWeightsError(f"{error}; {_again(weights)}") from None


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
  return _digest(find(name, path), weights)


def converted(weights: Weights) -> pathlib.Path | None:
  """Returns the path of converted weights in the cache; None without them."""
  return cache_dir() / weights.converted if _conversion(weights) else None


def _conversion(weights: Weights) -> dict[str, Any] | None:
  """Returns the record of converted weights in the cache."""
  if not weights.has_tensors:
    return None
  converted = cache_dir() / weights.converted
  try:
    record = files.read_json(converted.with_suffix(".json"))
  except FileNotFoundError:
    return None
  mine = record["source_sha256"].startswith(weights.sha256)
  mine &= not weights.md5 or record.get("published") == weights.digest
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
    "published": weights.digest,
    "source_sha256": _digest(source, weights),
    "licence": weights.licence,
    "credit": weights.credit,
  }
  with files.written(target) as part:
    _to_safetensors(source, part, weights)
    part.chmod(0o644)
    record["sha256"] = files.sha256_of(part)
  files.write_json(target.with_suffix(".json"), record)
  return target


def _output_folder(out: str | os.PathLike[str] | None) -> pathlib.Path:
  folder = cache_dir() if out is None else as_path(out).expanduser()
  folder.mkdir(parents=True, exist_ok=True)
  return folder


def listing() -> list[dict[str, Any]]:
  """Lists the entries of `WEIGHTS` with the state of their files.

  Returns:
    One dict an entry: the fields of `Weights`, `state` (`found`, `converted`,
    `missing` or `wrong`) and `path` ("" if missing).
  """
  return [_state(weights) for weights in WEIGHTS.values()]


def lacking(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
  """Lists, for each name of `SETS`, what is not here of it.

  Args:
    rows: what `listing` returns.
  """
  here = {row["name"] for row in rows if row["state"] in ("found", "converted")}
  return {
    name: [part for part in parts if part not in here]
    for name, parts in SETS.items()
  }


def _state(weights: Weights) -> dict[str, Any]:
  entry = dataclasses.asdict(weights)
  try:
    place = _locate(weights)
  except MissingWeightsError:
    if path := converted(weights):
      return entry | {"state": "converted", "path": str(path)}
    return entry | {"state": "missing", "path": ""}
  state = "wrong" if fault(place, weights) else "found"
  return entry | {"state": state, "path": str(place)}
