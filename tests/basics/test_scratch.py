"""Large arrays are files, which are gone with them, and a full disk is an error."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from v2a_jax.basics import scratch


@pytest.fixture
def small(monkeypatch, tmp_path):
  """Arrays of a kilobyte are large; the folder that they are in."""
  monkeypatch.setattr(scratch, "LARGE", 1 << 10)
  monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
  return tmp_path


def anonymous() -> int:
  """Returns bytes of memory that are not of files."""
  with open("/proc/self/status") as file:
    (line,) = (line for line in file if line.startswith("RssAnon"))
  return 1024 * int(line.split()[1])


def test_an_array_on_disk_is_an_array(small):
  array = scratch.empty((1000, 2))
  assert isinstance(array, np.memmap) and array.dtype == np.float32
  array[:] = np.arange(2000).reshape(1000, 2)
  assert array[10:12].sum() == 20 + 21 + 22 + 23
  assert not list(small.iterdir())  # It has no name.
  assert not isinstance(scratch.empty(10), np.memmap)


def test_it_takes_no_memory_of_its_own():
  before = anonymous()
  array = scratch.empty(100 << 20)
  array[:] = 1.0
  assert anonymous() - before < 50 << 20


def test_a_full_disk_is_an_error_before_anything_is_written():
  """And no signal that ends the process, as writing into a mapping would be."""
  script = textwrap.dedent("""
    import resource, signal
    from v2a_jax.basics import scratch
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    try:
      scratch.empty(100 << 20)
    except OSError as error:
      print("refused", error)
  """)
  run = subprocess.run(
    [sys.executable, "-c", script],
    capture_output=True,
    text=True,
    check=False,
    env=os.environ,
  )
  assert run.returncode == 0 and run.stdout.startswith("refused")
  assert "needs 400 MiB more" in run.stdout and "$TMPDIR" in run.stdout
