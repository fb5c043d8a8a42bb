"""Where the time of reading goes, by stage: wall-clock and computing time.

Times are kept by thread, so a batch that one thread makes has its own.
"""

from collections.abc import Iterator
import contextlib
import threading
import time

import numpy as np

# Reading a record, decoding its pictures and its sound, and the rest: text,
# and writing rows of the batch.
STAGES = ("read", "video", "sound", "text", "copy")
_local = threading.local()


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
  """Adds the time inside the `with` block to a stage; do not nest."""
  wall, cpu = time.perf_counter(), time.thread_time()
  try:
    yield
  finally:
    spent = _spent()[STAGES.index(name)]
    spent += time.perf_counter() - wall, time.thread_time() - cpu


def take() -> np.ndarray:
  """Returns this thread's seconds since the last call, and starts anew.

  Returns:
    float64 [stages, 2]: wall-clock and computing seconds of each stage.
  """
  spent, _local.spent = _spent(), np.zeros((len(STAGES), 2))
  return spent


def _spent() -> np.ndarray:
  if not hasattr(_local, "spent"):
    _local.spent = np.zeros((len(STAGES), 2))
  return _local.spent
