"""`v2a sweep plan | launch | status`: a grid of runs, on this machine.

A config file names its grids itself, as generators of dotted overrides:

    def sweep_lr():
      for value in (1e-4, 3e-4):
        yield {"optimizer.learning_rate": value}

`plan` writes files and starts nothing. `launch` runs the scripts, here, and
only what is not done. A scheduler can run the same scripts (see `templates/`).
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from launch import cli, parsing
from launch.sweep import plan

# A script is started with the interpreter that planned it.
TRAIN = f"{sys.executable} -m launch.train"
POLL_SECONDS = 0.2
LINE_SECONDS = 30.0  # Between two lines of progress with --jobs > 1.


def main(argv: list[str]) -> int:
  parser = parsing.make_parser(
    "v2a sweep",
    about="Plan, launch and follow a grid of runs.",
    example="v2a sweep plan --config=configs/ar_tiny.py --sweep=lr -o runs/lr",
  )
  commands = parser.add_subparsers(dest="command", required=True)
  _add_plan(commands)
  _add_launch(commands)
  _add_status(commands)
  overrides = [arg for arg in argv if arg.startswith("--config.")]
  args = parser.parse([arg for arg in argv if arg not in overrides])
  if args.command == "plan":
    return make_plan(args, overrides)
  if overrides:
    raise parsing.UsageError(f"{overrides[0]}: overrides belong to the plan")
  folder = pathlib.Path(args.folder)
  if args.command == "launch":
    return launch(folder, jobs=args.jobs)
  return show(folder, as_json=args.json)


def _add_plan(commands) -> None:
  command = parsing.add_command(
    commands,
    "plan",
    about="Write plan.json and one script a run; starts nothing.",
    example=(
      "v2a sweep plan --config=configs/diffusion_tiny.py --sweep=lr,seed"
      " -o runs/lr \\\n    --config.train_seconds=600\n"
      "  v2a sweep plan --config=configs/diffusion_tiny.py"
      " --config=configs/ar_tiny.py -o runs/arms"
    ),
  )
  command.add_argument(
    "--config", action="append", required=True, help="again for more arms"
  )
  command.add_argument(
    "--sweep",
    default="",
    help="names of the config's sweep_* generators, multiplied: lr,depth",
  )
  command.add_argument(
    "-o", "--output", required=True, help="the sweep's folder"
  )
  command.add_argument(
    "--command",
    dest="run_command",
    default=TRAIN,
    help="what a script runs, such as 'srun python -m launch.train'",
  )


def _add_launch(commands) -> None:
  command = parsing.add_command(
    commands,
    "launch",
    about="Run what is not done yet, on this machine.",
    example="v2a sweep launch runs/lr --jobs 2",
  )
  command.add_argument("folder", help="as given to plan -o")
  command.add_argument("--jobs", type=int, default=1, help="runs at a time")


def _add_status(commands) -> None:
  command = parsing.add_command(
    commands,
    "status",
    about="Each run's state, step, loss and time left.",
    example="v2a sweep status runs/lr",
  )
  command.add_argument("folder", help="as given to plan -o")
  command.add_argument("--json", action="store_true", help="for programs")


def make_plan(args, overrides: list[str]) -> int:
  """Writes the plan and prints it as a table."""
  changes = dict(_split(arg) for arg in overrides)
  names = [name for name in args.sweep.split(",") if name]
  planned = plan.points(args.config, names=names, overrides=changes)
  folder = pathlib.Path(args.output)
  plan.write(folder, planned, command=args.run_command)
  for point in planned:
    changed = " ".join(f"{k}={v}" for k, v in point.overrides.items())
    print(f"{plan.state(folder / point.name):8} {point.name}  {changed}")
  print(f"{len(planned)} runs written to {folder}; nothing was started")
  print(f"next: v2a sweep launch {folder}")
  return 0


def launch(folder: pathlib.Path, *, jobs: int) -> int:
  """Runs what is not done; returns 1 if a run failed.

  A run that failed does not stop the others: their time is not lost for it.
  """
  if jobs < 1:
    raise parsing.UsageError(f"--jobs {jobs}: at least 1")
  waiting = []
  for point in plan.read(folder):
    state = plan.state(folder / point.name)
    if state in ("DONE", "RUNNING"):
      print(f"{point.name}: {state}, skipped", flush=True)
    else:
      waiting.append(point)
  running, failed = {}, []
  try:
    _run_all(folder, waiting, jobs, running, failed)
  finally:
    for process in running:  # The script and what it started.
      os.killpg(process.pid, signal.SIGTERM)
  show(folder, as_json=False)
  for name in failed:
    print(f"failed: {name}; see {folder / name / 'log.txt'}", file=sys.stderr)
  return 1 if failed else 0


def _run_all(folder, waiting, jobs, running, failed) -> None:
  total, shown = len(waiting), time.monotonic()
  while waiting or running:
    while waiting and len(running) < jobs:
      point = waiting.pop(0)
      print(f"[{total - len(waiting)}/{total}] {point.name}", flush=True)
      output = None if jobs == 1 else subprocess.DEVNULL
      script = ["bash", str(folder / f"{point.name}.sh")]
      process = subprocess.Popen(script, stdout=output, start_new_session=True)
      running[process] = point
    time.sleep(POLL_SECONDS)
    for process in [p for p in running if p.poll() is not None]:
      point = running.pop(process)
      if process.returncode:
        failed.append(point.name)
    if jobs > 1 and time.monotonic() - shown > LINE_SECONDS:
      shown = time.monotonic()
      for point in running.values():
        print(_line(plan.progress(point, folder / point.name)), flush=True)


def show(folder: pathlib.Path, *, as_json: bool) -> int:
  """Prints the status table."""
  rows = [plan.progress(p, folder / p.name) for p in plan.read(folder)]
  if as_json:
    print(json.dumps(rows, indent=2))
  else:
    print("\n".join(map(_line, rows)))
  return 0


def _line(row: dict) -> str:
  step = "-" if row["step"] is None else row["step"]
  total = "-" if row["total"] is None else row["total"]
  loss = "-" if row["loss"] is None else f"{row['loss']:.4f}"
  return (
    f"{row['state']:16} step {step}/{total}  loss {loss}"
    f"  ETA {_clock(row['eta'])}"
    f"  checkpoint age {_clock(row['checkpoint'])}  {row['run']}"
  )


def _clock(seconds: float | None) -> str:
  if seconds is None:
    return "-"
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s"


def _split(override: str) -> tuple[str, str]:
  key, equals, value = override.removeprefix("--config.").partition("=")
  if not equals:
    raise parsing.UsageError(f"{override}: give it as {override}=value")
  return key, value


if __name__ == "__main__":
  raise SystemExit(cli.main_of("sweep"))
