"""The runs of a plan as a table: state, size, memory, cost and what they change."""

from collections.abc import Mapping, Sequence
import sys

from launch.sweep import points
from launch.sweep import state as state_lib
from launch.sweep import status as status_lib
from launch.sweep.plan import Job, Plan
from launch.table import short


def lines(plan: Plan) -> list[str]:
  """Formats a line for each run, and what all together cost."""
  jobs = {job.name: job for job in plan.jobs()}
  names = [point.name for point in plan.points]
  found = dict(zip(names, _states([jobs[name] for name in names])))
  table = []
  common = points.shared(plan.points)
  for point in plan.points:
    changed = _changes(
      {k: v for k, v in point.overrides.items() if k not in common}
    )
    columns = [f"{found[point.name]:10}", *_cost_cells(point.cost), point.name]
    table.append("  ".join([*columns, changed]).rstrip())
    if found[point.name] == state_lib.WONT_FIT:
      table.append(f"  {state_lib.why_not(point.cost)}")
  if any(p.cost for p in plan.points):
    names = ["state", "parameters", "batch", "FLOP/clip", "memory", "chip h"]
    widths = (10, 10, 9, 9, 16, 8)
    head = [f"{name:{width}}" for name, width in zip(names, widths)]
    table.insert(0, "  ".join([*head, "run"]))
  if common:
    table.insert(0, f"all with {_changes(common)}")
  hours = [p.cost.get("chip_hours") for p in plan.points]
  if all(hours):
    table.append(f"together {sum(hours):,.3g} chip-hours")
  return table


def _changes(overrides: Mapping) -> str:
  return " ".join(f"{key}={value}" for key, value in overrides.items())


def _states(jobs: Sequence[Job]) -> list[str]:
  """Returns the state of runs, with the step that they go on from.

  If the store of their workdirs cannot be reached, each is `-`, and a line on
  standard error says why.
  """
  found = []
  for job in jobs:
    try:
      now, _ = status_lib.state_of(job)
    except OSError as error:
      print(f"the state of runs is not known: {error}", file=sys.stderr)
      return ["-"] * len(jobs)
    step = (
      f" @{state_lib.newest(job.folder)}" if now == state_lib.RESUME else ""
    )
    found.append(now + step)
  return found


def _cost_cells(cost: Mapping) -> list[str]:
  if not cost:
    return []
  hours = cost.get("chip_hours")
  memory = "-"
  if cost.get("memory"):
    memory = f"{cost['memory'] / 1e9:.3g}"
  memory += (
    f"/{cost['capacity'] / 1e9:.3g} GB" if "capacity" in cost else " GB+"
  )
  return [
    f"{short(cost['parameters']):10}",
    f"{cost['batch_size']} ({cost['clips']})".ljust(9),
    f"{short(cost['flops']):9}",
    f"{memory:16}",
    f"{'-' if hours is None else format(hours, ',.3g'):8}",
  ]
