"""What the writer and the readers of results.json share."""

import math
from typing import Any

FILE = "results.json"
SCHEMA = 1


def is_finite(value: Any) -> bool:
  """Returns whether a value from JSON is a finite number."""
  return isinstance(value, (int, float)) and math.isfinite(value)
