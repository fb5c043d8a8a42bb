"""Reading of untrusted files in a child process that may be killed.

Decoders crash, hang and exhaust memory on hostile or damaged input. Here a
call runs in a child process with limits on work and memory; any failure there
is one `MediaError` here. The child is a new Python interpreter (this process is
never forked, so threads and devices are safe). It serves further calls and is
replaced after a failure.

Before it reads a file, the child gives up for good to open files, to use a
network and to start programs, as far as the kernel can enforce it (confine.py).
This process opens the files that a call names and passes their descriptors. So
code that a hostile file might run in the decoder finds that file, the memory of
the child, and what it was given before; what it sends back is data (wire.py).
"""

from collections.abc import Callable
import contextlib
import functools
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, TypeVar

from v2a_jax.basics.files import open_regular
from v2a_jax.media import reader, wire
from v2a_jax.media.base import (
  DEFAULT_LIMITS,
  Clip,
  Limits,
  MediaError,
  MediaInfo,
  ReadOptions,
  Source,
  more,
  source_name,
)
from v2a_jax.media.wire import LENGTH, MAX_FILES

_T = TypeVar("_T")
_START_SECONDS = 120  # timeout for a child to start and import its modules
_CHILD = "import v2a_jax.media; from v2a_jax.media.child import serve; serve()"
_ADVICE = "leave it out, or re-encode it"
_MESSAGE_BYTES = 64 << 20  # of a reply besides its arrays
# Variables that Python needs to start; the child drops them.
_VARIABLES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")


def probe_limited(
  source: Source,
  *,
  limits: Limits = DEFAULT_LIMITS,
  audio_track: int | None = None,
) -> MediaInfo:
  """Calls `reader.probe` in a child process under limits.

  Raises:
    MediaError: as `reader.probe`, or it crashed or exceeded a limit.
  """
  probe = limited(reader.probe)
  return probe(source, limits=limits, audio_track=audio_track)


def read_clip(
  source: Source,
  *,
  sample_rate: int,
  channels: int | None = None,
  max_fps: float | None = None,
  size: tuple[int, int] | None = None,
  start: float = 0.0,
  duration: float | None = None,
  audio_track: int | None = None,
  limits: Limits = DEFAULT_LIMITS,
) -> Clip:
  """Reads metadata, frames and audio of one file in a child process.

  The arguments are those of `read_video` and `read_audio`.

  Returns:
    The clip; `video` or `audio` is None if the file has no such stream.

  Raises:
    MediaError: the file cannot be read within the limits.
    ValueError: an argument is out of range.
  """
  options = ReadOptions(
    sample_rate=sample_rate,
    channels=channels,
    max_fps=max_fps,
    size=size,
    start=start,
    duration=duration,
    audio_track=audio_track,
    limits=limits,
  )
  return run_limited(reader.decode_clip, source, options, limits=limits)


def run_limited(
  function: Callable[..., _T],
  *args: Any,
  limits: Limits = DEFAULT_LIMITS,
  output: str | os.PathLike | None = None,
) -> _T:
  """Calls `function(*args)` in a child process under `limits`.

  Args:
    function: function of `media`, of NumPy or of Python, or a
      `functools.partial` of one; the child cannot import other modules.
    *args: picklable arguments; if the first is a path or bytes, errors name it.
      Those that are paths of files can be read by the child, by
      `opening.open_source`.
    limits: of them, `seconds` and `memory_bytes` are enforced on the child.
    output: path of a file, which exists, that the child may write as well. Such
      a child serves one call only.

  Returns:
    The result, which must be of the types of wire.py.

  Raises:
    MediaError: the function raised it or another exception, crashed, took too
      long, or needed too much memory.
  """
  name = repr(function)
  if args and isinstance(args[0], str | bytes | os.PathLike):
    name = source_name(args[0])
  try:
    worker = _acquire_worker() if output is None else _Worker()
    try:
      with _opened(args, output) as files:
        status, value = worker.call(function, args, limits, files)
    except BaseException:
      worker.kill()
      raise
  except _WorkerError as e:
    raise MediaError(name, str(e), e.advice) from None
  if status == "memory" or output is not None:
    worker.kill()
  else:
    with _lock:
      _idle.append(worker)
  if status == "memory":
    raise MediaError(
      name,
      f"needs over {limits.memory_bytes >> 20:,} MiB of memory",
      f"read less of it, or {more('memory_bytes')}",
    )
  if status == "refused":
    raise value
  if status == "failed":
    raise MediaError(name, value, _ADVICE)
  return value


def limited(function: Callable[..., _T]) -> Callable[..., _T]:
  """Returns `function(source, …)` of the reader as one that runs in a child.

  A keyword argument `limits` is enforced there too.
  """

  def call(source: Source, **settings: Any) -> _T:
    limits = settings.get("limits", DEFAULT_LIMITS)
    read = functools.partial(function, **settings)
    return run_limited(read, source, limits=limits)

  return call


@functools.cache
def enforced() -> tuple[str, ...]:
  """Returns what confines the child on this machine; see `confine.confine`."""
  worker = _acquire_worker()
  with _lock:
    _idle.append(worker)
  return worker.enforced


@contextlib.contextmanager
def _opened(args, output):
  """Yields {path: descriptor} of the files that a call may use."""
  paths = {os.fspath(a): os.O_RDONLY for a in args if _is_path(a)}
  if output is not None:
    paths[os.fspath(output)] = os.O_RDWR
  files = {}
  try:
    for path, flags in list(paths.items())[-MAX_FILES:]:
      # The child says what is wrong with a file that it does not get.
      with contextlib.suppress(OSError, ValueError):
        files[path] = open_regular(path, flags)
    yield files
  finally:
    for descriptor in files.values():
      os.close(descriptor)


def _is_path(value: Any) -> bool:
  return isinstance(value, str) or (
    isinstance(value, os.PathLike) and isinstance(os.fspath(value), str)
  )


class _WorkerError(Exception):
  """A child process died or was killed."""

  def __init__(self, reason: str, advice: str = _ADVICE):
    super().__init__(reason)
    self.advice = advice


_idle: list["_Worker"] = []
_lock = threading.Lock()
# A forked process must not use its parent's children.
os.register_at_fork(after_in_child=_idle.clear)


def _acquire_worker() -> "_Worker":
  with _lock:
    while _idle:
      worker = _idle.pop()
      if worker.alive():
        return worker
  return _Worker()


class _Worker:
  """A child process that serves one call at a time, and ends with this one.

  Attributes:
    enforced: what the kernel enforces on it.
  """

  def __init__(self):
    path = os.pathsep.join(p or os.getcwd() for p in sys.path)
    kept = {k: os.environ[k] for k in _VARIABLES if k in os.environ}
    # Arenas and threads reserve address space, which is limited; and a process
    # with threads is not confined as a whole.
    memory = {"MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1"}
    self._stderr = tempfile.TemporaryFile()
    self._requests, theirs = socket.socketpair()
    with theirs:
      self._process = subprocess.Popen(
        [sys.executable, "-c", _CHILD],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=self._stderr,
        env={**kept, **memory, "PYTHONPATH": path, "PYTHONUTF8": "1"},
      )
    self._reason = ""  # why this process killed the child
    # The start-up time counts towards no file's limit.
    _, self.enforced = self._exchange(
      lambda: self._receive(_MESSAGE_BYTES), _START_SECONDS
    )
    self.enforced = tuple(self.enforced)

  def alive(self) -> bool:
    """Returns whether the child is running."""
    return self._process.poll() is None

  def kill(self) -> None:
    """Kills the child and closes its pipes."""
    self._process.kill()
    self._process.wait()
    self._requests.close()
    self._process.stdout.close()
    self._stderr.close()

  def call(self, function, args, limits: Limits, files) -> tuple[str, Any]:
    """Sends a request and returns the reply; _WorkerError if there is none."""
    message = pickle.dumps((function, args, limits, list(files)))

    def exchange():
      length = LENGTH.pack(len(message))
      socket.send_fds(self._requests, [length], list(files.values()))
      self._requests.sendall(message)
      return self._receive(limits.memory_bytes + _MESSAGE_BYTES)

    return self._exchange(exchange, limits.seconds)

  def _exchange(self, exchange: Callable[[], _T], seconds: float) -> _T:
    done = threading.Event()
    watch = threading.Thread(target=self._watch, args=(done, seconds))
    watch.start()
    try:
      result = exchange()
    except (OSError, EOFError) as e:
      raise self._failure(seconds) from e
    except (wire.WireError, MemoryError) as e:
      raise _WorkerError(f"the reading process sent a {e}") from e
    finally:
      done.set()
      watch.join()
    if self._reason:  # while the reply arrived
      raise self._failure(seconds)
    return result

  def _watch(self, done: threading.Event, seconds: float) -> None:
    """Kills the child when it has used no CPU time for so many seconds."""
    used, since = -1.0, time.monotonic()
    while not done.wait(min(seconds / 8, 0.5)):
      now = _cpu_seconds(self._process.pid)
      if now is not None and now > used:
        used, since = now, time.monotonic()
      elif time.monotonic() - since > seconds:
        self._reason = f"takes over {seconds:g} s in which nothing moves"
        self._process.kill()
        return

  def _receive(self, limit: int) -> tuple[str, Any]:
    (count,) = LENGTH.unpack(self._read(LENGTH.size))
    if count > _MESSAGE_BYTES // LENGTH.size:
      raise wire.WireError(f"message of {count:,} parts")
    sizes = [LENGTH.unpack(self._read(LENGTH.size))[0] for _ in range(count)]
    if not sizes or sizes[0] > _MESSAGE_BYTES or sum(sizes) > limit:
      raise wire.WireError(f"message of {sum(sizes):,} bytes")
    header, *buffers = map(self._read, sizes)
    value = wire.decode(header, buffers)
    if not isinstance(value, tuple) or len(value) != 2:
      raise wire.WireError("message without a status")
    if (value[0] == "refused") != isinstance(value[1], MediaError):
      raise wire.WireError("message with another status")
    return value

  def _read(self, length: int) -> bytearray:
    data = bytearray(length)
    view = memoryview(data)
    while view:
      count = self._process.stdout.readinto(view)
      if not count:
        raise EOFError
      view = view[count:]
    return data

  def _failure(self, seconds: float) -> _WorkerError:
    """Returns why the child ended, as the reason of a MediaError."""
    code = self._process.wait()
    if code == -signal.SIGXCPU:
      self._reason = f"takes over {seconds:g} s of work beyond its length"
    if self._reason:
      advice = f"leave it out, re-encode it, or {more('seconds')}"
      return _WorkerError(self._reason, advice)
    if code < 0:
      return _WorkerError(f"crashes the decoder ({signal.Signals(-code).name})")
    self._stderr.seek(0)
    lines = self._stderr.read(1 << 20).decode(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    return _WorkerError(f"the reading process ended with code {code}: {last}")


def _cpu_seconds(pid: int) -> float | None:
  """Returns the CPU time of a process; None on systems without /proc."""
  try:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
      fields = file.read().rpartition(")")[2].split()
  except (OSError, UnicodeDecodeError):
    return None
  return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
