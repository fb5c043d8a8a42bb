"""The processes of one run: how they find one another, and end together.

One process drives all devices of its host (on GPU clusters, one process per
GPU works too). Slurm, Open MPI, Cloud TPU and Kubernetes identify a process;
elsewhere JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID do.
"""

import atexit
import collections
from collections.abc import Mapping
import contextlib
import dataclasses
import os
import platform
import socket
import threading
from typing import Any, NoReturn

import jax
from jax._src.distributed import global_state  # Has the service's client.

from v2a_jax.parallel import console
from v2a_jax.parallel.watch import TRY_AGAIN, Watch, leave

_VARIABLES = (
  "JAX_COORDINATOR_ADDRESS",
  "JAX_NUM_PROCESSES",
  "JAX_PROCESS_ID",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timeouts:
  """Seconds that processes wait for one another.

  Attributes:
    join: until all processes have joined.
    lost: until a process that has stopped or died ends the others.
    barrier: until all have come to a named point, such as the first step.
  """

  join: float = 900.0
  lost: float = 120.0
  barrier: float = 1800.0

  def __post_init__(self):
    for name, seconds in vars(self).items():
      if not seconds >= 1:
        raise ValueError(
          f"a timeout ({name}) of {seconds:g} s is too short: give 1 s or more"
        )


@dataclasses.dataclass(frozen=True)
class _Run:
  """This process's part in a run of several processes."""

  watch: Watch
  timeouts: Timeouts
  passed: collections.Counter = dataclasses.field(
    default_factory=collections.Counter
  )


_run: _Run | None = None


def initialize(
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
  *,
  timeouts: Timeouts = Timeouts(),
) -> None:
  """Joins the other processes of the run; call it before any use of a device.

  Each of the first three arguments is taken from its environment variable where
  it is None; where all are unset JAX detects the cluster. Where the others do
  not come in time, the process ends with status 75.

  Args:
    coordinator: `host:port` of process 0.
    num_processes: number of processes of the run.
    process_id: index of this process, from 0.
    timeouts: how long to wait for the others.

  Raises:
    ValueError: only some of the three are set, a number is wrong, JAX detects
      no cluster, or process 0 cannot serve at its address.
  """
  global _run
  address, number, rank = (os.environ.get(name) or None for name in _VARIABLES)
  values = {
    "coordinator": coordinator or address,
    "num_processes": number if num_processes is None else num_processes,
    "process_id": rank if process_id is None else process_id,
  }
  place = ", ".join(f"{key}={value}" for key, value in values.items())
  unset = [value is None for value in values.values()]
  if any(unset) and not all(unset):
    raise ValueError(
      f"{place}: set all three ({', '.join(_VARIABLES)}), or none on a cluster"
      " that JAX detects"
    )
  coordinator, *numbers = values.values()
  try:
    with _deadline(timeouts.join):
      jax.distributed.initialize(
        coordinator,
        *(number if number is None else int(number) for number in numbers),
        # JAX aborts where these are over; ours come first.
        initialization_timeout=int(timeouts.join) + 60,
        heartbeat_timeout_seconds=int(4 * timeouts.lost) + 60,
      )
  except jax.errors.JaxRuntimeError as error:
    raise ValueError(
      f"process 0 cannot serve at {global_state.coordinator_address}"
      f" ({' '.join(str(error).split())}): is the port in use?"
    ) from error
  except ValueError as error:
    raise ValueError(
      f"cannot join a run with {place} ({error}): set {', '.join(_VARIABLES)},"
      " or start it on a cluster that JAX detects"
    ) from error
  if global_state.num_processes > 1:
    console.separate(global_state.process_id)
    watch = Watch(
      global_state.client,
      global_state.process_id,
      global_state.num_processes,
      timeout=timeouts.lost,
    )
    _run = _Run(watch, timeouts)
    atexit.register(watch.close)


def is_main_process() -> bool:
  """Says whether this process writes logs and prints."""
  return jax.process_index() == 0


def is_one_of_several() -> bool:
  """Says whether there are other processes in this run."""
  return _run is not None


def barrier(name: str) -> None:
  """Waits for the other processes at a point that all come to equally often.

  Where some do not come in time, the run ends with status 75 and a line that
  names them.
  """
  if _run is None:
    return
  watch, timeout = _run.watch, _run.timeouts.barrier
  _run.passed[name] += 1
  number = f"{name}/{_run.passed[name]}"
  watch.arrive(number)
  try:
    global_state.client.wait_at_barrier(f"v2a/{number}", int(1000 * timeout))
  except jax.errors.JaxRuntimeError:
    if not (absent := watch.missing(number)):
      raise  # Another trouble than that some did not come.
    watch.end_all(
      f"{absent} did not come to the barrier {name!r} within"
      f" {timeout:g} s; hosts/*.json in the workdir say what they were doing",
      TRY_AGAIN,
    )


def all_fail_at(step: int) -> bool:
  """Says whether an error ends all processes, and after the same step.

  Then they can still save together what they have. A process whose error is its
  own finds that out within a quarter of the time after which one is lost.
  """
  if _run is None:
    return True
  milliseconds = int(1000 * _run.timeouts.lost / 4)
  try:
    global_state.client.wait_at_barrier(f"v2a/failed/{step}", milliseconds)
  except jax.errors.JaxRuntimeError:
    return False
  return True


def report(facts: Mapping[str, Any]) -> None:
  """Sets what the heartbeats of this process say, such as its step."""
  if _run is not None:
    _run.watch.report(facts)


def heartbeats() -> dict[int, dict[str, Any]]:
  """Returns the newest heartbeat of each process; process 0 has them all."""
  return dict(_run.watch.beats) if _run else {}


def end_to_try_again(line: str) -> NoReturn:
  """Ends all processes with a line and the status that asks for a requeue."""
  if _run is not None:
    _run.watch.end_all(line, TRY_AGAIN)
  leave(TRY_AGAIN, line)


@contextlib.contextmanager
def together():
  """Makes an error inside the `with` block end the other processes as well."""
  try:
    yield
  except Exception as error:
    if _run is not None:
      _run.watch.fail(error)
    raise


@contextlib.contextmanager
def _deadline(seconds: float):
  """Ends the process, with a line, where joining takes longer."""
  timer = threading.Timer(seconds, _give_up, [seconds])
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


def _give_up(seconds: float) -> None:
  """Says whom this process has waited for in vain, and ends it."""
  address = global_state.coordinator_address
  if address is None:
    line = f"JAX has found no coordinator on this cluster within {seconds:g} s"
  elif not global_state.process_id or _answers(address):
    line = (
      f"{address} answers, but not all {global_state.num_processes} processes"
      f" have joined within {seconds:g} s: see why the others have not started,"
      " and that all were given the same address and number of processes"
    )
  else:
    line = (
      f"nobody answers at {address}, where process 0 of"
      f" {global_state.num_processes} should be, within {seconds:g} s: check"
      " that it runs, the name and port (--coordinator), and firewalls"
    )
  me = f"process {global_state.process_id} (host {platform.node()})"
  leave(TRY_AGAIN, f"{me}: {line}")


def _answers(address: str) -> bool:
  """Says whether something listens at `host:port`."""
  host, _, port = address.rpartition(":")
  try:
    with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
      return True
  except (OSError, ValueError):
    return False
