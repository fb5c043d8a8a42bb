"""What makes a clip suspicious, as expressions over its columns.

An expression is used as far as its columns are there. `admit` may say the same
with other limits; docs/data_at_scale.md has how often these are right.
"""

from collections.abc import Mapping
import os

import numpy as np

from data_pipelines.columns import admit as admit_lib
from data_pipelines.columns.records import Records

FAULTS = {
  "silent": "silence >= 0.98",
  "clipped": "clipping > 0.001",
  "upsampled sound": "cutoff < 5000",
  "still picture": "still >= 0.9",
  "sound ends early": "unsounded > 0.1",
  "out of time": "agreement > 0.7 and abs(offset) > 0.2",
  "copy": "duplicate",
  "overlaps held-out clips": "leak",
  "cannot be decoded": "not missing(measures.error)",
}


def find(
  dataset: str | os.PathLike, known: Records
) -> Mapping[str, np.ndarray]:
  """Returns which records have each fault, bool [n], where columns tell."""
  columns = admit_lib.columns_of(dataset, known)
  found = {}
  for name, text in FAULTS.items():
    try:
      found[name] = admit_lib.Expression(text)(columns, len(known)).mask
    except admit_lib.AdmitError:
      continue  # It was not measured.
  return found
