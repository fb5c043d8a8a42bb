"""Loads and calls librosa's onset detection, one process at a time.

librosa compiles its loops with numba at import and at the first call, and keeps
them on disk. numba fills that cache without a lock: processes that fill it at
once can leave machine code that crashes (SIGSEGV) every later process that
reads it, until the cache is deleted. Measured with numba 0.68.1, three processes
at a time on an empty cache: 4 of 18 crashed, 0 of 12 with the lock.
"""

from collections.abc import Iterator
import contextlib
import fcntl
import os
import pathlib
import tempfile

import numpy as np


@contextlib.contextmanager
def one_process() -> Iterator[None]:
  """Holds a lock that a user's processes on this machine share.

  Where the lock cannot be opened, goes on without it.
  """
  name = f"v2a_jax-librosa-{os.getuid()}.lock"
  path = pathlib.Path(tempfile.gettempdir()) / name
  with contextlib.ExitStack() as stack:
    with contextlib.suppress(OSError):
      flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
      handle = os.open(path, flags, 0o600)
      stack.callback(os.close, handle)
      fcntl.flock(handle, fcntl.LOCK_EX)
    yield


with one_process():
  import librosa.feature
  import librosa.onset
  import librosa.util


def onset_detect(**settings) -> np.ndarray:
  """Returns what `librosa.onset.onset_detect` returns for its arguments."""
  with one_process():
    return librosa.onset.onset_detect(**settings)


def peak_pick(strength: np.ndarray, **settings) -> np.ndarray:
  """Returns what `librosa.util.peak_pick` returns for its arguments."""
  with one_process():
    return librosa.util.peak_pick(strength, **settings)
