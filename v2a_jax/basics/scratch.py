"""Large arrays on disk, for what grows with the length of a sound.

A large array is a file in the folder of temporary files (`$TMPDIR`) that has no
name and is mapped into memory. The system keeps as much of it there as it has
room for, and the file is gone with the array, also where a process is killed.
"""

import math
import os
import tempfile

import numpy as np

LARGE = 32 << 20  # bytes; what is smaller is in memory


def empty(shape: int | tuple[int, ...]) -> np.ndarray:
  """Returns a float32 array whose values are not set.

  Raises:
    OSError: there is no room for it on the disk.
  """
  size = 4 * math.prod(np.atleast_1d(shape).tolist())
  if size < LARGE:
    return np.empty(shape, np.float32)
  with tempfile.TemporaryFile() as file:
    try:
      # All of it now: a full disk ends a process that writes into a mapping.
      _allocate(file.fileno(), size)
    except OSError as error:
      raise OSError(
        error.errno,
        f"{error.strerror}: long sound needs {size >> 20:,} MiB more for a"
        " while; make room, or set $TMPDIR to a folder of another disk",
        tempfile.gettempdir(),
      ) from None
    return np.memmap(file, np.float32, mode="r+", shape=shape)


def _allocate(descriptor: int, size: int) -> None:
  if hasattr(os, "posix_fallocate"):
    os.posix_fallocate(descriptor, 0, size)
  else:  # macOS
    os.ftruncate(descriptor, size)
