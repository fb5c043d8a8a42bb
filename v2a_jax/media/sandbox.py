"""Reading files that nobody vouches for, in a child that may be killed.

Decoders crash, hang and eat memory on hostile or damaged input. Here a call
runs in a child process under limits on wall clock, processor time and address
space; whatever goes wrong there is one `MediaError` here. The child is a fresh
Python (it never forks this process, so threads and devices are safe), lives on
for the next call, and is replaced after a fault. It inherits the user's
rights: these are limits on what a file can cost, not a jail for an attacker
who already runs code in the decoder.

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
  Clip,
  Limits,
  MediaError,
  MediaInfo,
  Source,
  source_name,
)

_T = TypeVar("_T")
_LENGTH = struct.Struct("<Q")
_DEFAULT = Limits()
_CORES = 4  # decoding threads whose processor time adds up
_START = 120  # s for a child to import what it needs
_GRACE = 2  # s after which a child without a parent ends itself
_ADVICE = "leave it out, or re-encode it"


def probe_limited(source: Source, *, limits: Limits = _DEFAULT) -> MediaInfo:
  """`reader.probe` under limits; a crash or hang is a MediaError too."""
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
  limits: Limits = _DEFAULT,
) -> Clip:
  """Facts, frames and sound of one file, read under limits.

  Args:
    source: a path, or the file's bytes.
    sample_rate: Hz of the sound.
    channels: 1 (mean), 2 or None; see `reader.read_audio`.
    max_fps: see `reader.read_video`.
    size: (height, width) to squash pictures to; None keeps theirs.
    start: seconds after the first frame.
    duration: seconds, or None for all.
    limits: what the file may cost.

  Returns:
    The clip; its `video` or `audio` is None where the file has none.

  Raises:
    MediaError: the file cannot be read within the limits; one line why.
  """
  reader.check_window(start, duration)
  read = functools.partial(
    reader.decode_clip,
    sample_rate=sample_rate,
    channels=channels,
    max_fps=max_fps,
    size=size,
    start=start,
    duration=duration,
    limits=limits,
  )
  return run_limited(read, source, limits=limits)


def run_limited(
  function: Callable[..., _T], *args: Any, limits: Limits = _DEFAULT
) -> _T:
  """Calls `function(*args)` in a child process under `limits`.

  Args:
    function: a function of an importable module, or a partial of one.
    *args: picklable; a path or bytes in front names the file in errors.
    limits: `seconds` and `memory_bytes` are enforced on the child.

  Returns:
    What the function returns; arrays come back without being copied twice.

  Raises:
    MediaError: that of the function; or it failed in another way, crashed,
      took too long, or wanted too much memory.
  """
  name = repr(function)
  if args and isinstance(args[0], str | bytes | os.PathLike):
    name = source_name(args[0])
  try:
    worker = _take_worker()
    try:
      status, value = worker.call((function, args, limits), limits.seconds)
    except BaseException:
      worker.kill()
      raise
  except _Fault as e:
    raise MediaError(name, str(e), _ADVICE) from None
  if status == "memory":
    worker.kill()
    raise MediaError(
      name,
      f"needs over {limits.memory_bytes >> 20:,} MiB of memory",
      "read less of it, or raise Limits.memory_bytes",
    )
  _give_worker(worker)
  if status == "refused":
    raise value
  if status == "failed":
    raise MediaError(name, value, _ADVICE)
  return value


class _Fault(Exception):
  """The child is of no further use."""


_idle: list["_Worker"] = []
_lock = threading.Lock()
# A forked process must not talk to its parent's children.
os.register_at_fork(after_in_child=_idle.clear)


def _take_worker() -> "_Worker":
  with _lock:
    while _idle:
      worker = _idle.pop()
      if worker.alive():
        return worker
  return _Worker()


def _give_worker(worker: "_Worker") -> None:
  with _lock:
    _idle.append(worker)


class _Worker:
  """One child, asked one thing at a time. It ends when this process does."""

  def __init__(self):
    path = os.pathsep.join(p or os.getcwd() for p in sys.path)
    limits = {"MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1"}
    self._stderr = tempfile.TemporaryFile()
    self._process = subprocess.Popen(
      [sys.executable, "-c", f"from {__name__} import _serve; _serve()"],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._stderr,
      env={**os.environ, **limits, "PYTHONPATH": path},
    )
    self._expired = False
    # Its start counts for no file, however busy the machine.
    self._within(_START, lambda: _receive_reply(self._process.stdout))

  def alive(self) -> bool:
    return self._process.poll() is None

  def kill(self) -> None:
    self._process.kill()
    self._process.wait()
    with contextlib.suppress(OSError):
      self._process.stdin.close()
    self._process.stdout.close()
    self._stderr.close()

  def call(self, request: Any, seconds: float) -> tuple[str, Any]:
    """Returns (status, value); raises _Fault if the child fell."""
    message = pickle.dumps(request)

    def ask():
      _send(self._process.stdin, message)
      return _receive_reply(self._process.stdout)

    return self._within(seconds, ask)

  def _within(self, seconds: float, step: Callable[[], _T]) -> _T:
    timer = threading.Timer(seconds, self._expire)
    timer.start()
    try:
      result = step()
    except (OSError, EOFError) as e:
      raise _Fault(self._last_words(seconds)) from e
    finally:
      timer.cancel()
      timer.join()
    if self._expired:  # just as the reply came
      raise _Fault(self._last_words(seconds))
    return result

  def _expire(self) -> None:
    self._expired = True
    self._process.kill()

  def _last_words(self, seconds: float) -> str:
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
  return _exactly(stream, _LENGTH.unpack(_exactly(stream, _LENGTH.size))[0])


def _exactly(stream: BinaryIO, length: int) -> bytearray:
  data = bytearray(length)
  view = memoryview(data)
  while view:
    got = stream.readinto(view)
    if not got:
      raise EOFError
    view = view[got:]
  return data


def _receive_reply(stream: BinaryIO) -> tuple[str, Any]:
  payload, sizes = pickle.loads(_receive(stream))
  buffers = [_exactly(stream, size) for size in sizes]
  return pickle.loads(payload, buffers=buffers)


def _serve() -> None:
  """The child: answers requests until its parent closes the pipe."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # that is for the parent
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  requests = sys.stdin.buffer
  replies = io.FileIO(os.dup(1), "w")
  os.dup2(2, 1)  # what libraries print must not get among the replies
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
  except Exception as e:  # pylint: disable=broad-exception-caught
    return "failed", f"{type(e).__name__}: {e}"


def _reply(stream: io.FileIO, status: str, value: Any) -> None:
  """Sends arrays as raw buffers beside the pickle, not inside it."""
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
  """Limits this process from now on: memory, processor time, an alarm."""
  used = sum(os.times()[:2])
  seconds = math.ceil(used + limits.seconds * _CORES) + _GRACE
  _set_soft(resource.RLIMIT_AS, _address_space() + limits.memory_bytes)
  _set_soft(resource.RLIMIT_CPU, seconds)
  signal.setitimer(signal.ITIMER_REAL, limits.seconds + _GRACE)


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
  """Bytes that this process has mapped; 0 where /proc does not say."""
  try:
    with open("/proc/self/statm", encoding="ascii") as file:
      return int(file.read().split()[0]) * resource.getpagesize()
  except OSError:
    return 0
