"""What the runs of a sweep cost, and whether they fit: counted, not run."""

from collections.abc import Iterable, Iterator
import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

from launch import config as config_lib
from launch.parsing import UsageError
from launch.sweep.points import Point

if TYPE_CHECKING:
  from v2a_jax.experiment.experiment import Experiment

# Keys that change neither the program of a step nor its memory.
SAME_PROGRAM = (
  *("name", "seed", "num_train_steps", "train_seconds", "log_every"),
  *("eval_every", "checkpoint_every", "keep", "keep_period", "sampler"),
  *("optimizer.learning_rate", "optimizer.warmup_steps", "data.paths"),
  *("optimizer.weight_decay", "optimizer.final_fraction"),
)


def of(
  points: Iterable[Point],
  *,
  topology: str = "",
  num_slices: int = 1,
  mfu: float = 0.4,
) -> list[dict[str, Any]]:
  """Counts the cost of each point.

  Points that differ only in what changes no program are counted once.

  Args:
    points: runs, whose configs are read again.
    topology: chips that each run is planned for, as in `v2a plan`; "" for none:
      then memory is that of the state alone, and no time is estimated.
    num_slices: number of slices of that shape.
    mfu: share of the peak FLOP/s that a run comes to, unless what it sends or
      reads takes longer.

  Returns:
    For each: `parameters`, `flops` of training on a clip, `batch_size`, `clips`
    on a device at a time, `memory` of a device in bytes; with a topology also
    `capacity`, `fits`, `remedies`, `chips`, `step_seconds` and `chip_hours`.

  Raises:
    UsageError: a config that cannot be built; names the point.
    TopologyError: there is no such topology, or no compiler for it.
  """
  counted: dict[str, dict[str, Any]] = {}
  costs = []
  for point, key, experiment in _experiments(points):
    if key not in counted:
      with _named(point):
        counted[key] = _count(experiment, topology, num_slices)
    costs.append(counted[key] | _hours(counted[key], point, mfu))
  return costs


def check(points: Iterable[Point]) -> None:
  """Refuses a point whose model cannot be built, without counting anything.

  One whose parts are on a store that cannot be reached from here is passed over.

  Raises:
    UsageError: names the point and the field.
  """
  for point in points:
    try:
      next(_experiments([point]))
    except OSError as error:
      print(f"{point.name} was not built: {error}", file=sys.stderr)


def _experiments(
  points: Iterable[Point],
) -> Iterator[tuple[Point, str, "Experiment"]]:
  """Yields each point, what its program depends on, and its experiment."""
  import jax

  from v2a_jax.experiment.experiment import Experiment

  # Nothing runs; devices of this machine are left to those who use them.
  jax.config.update("jax_platforms", "cpu")
  for point in points:
    resolved = config_lib.parse(point.config, point.changes())
    with _named(point):
      experiment = Experiment.from_config(resolved)
    yield point, _program(resolved.to_dict()), experiment


@contextlib.contextmanager
def _named(point: Point) -> Iterator[None]:
  """Puts a point's name before an error of its config."""
  try:
    yield
  except ValueError as error:
    if type(error).__name__ == "TopologyError":
      raise
    raise UsageError(f"{point.name}: {error}") from error


def _program(config: dict[str, Any]) -> str:
  """Returns what the program of a step depends on, as text."""
  for key in SAME_PROGRAM:
    *sections, name = key.split(".")
    node = config
    for section in sections:
      node = node.get(section, {})
    node.pop(name, None)
  return json.dumps(config, sort_keys=True, default=str)


def _count(
  experiment: "Experiment", topology: str, num_slices: int
) -> dict[str, Any]:
  from v2a_jax.experiment import cost, plan
  from v2a_jax.parallel import topology as topology_lib

  if not topology:
    counts = cost.inspect(experiment)
    return {
      "parameters": counts["parameters"]["total"],
      "flops": counts["flops"]["training"],
      "batch_size": counts["batch_size"],
      "clips": counts["memory"]["clips"],
      "memory": counts["memory"]["total"],
    }
  chips = topology_lib.parse(topology, num_slices=num_slices)
  planned = plan.plan(experiment, chips)
  memory = planned["memory"]
  found = {
    "parameters": cost.count_parameters(experiment)["total"],
    "batch_size": planned["batch_size"],
    "clips": planned["clips"],
    "memory": memory.get("together"),
    "capacity": memory["capacity"],
    "fits": planned["fits"],
    "remedies": planned.get("remedies", []),
    "chips": planned["chips"],
  }
  if "flops" in planned:  # Of a step on a device.
    share = planned["batch_size"] / planned["chips"]
    found["flops"] = planned["flops"] / share
  else:
    found["flops"] = cost.flops_of_clip(experiment)[0]
  if "bounds" in planned:
    found["bound_seconds"] = planned["step_seconds"]
    found["compute_seconds"] = planned["bounds"]["compute"]
  return found


def _hours(found: dict[str, Any], point: Point, mfu: float) -> dict[str, Any]:
  """Estimates the time of a run from that of a step."""
  if "bound_seconds" not in found:
    return {}
  step = max(found["bound_seconds"], found["compute_seconds"] / mfu)
  seconds = step * point.num_train_steps
  if point.train_seconds:
    seconds = min(seconds, point.train_seconds)
  hours = seconds * found["chips"] / 3600
  return {"step_seconds": step, "chip_hours": hours}
