"""The end of a run that has lost a process.

A collective whose partner is gone waits for ever, or aborts the process inside
C++. So each process has two threads beside its main one. The first exchanges
heartbeats through JAX's coordination service, which runs in process 0; the
second ends the process when process 0 names a lost or failed one, or does not
answer itself. An abort of JAX (it aborts when the service's connection closes)
is caught and explained the same way.

Everything happens within `timeout` seconds: half of it is how long a process may
be silent, and a tenth how long process 0 stays for the others to hear from it.
"""

import atexit
from collections.abc import Mapping
import contextlib
import ctypes
import json
import logging
import multiprocessing
import os
import platform
import re
import signal
import sys
import threading
import time
from typing import Any, NoReturn

import jax

# EX_TEMPFAIL of sysexits.h: the same command may well succeed next time.
TRY_AGAIN = 75
FAILED = 2

_KEYS = "v2a/watch"
# Status codes in errors of collectives and of the service, which JAX raises as
# errors of several types.
_OF_OTHERS = re.compile(
  "(ABORTED|CANCELLED|DEADLINE_EXCEEDED|FAILED_PRECONDITION|INTERNAL"
  "|UNAVAILABLE|UNKNOWN): "
)
_TICK = 0.1
_LEAVE_SECONDS = 5.0
_LEFT = "left"  # Phase of a process that needs no watching any more.

_log = logging.getLogger(__name__)


def leave(code: int, line: str = "") -> NoReturn:
  """Ends this process at once: no exit handler waits for other processes.

  Args:
    code: exit status.
    line: what to print on standard error before, and to log.
  """
  # Even where a console or a disk hangs.
  deadline = threading.Timer(_LEAVE_SECONDS, os._exit, [code])
  deadline.daemon = True
  deadline.start()
  try:
    _log.info("%s", line or f"ends with status {code}")
    for child in multiprocessing.active_children():
      child.kill()
    if line:
      print(line, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    logging.shutdown()
  finally:
    os._exit(code)


class Watch:
  """Heartbeats of all processes, and the end of the run when one stops.

  Attributes:
    beats: newest heartbeat of each process; process 0 knows them all.
  """

  def __init__(self, client: Any, process: int, count: int, *, timeout: float):
    """Starts to watch.

    Args:
      client: JAX's client of the coordination service.
      process: index of this process.
      count: number of processes.
      timeout: seconds within which a lost process ends the others.
    """
    self.beats: dict[int, dict[str, Any]] = {}
    self._client, self._process, self._count = client, process, count
    self._timeout, self._silence = timeout, 0.5 * timeout
    self._interval = min(5.0, timeout / 20)
    self._report: Mapping[str, Any] = {"phase": "start"}
    self._heard = {p: time.monotonic() for p in range(1, count)}
    self._exchanged, self._refused = time.monotonic(), False
    self._closed = threading.Event()
    self._ending = threading.Lock()
    self._send()
    first = client.blocking_key_value_get(_key("beat", 0), int(1000 * timeout))
    self.beats[0] = json.loads(first)
    for target in (self._keep_exchanging, self._keep_judging):
      threading.Thread(target=target, daemon=True).start()
    self._catch_aborts()

  def report(self, facts: Mapping[str, Any]) -> None:
    """Sets what the next heartbeats say, such as the step."""
    self._report = facts

  def fail(self, error: Exception) -> None:
    """Tells the other processes of an error that ends this one.

    An error of a collective may be the trace of a lost process; whether it is
    will be known within the timeout, and then this does not return.
    """
    if _OF_OTHERS.search(str(error)):
      self._closed.wait(self._timeout)
    line = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
    self._tell(f"{self._name(self._process)} failed with {line}", FAILED)
    self.close()
    # JAX would wait for the others when the interpreter ends.
    atexit.register(leave, FAILED)

  def end_all(self, line: str, code: int) -> NoReturn:
    """Ends all processes with one line and an exit code."""
    self._tell(line, code)
    if self._process:
      self._closed.wait(self._timeout)  # Until process 0 says so.
    self._end(line, code)
    raise AssertionError("another thread is ending this process")

  def close(self) -> None:
    """Stops watching; the process ends by itself from here on."""
    if self._closed.is_set():
      return
    self._closed.set()
    if time.monotonic() - self._exchanged < 3 * self._interval:
      self._report = {"phase": _LEFT}
      with contextlib.suppress(jax.errors.JaxRuntimeError):
        self._send()
    signal.signal(signal.SIGABRT, signal.SIG_DFL)

  def missing(self, name: str) -> str:
    """Names the processes that have not come to a barrier."""
    prefix = _key("barrier", name)
    came = {
      int(key.rpartition("/")[2])
      for key, _ in self._client.key_value_dir_get(prefix)
    }
    absent = [p for p in range(self._count) if p not in came]
    known = self._read_beats()
    return " and ".join(_name(p, known.get(p, {})) for p in absent)

  def arrive(self, name: str) -> None:
    """Says that this process has come to a barrier."""
    key = f"{_key('barrier', name)}/{self._process}"
    self._client.key_value_set(key, "", True)

  def _name(self, process: int) -> str:
    return _name(process, self.beats.get(process, {}))

  def _send(self) -> None:
    beat = {
      "host": platform.node(),
      "pid": os.getpid(),
      "time": time.time(),
      **self._report,
    }
    self.beats[self._process] = beat
    key = _key("beat", self._process)
    self._client.key_value_set(key, json.dumps(beat), True)

  def _read_beats(self) -> dict[int, dict[str, Any]]:
    rows = self._client.key_value_dir_get(_key("beat"))
    return {int(key.rpartition("/")[2]): json.loads(v) for key, v in rows}

  def _keep_exchanging(self) -> None:
    while not self._closed.wait(self._interval):
      try:
        self._send()
        self._lead() if self._process == 0 else self._follow()
        self._exchanged, self._refused = time.monotonic(), False
      except jax.errors.JaxRuntimeError:
        self._refused = True

  def _lead(self) -> None:
    """Listens to all processes, and announces a verdict on the lost."""
    now = time.monotonic()
    for process, beat in self._read_beats().items():
      if process and beat != self.beats.get(process):
        self._heard[process] = now
      self.beats[process] = beat
      if beat["phase"] == _LEFT:
        self._heard.pop(process, None)
    told = self._told("failed")
    if told:
      line = "; ".join(dict.fromkeys(one["line"] for one in told))
      self._tell(line, told[0]["code"])
      self._end(line, told[0]["code"])
    lost = [p for p, t in self._heard.items() if now - t > self._silence]
    if lost and not self._closed.is_set():
      line = self._describe(lost)
      self._tell(line, TRY_AGAIN)
      self._end(line, TRY_AGAIN)

  def _tell(self, line: str, code: int) -> None:
    """Leaves word for the others, and gives them time to hear it.

    Process 0 listens to the others, and they to it.
    """
    key = _key("failed", self._process) if self._process else _key("verdict", 0)
    try:
      self._client.key_value_set(
        key, json.dumps({"line": line, "code": code}), True
      )
    except jax.errors.JaxRuntimeError:
      return  # Process 0 has gone.
    self._closed.wait(0.1 * self._timeout)

  def _told(self, what: str) -> list[dict[str, Any]]:
    """Returns what was left by `_tell`."""
    rows = self._client.key_value_dir_get(_key(what))
    return [json.loads(text) for _, text in rows]

  def _follow(self) -> None:
    """Listens to process 0, and ends this process if it says so."""
    text = self._client.key_value_try_get(_key("beat", 0))
    self.beats[0] = json.loads(text)
    for verdict in self._told("verdict"):
      self._end(verdict["line"], verdict["code"], shown=False)

  def _keep_judging(self) -> None:
    """Ends this process if process 0, and the service in it, is silent."""
    before = time.monotonic()
    while not self._closed.wait(_TICK):
      now = time.monotonic()
      if now - before > max(1.0, 10 * _TICK):
        # This process was stopped: it must listen before it judges.
        self._exchanged = now
        self._heard = {p: now for p in list(self._heard)}
      before = now
      if now - self._exchanged > self._silence:
        self._end(self._describe([0]), TRY_AGAIN)

  def _describe(self, lost: list[int]) -> str:
    named = []
    for process in lost:
      beat = self.beats.get(process, {})
      step = f"step {beat['step']}, " if "step" in beat else ""
      silent = time.time() - beat.get("time", time.time())
      named.append(
        f"{self._name(process)}, silent for {silent:.0f} s after"
        f" {step}phase {beat.get('phase', 'start')}"
      )
    saved = self.beats[0].get("saved")  # As it was some seconds ago.
    known = "" if saved is None else f", of step {saved} or later"
    return (
      f"lost {'; '.join(named)}. Nothing can be saved without all processes, so"
      f" they end with status {TRY_AGAIN}; the same command goes on from the"
      f" newest checkpoint{known}"
    )

  def _end(self, line: str, code: int, *, shown: bool = True) -> None:
    """Says why and ends this process; the first to come here does it."""
    if self._closed.is_set() or not self._ending.acquire(blocking=False):
      return
    if not shown:
      _log.info("%s", line)
    leave(code, line if shown else "")

  def _catch_aborts(self) -> None:
    """Makes SIGABRT call `_explain_abort`, in the thread that aborts.

    A handler of Python's `signal` module would run too late: it waits for the
    main thread, and abort() ends the process when the handler in C returns.
    """
    self._handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(self._explain_abort)
    install = ctypes.CDLL(None).signal
    install.argtypes = [ctypes.c_int, ctypes.c_void_p]
    install.restype = ctypes.c_void_p
    install(signal.SIGABRT, ctypes.cast(self._handler, ctypes.c_void_p))

  def _explain_abort(self, _: int) -> None:
    """Finds out whether an abort is the end of process 0; then ends this one."""
    began = time.monotonic()
    while time.monotonic() - began < 4 * self._interval + 1:
      if self._refused:
        break
      time.sleep(_TICK / 2)
    if self._refused or self._exchanged < began:
      self._end(self._describe([0]), TRY_AGAIN)
    line = f"{self._name(self._process)} aborted inside C++"
    self._end(line, 128 + signal.SIGABRT)
    time.sleep(self._timeout)  # Another thread is ending the process.


def _key(*parts: Any) -> str:
  return "/".join([_KEYS, *map(str, parts)])


def _name(process: int, beat: Mapping[str, Any]) -> str:
  return f"process {process} (host {beat.get('host', 'unknown')})"
