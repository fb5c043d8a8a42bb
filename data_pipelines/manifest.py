"""The manifest of a data set: settings, counts, drops, shards with digests."""

import hashlib
import json
import os
from typing import Any

from data_pipelines import schema
from v2a_jax.basics.files import read_json
from v2a_jax.basics.paths import as_path, check_readable

MANIFEST = "manifest.json"


def fingerprint(settings: Any) -> str:
  """Returns the sha256 of JSON-able settings; the order of keys is ignored."""
  text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
  return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(path: str | os.PathLike) -> dict[str, Any]:
  """Reads the manifest of the finished data set in folder `path`.

  Raises:
    DataError: there is no data set, or it has another schema version.
    StoreError: it is on an object store that cannot be read.
  """
  path = as_path(path)
  check_readable(path)
  if not path.is_dir():
    raise schema.DataError(
      f"no data set at {path}; make one with `v2a data build` or "
      "`v2a data scenes`"
    )
  try:
    manifest = read_json(path / MANIFEST)
    version = manifest["schema_version"]
  except FileNotFoundError:
    raise schema.DataError(
      f"{path} has no {MANIFEST}, so it is no finished data set; build it with"
      " `v2a data build` or `v2a data scenes`"
    ) from None
  except (OSError, ValueError, KeyError) as error:
    raise schema.DataError(
      f"{path / MANIFEST} is damaged ({error}); build the data set again"
    ) from None
  if version != schema.SCHEMA_VERSION:
    raise schema.DataError(
      f"{path} has schema version {version}, this code reads "
      f"{schema.SCHEMA_VERSION}; build the data set again"
    )
  return manifest


def find_manifest(out: str | os.PathLike) -> dict[str, Any] | None:
  """Returns the manifest of a finished data set, or None if there is none."""
  try:
    return read_manifest(out)
  except schema.DataError:
    return None
