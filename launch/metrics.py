"""Write a run's metrics for wandb or TensorBoard, from its metrics.jsonl.

For runs that were trained without, or whose copy is lost. The run keeps its id,
and what was written so before is replaced, so the command may be given again.
"""

import pathlib
import shlex

from launch import parsing
from v2a_jax.basics.paths import as_path, is_remote
from v2a_jax.basics.text import did_you_mean

ARGUMENTS = """
RUN...                workdirs of v2a train
--to NAME             wandb or tensorboard (required)
--group TEXT          wandb's group of the runs (default: their sweep)
--tags NAMES          wandb's tags, separated by commas (default: those of the sweep)
"""
EXAMPLE = "v2a metrics runs/arms/*/ --to wandb"
TARGETS = ("wandb", "tensorboard")


def main(argv: list[str]) -> None:
  """Runs `v2a metrics`."""
  args = parsing.Parser("v2a metrics", __doc__, ARGUMENTS, EXAMPLE).parse(argv)
  if args.to not in TARGETS:
    hint = did_you_mean(args.to, TARGETS) or f"; there are {', '.join(TARGETS)}"
    raise parsing.UsageError(f"--to={args.to} is unknown{hint}")
  from v2a_jax.training import history

  for run in args.run:
    if args.to == "tensorboard":
      print(f"next: tensorboard --logdir {history.to_tensorboard(run)}")
      continue
    group, tags = _tracking(run)
    written = history.to_wandb(
      run,
      group=args.group or group,
      tags=args.tags.split(",") if args.tags else tags,
    )
    print(f"next: wandb sync {shlex.quote(str(written))}", flush=True)


def _tracking(run: str) -> tuple[str | None, list[str] | None]:
  """Returns group and tags as the plan of the run's sweep sets them."""
  from launch.sweep import plan, points

  folder = as_path(run)
  if is_remote(run) or not (folder.absolute().parent / "plan.json").exists():
    return None, None
  found = plan.read(pathlib.Path(folder.absolute().parent))
  names = [point.name for point in found.points]
  if folder.absolute().name not in names:
    return None, None
  tags = points.tags(found.points)
  return found.name, tags[names.index(folder.absolute().name)]
