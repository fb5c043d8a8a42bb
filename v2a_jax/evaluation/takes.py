"""Takes of `v2a generate` among the sounds of a folder, and their sidecars.

Files are named as `soundtrack/delivery.py` says: `clip/clip__c01_s0007.wav` and
beside it `clip.json`.
"""

import pathlib
import re

from v2a_jax.basics import files

_TAKE = re.compile(r"(?P<stem>.+)__c\d+_s\d+")


def stem_of(name: str) -> str:
  """Returns the video's name of a take in a folder of that name, else "".

  Args:
    name: path inside a folder, without suffix; takes sort by their rank.
  """
  path = pathlib.PurePosixPath(name)
  found = _TAKE.fullmatch(path.name)
  own_folder = found and str(path.parent) == found["stem"]
  return found["stem"] if own_folder else ""


def sidecar_of(file: pathlib.Path) -> pathlib.Path | None:
  """Returns the sidecar beside a take; None where there is none."""
  found = _TAKE.fullmatch(file.stem)
  sidecar = found and file.with_name(f"{found['stem']}.json")
  return sidecar if sidecar and sidecar.is_file() else None


def chosen_by(sidecar: pathlib.Path) -> frozenset[str]:
  """Returns the scores (`soundtrack.scoring`) that ranked or rejected takes.

  Raises:
    ValueError: the file cannot be read, or does not say it.
  """
  try:
    return frozenset(files.read_json(sidecar)["chosen_by"])
  except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
    raise ValueError(
      f"{sidecar} does not say by what takes were chosen ({error!r}): make them"
      " again with v2a generate, or move it away if they were not chosen"
    ) from None
