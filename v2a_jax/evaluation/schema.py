"""What the writer and the readers of results.json share."""

import math
from typing import Any

FILE = "results.json"
SCHEMA = 2
# Rows that others are compared with; see rows.py.
GENERATED = "generated"
GROUND_TRUTH = "ground_truth"
SHUFFLED = "shuffled_video"


def is_finite(value: Any) -> bool:
  """Returns whether a value from JSON is a finite number."""
  return isinstance(value, (int, float)) and math.isfinite(value)
