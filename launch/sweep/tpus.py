"""What Google Cloud calls the TPUs of a sweep, and what its image runs."""

import dataclasses
import math
import pathlib
import re
import shlex

from launch.config import PACKAGED
from launch.parsing import UsageError
from launch.sweep.plan import Job, Plan
from launch.sweep.points import Point
from v2a_jax.basics.paths import is_remote


@dataclasses.dataclass(frozen=True)
class Machine:
  """What Google Cloud calls a kind of TPU.

  Attributes:
    chips_per_host: chips of a host in slices of several.
    node_label: its name on GKE.
    type: its name in accelerator types such as `v5p-16`.
    count: what a chip counts for in these.
  """

  chips_per_host: int
  node_label: str
  type: str
  count: int


MACHINES = {
  "v4": Machine(4, "tpu-v4-podslice", "v4", 2),
  "v5e": Machine(4, "tpu-v5-lite-podslice", "v5litepod", 1),
  "v5p": Machine(4, "tpu-v5p-slice", "v5p", 2),
  "v6e": Machine(4, "tpu-v6e-slice", "v6e", 1),
}


def check(plan: Plan) -> None:
  """Refuses a sweep that hosts of Google Cloud cannot run.

  Raises:
    UsageError: it is not planned for a TPU, or its workdirs are on a disk of
      which nothing stays.
  """
  slice_of(plan)
  if not is_remote(plan.workdirs):
    raise UsageError(
      f"--option workdirs={plan.options['workdirs']}: nothing of a host stays,"
      " so name a folder on gs://"
    )


def slice_of(plan: Plan) -> tuple[str, str]:
  """Returns chip and shape of the slices of a sweep, such as `v5e`, `4x4`.

  Raises:
    UsageError: it is not planned for a TPU.
  """
  chip, _, shape = plan.topology.partition(":")
  if chip not in MACHINES:
    raise UsageError(
      f"--backend={plan.backend} needs --topology, one of TPU such as v5e:4x4,"
      f" not {plan.topology!r}"
    )
  return chip, shape


def accelerator_type(chip: str, shape: str) -> str:
  """Returns the accelerator type of a slice, such as `v5litepod-16`."""
  machine = MACHINES[chip]
  return (
    f"{machine.type}-{math.prod(map(int, shape.split('x'))) * machine.count}"
  )


def name_of(plan: Plan, point: Point) -> str:
  """Returns a run's name in Google Cloud: that of no other run or sweep.

  It has the sweep, the run's index and the digest of its config. Pods and hosts
  have it with more behind it, and 63 characters in all.
  """
  sweep = re.sub(r"[^a-z0-9]+", "-", plan.name.lower())[:20].strip("-")
  index = plan.points.index(point)
  return f"v2a-{sweep}-{index:03d}-{point.fingerprint}"


def training(plan: Plan, job: Job) -> str:
  """Returns the command of a training, with the config as the image has it.

  Raises:
    UsageError: the config file is not in the repository.
  """
  arguments = job.point.arguments()
  arguments[0] = f"--config={_in_image(job.point.config)}"
  arguments.append(f"--workdir={job.folder}")
  return f"exec {plan.command} {shlex.join(arguments)}"


def _in_image(config: str) -> str:
  file, colon, argument = config.partition(":")
  path = pathlib.Path(file)
  if not path.is_relative_to(PACKAGED):
    raise UsageError(
      f"{file} is not in {PACKAGED}, which is all that the image holds: put it"
      " into configs/"
    )
  return f"{path.relative_to(PACKAGED)}{colon}{argument}"
