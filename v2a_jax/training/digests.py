"""Digests of a checkpoint's files, which show damage before it is restored.

A checkpoint's folder is named by its step and holds the folders `state`,
`data` and `meta`; the sha256 of each of their files stands in `sha256.json`.
"""

import concurrent.futures
import hashlib
import json
import pathlib

from v2a_jax.basics.files import sha256_of, write_json

_ITEMS = ("state", "data", "meta")
_DIGESTS = "sha256.json"


def list_steps(root: pathlib.Path) -> list[int]:
  """Returns the completely saved steps, newest first."""
  names = [path.name for path in root.iterdir()] if root.is_dir() else []
  return sorted((int(n) for n in names if n.isdigit()), reverse=True)


def digest_files(folder: pathlib.Path) -> dict[str, str]:
  """Returns the sha256 of each file of the items, by relative path."""
  files = sorted(path for item in _ITEMS for path in (folder / item).rglob("*"))
  files = [path for path in files if path.is_file()]

  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    names = [str(path.relative_to(folder)) for path in files]
    return dict(zip(names, pool.map(sha256_of, files)))


def write_digests(folder: pathlib.Path) -> None:
  """Writes `sha256.json` into a checkpoint's folder."""
  write_json(folder / _DIGESTS, {"files": digest_files(folder)})


def identity(folder: pathlib.Path) -> str:
  """Returns one sha256 that names all of a checkpoint: that of its digests."""
  return hashlib.sha256((folder / _DIGESTS).read_bytes()).hexdigest()


def find_damage(folder: pathlib.Path) -> str | None:
  """Returns what is wrong with a checkpoint's files, or None."""
  if not (folder / _DIGESTS).exists():
    return f"{_DIGESTS} is missing"
  try:
    expected = json.loads((folder / _DIGESTS).read_text())["files"]
    found = digest_files(folder)
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    return str(error)[:200]
  for name, digest in expected.items():
    if name not in found:
      return f"{name} is missing"
    if found[name] != digest:
      return f"{name} does not have its sha256"
  return None
