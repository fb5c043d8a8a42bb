"""The process that decodes files for sandbox.py, confined before it reads any.

It gets its requests through a socket, with descriptors of the files that it
may read or write, and answers through a pipe. Functions that it shall call are
imported before it is confined.

  request:  length, descriptors; pickle of (function, args, limits, paths)
  reply:    sizes of the header and of each buffer; header, buffers (wire.py)
"""

import contextlib
import fcntl
import importlib
import io
import math
import os
import pickle
import pkgutil
import resource
import signal
import socket
import time
from typing import Any, BinaryIO

import av
import numpy as np

from v2a_jax.media import confine, opening, wire, work
from v2a_jax.media.base import Limits, MediaError
from v2a_jax.media.wire import LENGTH, MAX_FILES


def serve() -> None:
  """Answers requests until the parent closes the socket."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  requests = socket.socket(fileno=0)
  replies = io.FileIO(os.dup(1), "w")
  os.dup2(2, 1)  # output of libraries must not mix with the replies
  _import_late_parts()
  own_size = _open_own_size()
  os.environ.clear()
  _reply(replies, ("ready", list(confine.confine())))
  while True:
    length, files, *_ = socket.recv_fds(requests, LENGTH.size, MAX_FILES)
    if len(length) < LENGTH.size:
      return
    message = _receive(requests, LENGTH.unpack(length)[0])
    with _watched_parent(requests):
      answer = _answer(message, files, own_size)
      for descriptor in files:
        os.close(descriptor)
      _lift_limits()
    _reply(replies, answer)


def _import_late_parts() -> None:
  """Imports what PyAV and NumPy would import only when they need it."""
  for module in pkgutil.walk_packages(av.__path__, "av."):
    if not module.name.endswith("__main__"):
      importlib.import_module(module.name)
  str(np.zeros(1))


def _receive(requests: socket.socket, length: int) -> bytearray:
  data = bytearray(length)
  view = memoryview(data)
  while view:
    count = requests.recv_into(view)
    if not count:
      os._exit(0)  # the parent is gone
    view = view[count:]
  return data


@contextlib.contextmanager
def _watched_parent(requests: socket.socket):
  """Ends this process, also within a decoder, when the parent ends.

  The kernel signals whatever happens on the socket, and nothing arrives there
  before the reply.
  """
  flags = fcntl.fcntl(requests, fcntl.F_GETFL)
  fcntl.fcntl(requests, fcntl.F_SETOWN, os.getpid())
  fcntl.fcntl(requests, fcntl.F_SETFL, flags | os.O_ASYNC)
  try:
    yield
  finally:
    fcntl.fcntl(requests, fcntl.F_SETFL, flags)


def _answer(
  message: bytearray, files: list[int], own_size: int | None
) -> tuple[str, Any]:
  try:
    function, args, limits, paths = pickle.loads(message)
    opening.granted.clear()
    opening.granted.update(zip(paths, files, strict=True))
    _set_limits(limits, own_size)
    return "done", function(*args)
  except MemoryError:
    return "memory", None
  except MediaError as e:
    return "refused", e
  except Exception as e:
    return "failed", f"{type(e).__name__}: {e}"


def _reply(stream: BinaryIO, value: Any) -> None:
  try:
    header, buffers = wire.encode(value)
  except wire.WireError as e:
    header, buffers = wire.encode(("failed", str(e)))
  sizes = [len(header), *map(len, buffers)]
  writer = io.BufferedWriter(stream)
  for part in (LENGTH.pack(len(sizes)), *map(LENGTH.pack, sizes), header):
    writer.write(part)
  for buffer in buffers:
    writer.write(buffer)
  writer.flush()
  writer.detach()


def _set_limits(limits: Limits, own_size: int | None) -> None:
  """Sets limits on this process: address space, and CPU time as it is earned."""
  _set_soft(resource.RLIMIT_AS, _address_space(own_size) + limits.memory_bytes)
  total = checked = time.process_time() + limits.seconds
  _set_soft(resource.RLIMIT_CPU, math.ceil(total))

  def earn(seconds: float) -> None:
    nonlocal total, checked
    total += seconds
    now = time.process_time()
    if now + limits.seconds > checked + 1:
      checked = now + limits.seconds
      _set_soft(resource.RLIMIT_CPU, math.ceil(min(checked, total)))

  work.on_earned = earn


def _lift_limits() -> None:
  for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU):
    _set_soft(kind, resource.RLIM_INFINITY)


def _set_soft(kind: int, value: int) -> None:
  _, hard = resource.getrlimit(kind)
  if hard != resource.RLIM_INFINITY:
    value = hard if value == resource.RLIM_INFINITY else min(value, hard)
  with contextlib.suppress(ValueError, OSError):  # macOS has no RLIMIT_AS
    resource.setrlimit(kind, (value, hard))


def _open_own_size() -> int | None:
  """Opens what says how large this process is; None without /proc."""
  try:
    return os.open("/proc/self/statm", os.O_RDONLY)
  except OSError:
    return None


def _address_space(own_size: int | None) -> int:
  """Returns the mapped bytes of this process; 0 on systems without /proc."""
  if own_size is None:
    return 0
  return int(os.pread(own_size, 99, 0).split()[0]) * resource.getpagesize()
