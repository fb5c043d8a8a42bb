"""Plan, launch and follow a grid of training runs."""

from collections.abc import Iterable, Sequence
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from launch import parsing
from launch.sweep import plan
from v2a_jax.basics import parent
from v2a_jax.basics.paths import local_path
from v2a_jax.basics.text import clock

PLAN = f"""
--config FILE         config file, as for v2a train; several are several runs
                      (required, repeatable)
{parsing.OVERRIDES}
--sweep NAMES         sweep_NAME generators of the config to multiply, separated
                      by commas; all for every one (default: none)
-o, --output DIR      folder of the sweep (required)
--command TEXT        command that a script runs, such as 'srun python -m
                      launch.train' (default: this Python with -m launch.train)
"""
PLAN_EXAMPLE = """v2a sweep plan --config=configs/ar_tiny.py \\
    --sweep=pattern,depth --config.train_seconds=600 -o runs/ar
  v2a sweep plan --config=configs/diffusion_tiny.py \\
    --config=configs/ar_tiny.py -o runs/arms"""
LAUNCH = """
FOLDER                folder of the sweep
--jobs COUNT          number of runs at a time (default 1)
"""
STATUS = """
FOLDER                folder of the sweep
--json                print JSON in place of text
"""
# A script is started with the interpreter that planned it.
TRAIN = f"{sys.executable} -m launch.train"
# Exit codes of SIGINT and SIGTERM: interrupted or preempted, after a save.
STOPPED = ("130", "143")
FOLDER = "a sweep, whose scripts run here,"
POLL_SECONDS = 0.2
LINE_SECONDS = 30.0  # Between two lines of progress with --jobs > 1.


def main(argv: list[str]) -> int:
  """Runs `v2a sweep`."""
  commands = dict(plan=make_plan, launch=launch, status=status)
  example = "v2a sweep launch runs/ar --jobs 2"
  return parsing.run_command(
    "v2a sweep", __doc__, commands, argv, example=example
  )


def make_plan(argv: list[str]) -> None:
  """Write a script for each run, to read and edit; start nothing."""
  parser = parsing.Parser(
    "v2a sweep plan", make_plan.__doc__, PLAN, PLAN_EXAMPLE
  )
  args = parser.parse(argv)
  changes = dict(
    arg.removeprefix("--config.").split("=", 1) for arg in args.overrides
  )
  names = args.sweep.split(",") if args.sweep else []
  planned = plan.points(args.config, names=names, overrides=changes)
  folder = local_path(args.output, FOLDER)
  plan.write(folder, planned, command=args.command or TRAIN)
  for point in planned:
    changed = " ".join(f"{k}={v}" for k, v in point.overrides.items())
    print(f"{state(folder / point.name):8} {point.name}  {changed}")
  print(f"{len(planned)} runs written to {folder}; nothing was started")
  print(f"next: v2a sweep launch {folder}")


def launch(argv: list[str]) -> int:
  """Run what is not done yet, on this machine.

  Runs that were stopped continue; those that are running are left alone. The
  exit status is 1 if a run failed, which does not stop the others.
  """
  example = "v2a sweep launch runs/ar --jobs 2"
  parser = parsing.Parser("v2a sweep launch", launch.__doc__, LAUNCH, example)
  args = parser.parse(argv)
  folder, waiting = local_path(args.folder, FOLDER), []
  for point in plan.read(folder):
    now = state(folder / point.name)
    if now in ("DONE", "RUNNING"):
      print(f"{point.name}: {now}, skipped", flush=True)
    else:
      waiting.append(point)
  failed = _run_all(folder, waiting, args.jobs)
  print("\n".join(map(_line, _rows(folder))))
  for name in failed:
    print(f"failed: {name}; see {folder / name / 'log.txt'}", file=sys.stderr)
  return 1 if failed else 0


def _run_all(
  folder: pathlib.Path, points: Sequence[plan.Point], jobs: int
) -> list[str]:
  """Runs scripts, some at a time; returns the names of those that failed."""
  waiting, running, failed = list(points), {}, []
  shown = time.monotonic()
  before = signal.signal(signal.SIGTERM, _exit)
  stack = contextlib.ExitStack()
  inherited = stack.enter_context(parent.lifeline())
  try:
    while waiting or running:
      while waiting and len(running) < jobs:
        point = waiting.pop(0)
        number = len(points) - len(waiting)
        print(f"[{number}/{len(points)}] {point.name}", flush=True)
        process = subprocess.Popen(
          ["bash", str(folder / f"{point.name}.sh")],
          stdout=None if jobs == 1 else subprocess.DEVNULL,
          start_new_session=True,
          **inherited,
        )
        running[process] = point
      time.sleep(POLL_SECONDS)
      for process in [p for p in running if p.poll() is not None]:
        point = running.pop(process)
        if process.returncode:
          failed.append(point.name)
      if jobs > 1 and time.monotonic() - shown > LINE_SECONDS:
        shown = time.monotonic()
        for point in running.values():
          print(_line(progress(point, folder / point.name)), flush=True)
  finally:
    signal.signal(signal.SIGTERM, before)
    _stop(running, folder)
    stack.close()
  return failed


def _stop(
  running: dict[subprocess.Popen, plan.Point], folder: pathlib.Path
) -> None:
  """Asks runs to save and end, waits for each, and says how it ended.

  Ctrl-C while they save ends them at once.
  """
  _signal(running, signal.SIGTERM)
  try:
    for process, point in running.items():
      process.wait()
      print(_line(progress(point, folder / point.name)), flush=True)
  except KeyboardInterrupt:
    _signal(running, signal.SIGKILL)
    raise


def _signal(running: Iterable[subprocess.Popen], number: int) -> None:
  """Sends a signal to scripts and what they started."""
  for process in running:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, number)


def _exit(number: int, _) -> None:
  raise SystemExit(128 + number)


def status(argv: list[str]) -> None:
  """Show state, step, loss, ETA and checkpoint age of each run.

  The age is that of the newest checkpoint. The states are NEW, RUNNING,
  DONE, FAILED, and RESUME for a run that was stopped and has a checkpoint.
  """
  example = "v2a sweep status runs/ar"
  parser = parsing.Parser("v2a sweep status", status.__doc__, STATUS, example)
  args = parser.parse(argv)
  rows = _rows(local_path(args.folder, FOLDER))
  print(
    json.dumps(rows, indent=2) if args.json else "\n".join(map(_line, rows))
  )


def _rows(folder: pathlib.Path) -> list[dict[str, Any]]:
  return [progress(point, folder / point.name) for point in plan.read(folder)]


def _line(row: dict[str, Any]) -> str:
  step = "-" if row["step"] is None else row["step"]
  total = "-" if row["total"] is None else row["total"]
  loss = "-" if row["loss"] is None else f"{row['loss']:.4f}"
  eta, age = (
    "-" if row[key] is None else clock(row[key])
    for key in ("eta", "checkpoint")
  )
  return (
    f"{row['state']:16} step {step}/{total}  loss {loss}  ETA {eta}"
    f"  checkpoint age {age}  {row['run']}"
  )


def state(workdir: pathlib.Path) -> str:
  """Returns NEW, RUNNING, DONE, RESUME (stopped with a checkpoint) or FAILED."""
  code = _text(workdir / "exit_code")
  if code in STOPPED and checkpoints(workdir):
    return "RESUME"
  if code is not None:
    return "DONE" if code == "0" else f"FAILED ({code})"
  host, _, process = (_text(workdir / "running") or "").partition(" ")
  if process and (host != socket.gethostname() or _alive(int(process))):
    return "RUNNING"
  if checkpoints(workdir):
    return "RESUME"
  return "FAILED (killed)" if process else "NEW"


def checkpoints(workdir: pathlib.Path) -> dict[int, float]:
  """Returns the age in seconds of each finished checkpoint, by step."""
  folders = (workdir / "checkpoints").glob("[0-9]*")
  folders = [folder for folder in folders if folder.name.isdigit()]
  return {int(p.name): time.time() - p.stat().st_mtime for p in folders}


def progress(point: plan.Point, workdir: pathlib.Path) -> dict[str, Any]:
  """Returns one row of `v2a sweep status`; None stands for what is unknown.

  `eta` is in seconds, `checkpoint` the age in seconds of the newest one.
  """
  last = _last_record(workdir / "metrics.jsonl")
  ages, now = checkpoints(workdir), state(workdir)
  return {
    "run": point.name,
    "state": now,
    "step": last.get("step", max(ages, default=None)),
    "total": point.num_train_steps,
    "loss": last.get("train/loss"),
    "eta": last.get("perf/eta_seconds") if now == "RUNNING" else None,
    "checkpoint": min(ages.values(), default=None),
  }


def _last_record(file: pathlib.Path) -> dict[str, Any]:
  """Returns the newest record with a loss; a torn last line is passed over."""
  for line in reversed((_text(file) or "").splitlines()[-50:]):
    try:
      record = json.loads(line)
    except json.JSONDecodeError:
      continue
    if "train/loss" in record:
      return record
  return {}


def _text(file: pathlib.Path) -> str | None:
  try:
    return file.read_text().strip()
  except FileNotFoundError:
    return None


def _alive(process: int) -> bool:
  try:
    os.kill(process, 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    pass  # Somebody else's, and alive.
  return True
