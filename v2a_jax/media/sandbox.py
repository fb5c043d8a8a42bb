"""Reading of untrusted files in a child process that may be killed.

Decoders crash, hang and exhaust memory on hostile or damaged input. Here a
call runs in a child process with limits on wall-clock time, CPU time and
address space; any failure there is one `MediaError` here. The child is a new
Python interpreter (this process is never forked, so threads and devices are
safe). It serves further calls and is replaced after a failure. It runs with
the user's permissions: the limits bound what a file can cost; they do not
contain an attacker who already runs code in the decoder.

  request:  length, pickle of (function, args, limits)
  reply:    length, pickle of (payload, buffer sizes), the buffers (arrays)
"""

from collections.abc import Callable
import contextlib
import functools
import io
import math
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from typing import Any, BinaryIO, TypeVar

from v2a_jax.media import reader
from v2a_jax.media.base import (
  DEFAULT_LIMITS,
  Clip,
  Limits,
  MediaError,
  MediaInfo,
  ReadOptions,
  Source,
  source_name,
)

_T = TypeVar("_T")
_LENGTH = struct.Struct("<Q")
_MAX_THREADS = 4  # decoding threads, whose CPU time adds up
_START_SECONDS = 120  # timeout for a child to start and import its modules
_GRACE_SECONDS = 2  # time over the limit at which a child ends itself
_ADVICE = "leave it out, or re-encode it"


def probe_limited(
  source: Source, *, limits: Limits = DEFAULT_LIMITS
) -> MediaInfo:
  """Calls `reader.probe` in a child process under limits.

  Raises:
    MediaError: as `reader.probe`, or it crashed or exceeded a limit.
  """
  return run_limited(
    functools.partial(reader.probe, limits=limits), source, limits=limits
  )


def read_clip(
  source: Source,
  *,
  sample_rate: int,
  channels: int | None = None,
  max_fps: float | None = None,
  size: tuple[int, int] | None = None,
  start: float = 0.0,
  duration: float | None = None,
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
    limits=limits,
  )
  return run_limited(reader.decode_clip, source, options, limits=limits)


def run_limited(
  function: Callable[..., _T], *args: Any, limits: Limits = DEFAULT_LIMITS
) -> _T:
  """Calls `function(*args)` in a child process under `limits`.

  Args:
    function: function of an importable module, or a `functools.partial` of one.
    *args: picklable arguments; if the first is a path or bytes, errors name it.
    limits: of them, `seconds` and `memory_bytes` are enforced on the child.

  Raises:
    MediaError: the function raised it or another exception, crashed, took too
      long, or needed too much memory.
  """
  name = repr(function)
  if args and isinstance(args[0], str | bytes | os.PathLike):
    name = source_name(args[0])
  try:
    worker = _acquire_worker()
    try:
      status, value = worker.call((function, args, limits), limits.seconds)
    except BaseException:
      worker.kill()
      raise
  except _WorkerError as e:
    raise MediaError(name, str(e), _ADVICE) from None
  if status == "memory":
    worker.kill()
    raise MediaError(
      name,
      f"needs over {limits.memory_bytes >> 20:,} MiB of memory",
      "read less of it, or raise Limits.memory_bytes",
    )
  with _lock:
    _idle.append(worker)
  if status == "refused":
    raise value
  if status == "failed":
    raise MediaError(name, value, _ADVICE)
  return value


class _WorkerError(Exception):
  """A child process died or was killed."""


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
  """A child process that serves one call at a time, and ends with this one."""

  def __init__(self):
    path = os.pathsep.join(p or os.getcwd() for p in sys.path)
    # Arenas and threads reserve address space, which is limited.
    memory = {"MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1"}
    self._stderr = tempfile.TemporaryFile()
    self._process = subprocess.Popen(
      [sys.executable, "-c", f"from {__name__} import _serve; _serve()"],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._stderr,
      env={**os.environ, **memory, "PYTHONPATH": path},
    )
    self._expired = False
    # The start-up time counts towards no file's limit.
    self._with_timeout(
      _START_SECONDS, lambda: _receive_reply(self._process.stdout)
    )

  def alive(self) -> bool:
    """Returns whether the child is running."""
    return self._process.poll() is None

  def kill(self) -> None:
    """Kills the child and closes its pipes."""
    self._process.kill()
    self._process.wait()
    with contextlib.suppress(OSError):
      self._process.stdin.close()
    self._process.stdout.close()
    self._stderr.close()

  def call(self, request: Any, seconds: float) -> tuple[str, Any]:
    """Sends a request and returns the reply; _WorkerError if there is none."""
    message = pickle.dumps(request)

    def exchange():
      _send(self._process.stdin, message)
      return _receive_reply(self._process.stdout)

    return self._with_timeout(seconds, exchange)

  def _with_timeout(self, seconds: float, exchange: Callable[[], _T]) -> _T:
    timer = threading.Timer(seconds, self._expire)
    timer.start()
    try:
      result = exchange()
    except (OSError, EOFError) as e:
      raise _WorkerError(self._failure(seconds)) from e
    finally:
      timer.cancel()
      timer.join()
    if self._expired:  # while the reply arrived
      raise _WorkerError(self._failure(seconds))
    return result

  def _expire(self) -> None:
    self._expired = True
    self._process.kill()

  def _failure(self, seconds: float) -> str:
    """Returns why the child ended, as the reason of a MediaError."""
    code = self._process.wait()
    if self._expired:
      return f"takes over {seconds:g} s to read"
    if code < 0:
      return f"crashes the decoder ({signal.Signals(-code).name})"
    self._stderr.seek(0)
    lines = self._stderr.read().decode(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    return f"the reading process ended with code {code}: {last}"


def _send(stream: BinaryIO, *parts) -> None:
  stream.write(_LENGTH.pack(len(parts[0])))
  for part in parts:
    stream.write(part)
  stream.flush()


def _receive(stream: BinaryIO) -> bytearray:
  (length,) = _LENGTH.unpack(_read_exactly(stream, _LENGTH.size))
  return _read_exactly(stream, length)


def _read_exactly(stream: BinaryIO, length: int) -> bytearray:
  data = bytearray(length)
  view = memoryview(data)
  while view:
    count = stream.readinto(view)
    if not count:
      raise EOFError
    view = view[count:]
  return data


def _receive_reply(stream: BinaryIO) -> tuple[str, Any]:
  payload, sizes = pickle.loads(_receive(stream))
  buffers = [_read_exactly(stream, size) for size in sizes]
  return pickle.loads(payload, buffers=buffers)


def _serve() -> None:
  """Runs in the child: answers requests until the parent closes the pipe."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  requests = sys.stdin.buffer
  replies = io.FileIO(os.dup(1), "w")
  os.dup2(2, 1)  # output of libraries must not mix with the replies
  _reply(replies, "ready", None)
  while True:
    try:
      message = _receive(requests)
    except EOFError:
      return
    _reply(replies, *_answer(message))


def _answer(message: bytearray) -> tuple[str, Any]:
  try:
    function, args, limits = pickle.loads(message)
    _limit_self(limits)
    return "done", function(*args)
  except MemoryError:
    return "memory", None
  except MediaError as e:
    return "refused", e
  except Exception as e:
    return "failed", f"{type(e).__name__}: {e}"


def _reply(stream: io.FileIO, status: str, value: Any) -> None:
  """Sends a reply, with arrays as raw buffers after the pickle."""
  _lift_limits()
  buffers: list[pickle.PickleBuffer] = []
  payload = pickle.dumps(
    (status, value), protocol=5, buffer_callback=buffers.append
  )
  raw = [buffer.raw() for buffer in buffers]
  header = pickle.dumps((payload, [len(part) for part in raw]))
  writer = io.BufferedWriter(stream)
  _send(writer, header, *raw)
  writer.detach()


def _limit_self(limits: Limits) -> None:
  """Sets limits on this process: address space, CPU time and an alarm."""
  used = sum(os.times()[:2])
  seconds = math.ceil(used + limits.seconds * _MAX_THREADS) + _GRACE_SECONDS
  _set_soft(resource.RLIMIT_AS, _address_space() + limits.memory_bytes)
  _set_soft(resource.RLIMIT_CPU, seconds)
  signal.setitimer(signal.ITIMER_REAL, limits.seconds + _GRACE_SECONDS)


def _lift_limits() -> None:
  signal.setitimer(signal.ITIMER_REAL, 0)
  for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU):
    _set_soft(kind, resource.RLIM_INFINITY)


def _set_soft(kind: int, value: int) -> None:
  _, hard = resource.getrlimit(kind)
  if hard != resource.RLIM_INFINITY:
    value = hard if value == resource.RLIM_INFINITY else min(value, hard)
  with contextlib.suppress(ValueError, OSError):  # macOS has no RLIMIT_AS
    resource.setrlimit(kind, (value, hard))


def _address_space() -> int:
  """Returns the mapped bytes of this process; 0 on systems without /proc."""
  try:
    with open("/proc/self/statm", encoding="ascii") as file:
      return int(file.read().split()[0]) * resource.getpagesize()
  except OSError:
    return 0
