"""Which processes of a run hold the others up, read off their heartbeats."""

from collections.abc import Mapping
import statistics
from typing import Any

# A batch that has been waited for this long is a stall.
_STALL_SECONDS = 20.0
# A host's own seconds a step are too many from this share of the step on.
_SLOW_SHARE = 0.25


def slow_hosts(beats: Mapping[int, Mapping[str, Any]]) -> dict[int, str]:
  """Finds the processes that hold the others up.

  Steps take as long on all, since each waits for the slowest. So what counts is
  the time that a process does not wait for its devices: that for data, and the
  rest of its own.

  Args:
    beats: heartbeats by process, with seconds a step: `step_time`, of it
      `data_time` and `device_time`.

  Returns:
    A line on each such process.
  """
  lines = {}
  for process, beat in beats.items():
    stalled = beat.get("phase_seconds", 0.0)
    if beat.get("phase") == "data" and stalled > _STALL_SECONDS:
      lines[process] = (
        f"{_name(process, beat)} has waited {stalled:.0f} s for the batch"
        f" after step {beat['step']}"
      )
  known = {p: beat for p, beat in beats.items() if beat.get("step_time")}
  if len(known) < 2:
    return lines
  for kind, what in ((_data, "waits for data"), (_own, "works on the host")):
    usual = statistics.median_low([kind(beat) for beat in known.values()])
    for process, beat in known.items():
      seconds, step = kind(beat), beat["step_time"]
      if seconds > _SLOW_SHARE * step and seconds > 2 * usual:
        lines.setdefault(
          process,
          f"{_name(process, beat)} holds the others up: it {what}"
          f" {seconds:.2g} s of a step of {step:.2g} s, the usual host"
          f" {usual:.2g} s",
        )
  return lines


def _name(process: int, beat: Mapping[str, Any]) -> str:
  return f"process {process} (host {beat['host']})"


def _data(beat: Mapping[str, Any]) -> float:
  return beat["data_time"]


def _own(beat: Mapping[str, Any]) -> float:
  return beat["step_time"] - beat["data_time"] - beat["device_time"]
