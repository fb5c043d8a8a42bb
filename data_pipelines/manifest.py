"""The manifest: what a finished data set says about itself."""

import hashlib
import json
import os
import pathlib
from typing import Any

from data_pipelines import schema

MANIFEST = "manifest.json"


def file_sha256(path: str | os.PathLike) -> str:
  """Of a file's bytes, in constant memory."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(settings: Any) -> str:
  """Of everything that a build depends on, as JSON."""
  text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
  return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(path: str | os.PathLike) -> dict[str, Any]:
  """The manifest of a finished data set.

  Raises:
    DataError: there is no data set, or it is of another schema version.
  """
  path = pathlib.Path(path)
  if not path.is_dir():
    raise schema.DataError(
      f"no data set at {path}; make one with `v2a data build` or "
      "`v2a data scenes`"
    )
  try:
    manifest = json.loads((path / MANIFEST).read_text())
    version = manifest["schema_version"]
  except FileNotFoundError:
    raise schema.DataError(
      f"{path} holds no {MANIFEST}, so it is no finished data set"
    ) from None
  except (ValueError, KeyError, TypeError) as error:
    raise schema.DataError(
      f"{path / MANIFEST} is damaged ({error}); build the data set again"
    ) from None
  if version != schema.SCHEMA_VERSION:
    raise schema.DataError(
      f"{path} has schema version {version}, this code reads "
      f"{schema.SCHEMA_VERSION}; build the data set again"
    )
  return manifest


def already_built(out: str | os.PathLike, wanted: str) -> dict[str, Any] | None:
  """The manifest of `out` if it is finished and of the fingerprint `wanted`."""
  if not (pathlib.Path(out) / MANIFEST).is_file():
    return None
  try:
    manifest = read_manifest(out)
  except schema.DataError:
    return None
  return manifest if manifest.get("fingerprint") == wanted else None
