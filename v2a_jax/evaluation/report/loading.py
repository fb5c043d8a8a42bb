"""Reads results of evaluations for a report, and names them."""

from collections.abc import Sequence
import os
import pathlib

from v2a_jax.basics import files
from v2a_jax.basics.paths import as_path, check_readable, find
from v2a_jax.evaluation.report import arms
from v2a_jax.evaluation.schema import FILE, SCHEMA

# What results have, and of what type; the others may be missing.
_REQUIRED = {"name": str, "rows": list, "clips": list}
_REQUIRED |= dict.fromkeys(("checkpoint", "set", "identity", "metrics"), dict)
_OPTIONAL = {"config": dict, "sampler": dict, "code": dict}
_OPTIONAL |= {"curve": list, "failures": list}


def load_runs(paths: Sequence[str | pathlib.Path]) -> list[dict]:
  """Reads results and adds their `folder` and the name of their `arm`.

  Arms of equal names get another one, with the parts of their folders that
  differ, in a sweep its run's overrides. The name of a run is that of its arm,
  with its seed where others of the arm are there.

  Raises:
    ValueError: no paths, or a file that does not hold results of this schema.
    FileNotFoundError: a file is missing.
  """
  if not paths:
    raise ValueError("report: no results given; name one or more results.json")
  found = [file for path in paths for file in _files(as_path(path))]
  runs = [_load(file) | {"folder": file.parent} for file in found]
  groups = arms.groups(runs)
  names = [group[0]["name"] for group in groups]
  for name in set(names):
    same = [group for group, own in zip(groups, names) if own == name]
    parts = _apart([arms.folder_of(group) for group in same])
    for group, part in zip(same, parts):
      arm = f"{name} ({part})" if len(same) > 1 else name
      for run in group:
        several = len(group) > 1
        seed = f", seed {run['config']['seed']}" if several else ""
        run |= {"arm": arm, "name": arm + seed}
  return runs


def _apart(folders: Sequence[pathlib.Path]) -> list[str]:
  """Names folders by their parts that not all have; by numbers if equal."""
  rows = [folder.parts for folder in folders]
  first = os.path.commonprefix(rows)
  ends = [row[len(first) :][::-1] for row in rows]
  last = len(os.path.commonprefix(ends))
  found = ["/".join(end[last:][::-1]) for end in ends]
  if len(set(found)) < len(found) or not all(found):
    return [str(i + 1) for i in range(len(folders))]
  return found


def _files(path: pathlib.Path) -> list[pathlib.Path]:
  """Lists the results of a path: itself, in it, or in folders below."""
  check_readable(path)
  own = path / FILE if path.is_dir() else path
  if own.exists():
    return [own]
  if below := find(path, FILE):
    return below
  raise FileNotFoundError(f"{own}: no such file; write it with `v2a eval`")


def _load(path: pathlib.Path) -> dict:
  run = files.read_json(path)
  if run.get("schema") != SCHEMA:
    raise ValueError(
      f"{path}: results of schema {run.get('schema')}, not {SCHEMA}; run"
      " `v2a eval` again"
    )
  run = {name: kind() for name, kind in _OPTIONAL.items()} | run
  wrong = [
    name
    for name, kind in (_REQUIRED | _OPTIONAL).items()
    if not isinstance(run.get(name), kind)
  ]
  if wrong:
    raise ValueError(
      f"{path}: {', '.join(wrong)} missing or of another type; run `v2a eval`"
      " again"
    )
  return run
