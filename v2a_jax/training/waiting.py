"""How long steps wait for data, and which part of reading is slow."""

from collections.abc import Iterator
import contextlib
import logging
import math
import time
from typing import Any

# Waiting for more than this share of a step is said.
_SHARE = 0.2
# It is said again after so many seconds.
_SAY_EVERY = 600.0
_NAMES = {
  "read": "reading records from disk",
  "video": "decoding pictures",
  "sound": "decoding sound",
  "text": "tokenizing",
  "copy": "writing batches",
  "move": "moving batches to the devices",
}
_log = logging.getLogger(__name__)


class DataWait:
  """Seconds that the main thread waits for batches, between two logged rows."""

  def __init__(self, loader: Any):
    """Watches a loader; one without `stage_seconds` has no stages to name."""
    self._loader = loader
    self._waited = self._moved = 0.0
    self._steps, self._said_at = 0, -math.inf
    self._before = self._spent()

  @contextlib.contextmanager
  def reading(self) -> Iterator[None]:
    """Counts the time inside the `with` block as waiting for a batch."""
    start = time.perf_counter()
    yield
    self._waited += time.perf_counter() - start
    self._steps += 1

  @contextlib.contextmanager
  def moving(self) -> Iterator[None]:
    """Counts the time inside the `with` block as moving it to the devices."""
    start = time.perf_counter()
    yield
    self._moved += time.perf_counter() - start

  def row(self, step_time: float | None) -> dict[str, float]:
    """Returns the mean wait of a step since the last row; warns if it is long.

    Args:
      step_time: seconds of a step in this interval; None if it is not known.
    """
    steps, seconds = self._steps, self._waited + self._moved
    if not steps:
      return {}
    wait, now = seconds / steps, self._spent()
    parts = {k: (v - self._before[k]) / steps for k, v in now.items()}
    parts["move"] = self._moved / steps
    self._before, self._steps = now, 0
    self._waited = self._moved = 0.0
    late = step_time is not None and wait > _SHARE * step_time
    if late and time.monotonic() - self._said_at > _SAY_EVERY:
      self._said_at = time.monotonic()
      # Rows are a few steps behind what is read: a step takes what it waits.
      _log.warning("%s", complaint(wait, max(wait, step_time), parts))
    return {"perf/data_wait": wait}

  def _spent(self) -> dict[str, float]:
    """Returns the seconds of each stage of reading so far."""
    return dict(getattr(self._loader, "stage_seconds", {}))


def complaint(wait: float, step_time: float, parts: dict[str, float]) -> str:
  """Returns a line that names the slow part.

  Args:
    wait: seconds that a step waits for its batch.
    step_time: seconds of a step.
    parts: seconds that all threads together take for a batch, by stage.
  """
  total = sum(parts.values())
  line = f"a step waits {wait:.2g} s of {step_time:.2g} s for data"
  if total:
    slow = max(parts, key=lambda name: parts[name])
    line += (
      f": {parts[slow] / total:.0%} of the work on a batch ({total:.2g} s of all"
      f" threads) is {_NAMES[slow]}"
    )
  return f"{line}; measure with `v2a data bench`, see docs/data_at_scale.md"
