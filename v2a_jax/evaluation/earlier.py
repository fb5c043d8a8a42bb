"""What earlier evaluations have left in a folder, and whether it can be used.

Each is known by its settings: all that its numbers depend on.
"""

from collections.abc import Callable, Mapping
import pathlib
from typing import Any

from v2a_jax.basics import files
from v2a_jax.evaluation.schema import FILE

SETTINGS = "settings.json"  # in each folder of parts


def finished(
  out, settings: Mapping[str, Any], log: Callable[[str], None]
) -> dict[str, Any] | None:
  """Returns the results in a folder that have these settings; None for none.

  Raises:
    ValueError: there are results of other settings.
  """
  path = out / FILE
  try:
    content = files.read_json(path)
  except FileNotFoundError:
    return None
  before = content.get("settings") or {}
  if before == settings:
    log(f"{path} is there already (to do it again, remove it)")
    return content
  raise ValueError(
    f"{path} has results of other settings ({_differing(before, settings)}),"
    " which are not written over: give another -o, or remove it"
  )


def say_unused(
  folder: pathlib.Path,
  settings: Mapping[str, Any],
  log: Callable[[str], None],
) -> None:
  """Logs which scored parts beside a folder cannot be used, and why."""
  for path in sorted(folder.parent.glob(f"*/{SETTINGS}")):
    count = len([*path.parent.glob("part_*.npz")])
    if path.parent == folder or not count:
      continue
    names = _differing(files.read_json(path), settings)
    log(
      f"{count} parts in {path.parent} were scored with other settings ({names})"
      " and are not used: remove them, or use what they were scored with"
    )


def _differing(before: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
  return ", ".join(k for k in settings if before.get(k) != settings[k])
