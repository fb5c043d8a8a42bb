"""What differs when a run is continued: settings and data sets.

The workdir's `data.json` says which data sets the newest start has read. When a
run goes on with other settings, those of before are kept beside `config.json`.
"""

from collections.abc import Iterator, Mapping, Sequence
import logging
import pathlib
from typing import Any

from data_pipelines.columns import store
from data_pipelines.manifest import fingerprint, read_manifest
from data_pipelines.schema import DataError
from v2a_jax.basics import files

DATA = "data.json"
_SHOWN = 20
# The workdir's own from its second start on.
_DERIVED = "data.encoder"

_log = logging.getLogger(__name__)


def identify(
  paths: Sequence[str], *, columns: bool = False
) -> dict[str, dict[str, Any]]:
  """Returns counts and digests of data sets, by path.

  The first digest is of the manifest's settings and of the digests of all
  shards. A data set that is not there is left out: whoever reads it says so.

  Args:
    paths: folders of the data sets.
    columns: whether the run reads their columns, which then have a digest too.
  """
  found = {}
  for path in paths:
    try:
      manifest = read_manifest(path)
    except DataError:
      continue
    parts = [manifest.get(key) for key in ("fingerprint", "shards")]
    counts = manifest.get("splits", {})
    found[path] = {"splits": counts, "sha256": fingerprint(parts)}
    if columns:
      found[path]["columns"] = store.digest(path)
  return found


def report(
  workdir: pathlib.Path,
  *,
  before: Mapping[str, Any],
  config: Mapping[str, Any],
  data: Mapping[str, Any],
  step: int,
) -> None:
  """Logs what differs from the last start, and keeps its settings.

  Args:
    workdir: the run's folder, with the files of the last start.
    before: resolved config of the last start.
    config: resolved config of this one.
    data: data sets of this one, see `identify`.
    step: number of steps done.
  """
  changed = [
    f"config.{key}: {old!r} -> {new!r}"
    for key, old, new in differences(before, config)
    if key != _DERIVED
  ]
  if changed:
    name = f"config.before_step_{step}.json"
    files.write_json(workdir / name, before, sort_keys=True)
    shown = "; ".join(changed[:_SHOWN])
    if len(changed) > _SHOWN:
      shown += f"; and {len(changed) - _SHOWN} more"
    _log.warning(
      "%s goes on from step %d with other settings: %s. Those of before are"
      " kept in %s",
      *(workdir, step, shown, name),
    )
  for path, old, new in _other_data(workdir, data):
    _log.warning(
      "%s is another data set than before (%s records, now %s): from step %d"
      " on the order and the epochs are those of the new one",
      *(path, _count(old), _count(new), step),
    )
  for path in _other_columns(workdir, data):
    _log.warning(
      "the columns of %s are not those of before: from step %d on the clips that"
      " config.data.admit takes, their order and their annotations are others",
      *(path, step),
    )


def differences(
  before: Mapping[str, Any], after: Mapping[str, Any], where: str = ""
) -> Iterator[tuple[str, Any, Any]]:
  """Yields (dotted key, old, new) of each leaf that differs."""
  for key in sorted(before.keys() | after.keys()):
    old, new = before.get(key), after.get(key)
    if isinstance(old, Mapping) and isinstance(new, Mapping):
      yield from differences(old, new, f"{where}{key}.")
    elif old != new:
      yield f"{where}{key}", old, new


def _other_data(
  workdir: pathlib.Path, data: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
  """Yields (path, old, new) of data sets that were replaced."""
  try:
    before = files.read_json(workdir / DATA)
  except (FileNotFoundError, ValueError):
    return
  for path, new in data.items():
    old = before.get(path)
    if old is not None and old.get("sha256") != new["sha256"]:
      yield path, old, new


def _other_columns(
  workdir: pathlib.Path, data: Mapping[str, Any]
) -> Iterator[str]:
  """Yields the data sets whose columns were measured or annotated again."""
  try:
    before = files.read_json(workdir / DATA)
  except (FileNotFoundError, ValueError):
    return
  for path, new in data.items():
    old = before.get(path, {})
    if (
      "columns" in old and "columns" in new and old["columns"] != new["columns"]
    ):
      yield path


def _count(data_set: Mapping[str, Any]) -> int:
  return sum(data_set.get("splits", {}).values())
