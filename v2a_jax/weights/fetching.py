"""Fetches published weights: asks for licences, downloads, checks, records.

A file has its name only when it is whole and has the published digest. Until
then it is `.NAME.part`, which the next attempt continues. NAME.json beside it
records where it came from, its licence and its sha256, with which a file is
compared later where no digest is published.
"""

from collections.abc import Callable, Collection, Iterator
import contextlib
import os
import pathlib

from v2a_jax.basics import files
from v2a_jax.basics.paths import as_path, is_remote
from v2a_jax.weights import download, registry
from v2a_jax.weights.catalog import Weights


class LicenceError(ValueError):
  """A licence has to be accepted first; the message says how."""


def fetch(
  name: str,
  *,
  out: str | os.PathLike[str] | None = None,
  accept: Collection[str] = (),
  say: Callable[[str], None] = lambda line: None,
  timeout_seconds: float = 30.0,
) -> list[pathlib.Path]:
  """Downloads the files that a name stands for and that are not here yet.

  Args:
    name: key of `WEIGHTS` or of `SETS`.
    out: output folder; None for the cache.
    accept: licences that are accepted.
    say: is told, in a line, of each download that begins.
    timeout_seconds: longest wait for the server, in seconds.

  Returns:
    The paths of all its files, those that were there already included.

  Raises:
    LicenceError: a licence is not accepted; nothing was downloaded.
    OSError: no connection, or the disk is full; names the address, and what is
      still lacking.
    WrongWeightsError: a download has another size or digest.
  """
  entries = registry.entries(name)
  places = {weights.name: _here(weights, out) for weights in entries}
  lacking = [weights for weights in entries if not places[weights.name]]
  _check_licences(name, lacking, accept)
  folder = registry.cache_dir() if out is None else as_path(out).expanduser()
  while lacking:
    weights = lacking[0]
    say(f"fetching {weights.about}, {weights.licence}: {weights.url}")
    try:
      places[weights.name] = _fetch(weights, folder, timeout_seconds)
    except OSError as error:
      raise OSError(
        f"weights '{weights.name}' could not be fetched from {weights.url}:"
        f" {error}; download {', '.join(one.file for one in lacking)} by other"
        f" means and set {registry.PATH_VARIABLE} to the folder"
      ) from None
    del lacking[0]
  return list(places.values())


def _here(weights: Weights, out) -> pathlib.Path | None:
  """Returns where a right file is, or what was converted from it."""
  with contextlib.suppress(
    registry.MissingWeightsError, registry.WrongWeightsError
  ):
    return registry.find(weights.name, out)
  return registry.converted(weights) if out is None else None


def _check_licences(
  name: str, lacking: list[Weights], accept: Collection[str]
) -> None:
  terms = {one.licence: one.terms for one in lacking if one.terms}
  missing = {k: v for k, v in terms.items() if k not in accept}
  if missing:
    text = " and ".join(f"{k} ({v})" for k, v in missing.items())
    raise LicenceError(
      f"weights '{name}' are under {text}: read it, and if you accept it, add"
      f" --accept_licence {','.join(terms)}"
    )


def _fetch(
  weights: Weights, folder: pathlib.Path, timeout_seconds: float
) -> pathlib.Path:
  """Downloads one file; it appears in `folder` with its record, or not."""
  target = folder / weights.file
  local = registry.cache_dir() if is_remote(folder) else folder
  part = local / f".{weights.file}.part"
  with _new_folder(local):
    download.download(weights, part, timeout_seconds=timeout_seconds)
    if fault := registry.fault(part, weights):
      download.discard(part)
      raise registry.WrongWeightsError(
        f"{weights.url}: {fault}; nothing was kept"
      )
    record = {
      "url": weights.url,
      "licence": weights.licence,
      "published": weights.digest,
      "sha256": files.sha256_of(part),
    }
    if is_remote(folder):
      target.upload(part)
    else:
      os.replace(part, target)
    files.write_json(registry.record_of(target), record)
    download.discard(part)
  return target


@contextlib.contextmanager
def _new_folder(folder: pathlib.Path) -> Iterator[None]:
  """Makes a folder; after an exception takes back what it made, if empty."""
  made = [path for path in (folder, *folder.parents) if not path.exists()]
  folder.mkdir(parents=True, exist_ok=True)
  try:
    yield
  except BaseException:
    with contextlib.suppress(OSError):
      for path in made:
        path.rmdir()
    raise
