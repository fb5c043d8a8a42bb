"""Plan, launch and follow a grid of training runs."""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib
import shlex
import sys
import time

from launch import config as config_lib
from launch import parsing
from launch.sweep import backend as backend_lib
from launch.sweep import code, listing, local, page, points
from launch.sweep import plan as plan_lib
from launch.sweep import state as state_lib
from launch.sweep import status as status_lib
from launch.sweep.plan import Job, Plan
from launch.sweep.state import state
from v2a_jax.basics.paths import as_path, is_remote, local_path
from v2a_jax.basics.text import did_you_mean

PLAN = f"""
--config FILE         config file, as for v2a train; several are several runs
                      (required, repeatable)
{parsing.OVERRIDES}
--sweep NAMES         sweep_NAME generators of the config to multiply, separated
                      by commas; all for every one (default: none)
--ablate NAMES        sweep_NAME generators whose values are tried one at a time,
                      beside the config as it is
--seeds COUNT         number of random seeds of each run (default: the config's)
-o, --output DIR      folder of the sweep (required)
--command TEXT        command that a script runs, such as 'srun python -m
                      launch.train' (default: that of the backend)
where it runs:
--backend NAME        local, slurm, gke or tpu_vm (default local)
--option NAME=VALUE   setting of the backend; without any, what is required is
                      named (repeatable)
--topology NAME       chips of a run, such as v5p:4x4x4 or h100:8; needed for
                      memory and time in the table
--num_slices COUNT    number of such slices or machines of a run (default 1)
--mfu FACTOR          share of the peak FLOP/s that runs are taken to come to
                      (default 0.4)
--quick               leave parameters, memory and time out of the table, which
                      take some seconds a model; models are built all the same
after training:
--evaluate DIR        data set that each run is judged on; a report on each and
                      one on all follow
--eval_flags TEXT     further arguments of v2a eval, such as '--step=each'
--variants NAMES      evaluate_NAME generators of the config, whose every value
                      is an evaluation of its own
"""
PLAN_EXAMPLE = """v2a sweep plan --config=configs/ar_tiny.py \\
    --sweep=pattern,depth --config.train_seconds=600 -o runs/ar
  v2a sweep plan --config=configs/diffusion_tiny.py \\
    --config=configs/ar_tiny.py -o runs/arms"""
LAUNCH = """
FOLDER                folder of the sweep
--jobs COUNT          number of runs at a time on this machine, among which its
                      GPUs are divided (default 1)
--restarts N          number of times that a run which was killed is started
                      again without having come further (default 3)
"""
RESUME = """
FOLDER                folder of the sweep
[RUN...]              runs to start again (default: all that have ended badly)
--jobs COUNT          as for v2a sweep launch (default 1)
--restarts N          as for v2a sweep launch (default 3)
"""
CANCEL = """
FOLDER                folder of the sweep
[RUN...]              runs to stop (default: all)
"""
STATUS = f"""
FOLDER                folder of the sweep
--json                print JSON in place of text
--failed              show only what failed, was lost or does not fit
--metric NAME         metric of the evaluation to show (default:
                      {status_lib.MAIN_METRIC})
--watch               show it again and again, until Ctrl-C
--every SECONDS       time between two looks with --watch (default 10)
--page FILE           also write a web page, which loads itself again every minute
"""
FOLDER = "a sweep, whose scripts run here,"


def main(argv: list[str]) -> int:
  """Runs `v2a sweep`."""
  commands = dict(
    plan=make_plan, launch=launch, status=status, resume=resume, cancel=cancel
  )
  example = "v2a sweep launch runs/ar --jobs 2"
  return parsing.run_command(
    "v2a sweep", __doc__, commands, argv, example=example
  )


def make_plan(argv: list[str]) -> None:
  """Write a script for each run, to read and edit; start nothing.

  Shows what each run is, whether it fits, what it costs and how far it is.
  """
  parser = parsing.Parser(
    "v2a sweep plan", make_plan.__doc__, PLAN, PLAN_EXAMPLE
  )
  args = parser.parse(argv)
  backend = backend_lib.get(args.backend)
  options = backend_lib.options_of(args.backend, args.option or ())
  changes = dict(
    arg.removeprefix("--config.").split("=", 1) for arg in args.overrides
  )
  found = points.points(
    args.config,
    names=parsing.names("--sweep", args.sweep) or (),
    overrides=changes,
    ablate=parsing.names("--ablate", args.ablate) or (),
    seeds=args.seeds or 0,
  )
  variants = _variants(found, parsing.names("--variants", args.variants) or ())
  folder = local_path(args.output, FOLDER)
  identity, patch = code.identity()
  found = _counted(found, args)
  plan = Plan(
    folder=folder,
    points=found,
    backend=args.backend,
    options=options,
    topology=args.topology or "",
    num_slices=args.num_slices,
    command=args.command or backend.TRAIN,
    tool=f"{sys.executable} -m launch.cli",
    workdirs=_workdirs(options, folder),
    evaluate=_absolute(args.evaluate),
    eval_flags=shlex.split(args.eval_flags or ""),
    variants=variants,
    code=identity,
  )
  others = backend.job_files(plan)
  plan_lib.write(plan, others=others, patch=patch)
  print(plan_lib.header(plan))
  print("\n".join(listing.lines(plan)))
  print(f"{len(found)} runs written to {folder}; nothing was started")
  print(f"next: v2a sweep launch {folder}")


def _absolute(path: str | None) -> str:
  """Returns a path that holds in any folder; "" for none."""
  if not path:
    return ""
  return path if is_remote(path) else str(as_path(path).resolve())


def _workdirs(options: Mapping[str, str], folder: pathlib.Path) -> str:
  """Returns where all workdirs are: on a store if the backend says so."""
  root = options.get("workdirs", "")
  return f"{root.rstrip('/')}/{folder.resolve().name}" if root else ""


def _counted(found: Sequence[points.Point], args) -> list[points.Point]:
  """Builds each run's model, and adds what it costs unless it is to be quick."""
  # Here, because it imports jax.
  from launch.sweep import costs

  if args.quick:
    costs.check(found)
    return list(found)
  counted = costs.of(
    found,
    topology=args.topology or "",
    num_slices=args.num_slices,
    mfu=args.mfu,
  )
  return [dataclasses.replace(p, cost=c) for p, c in zip(found, counted)]


def _variants(
  found: Sequence[points.Point], names: Sequence[str]
) -> dict[str, list[str]]:
  """Returns the arguments of each evaluation of a run, by what to call it."""
  prefix, variants = config_lib.EVALUATE, {}
  chosen = points.choose(found[0].config, names, prefix).values()
  for change in (change for axis in chosen for change in axis):
    label = ",".join(f"{key}={value}" for key, value in change.items())
    variants[label] = [f"--{key}={value}" for key, value in change.items()]
  return variants


def launch(argv: list[str]) -> int:
  """Run what is not done yet, here or by the scheduler it is planned for.

  Runs that were stopped continue; those that are running are left alone, and
  cancelled ones too. The exit status is 1 if a run failed, which does not stop
  the others.
  """
  example = "v2a sweep launch runs/ar --jobs 2"
  parser = parsing.Parser("v2a sweep launch", launch.__doc__, LAUNCH, example)
  args = parser.parse(argv)
  plan = plan_lib.read(local_path(args.folder, FOLDER))
  with backend_lib.alone(plan.folder):
    return _start(plan, plan.jobs(), args)


def _start(plan: Plan, jobs: Sequence[Job], args) -> int:
  """Starts those of the jobs that may be started."""
  found = status_lib.states(plan)
  skipped = (state_lib.DONE, state_lib.CANCELLED, state_lib.WONT_FIT)
  if plan.backend != "local":
    skipped += (state_lib.RUNNING, state_lib.QUEUED, state_lib.LOST)
  waiting, failed = [], []
  for job in jobs:
    now, detail = found[job.name]
    if now == state_lib.WONT_FIT:
      print(f"{job.name}: {detail}", file=sys.stderr)
      failed.append(job.name)
    if now in skipped:
      print(f"{job.name}: {now}, skipped", flush=True)
    else:
      waiting.append(job)
  waiting = _without_hopeless(plan, waiting, found)
  if plan.backend == "local":
    line = lambda job: _line(plan, job)
    launcher = local.Launcher(
      plan,
      waiting,
      slots=local.slots(args.jobs),
      restarts=args.restarts,
      line=line,
    )
    failed += launcher.run()
    rows = status_lib.rows(plan)
    print(status_lib.table(rows))
    print(status_lib.summary(plan, rows))
    for name in failed:
      print(f"failed: {name}; see {_log(plan, name)}", file=sys.stderr)
  elif waiting:
    new = backend_lib.get(plan.backend).submit(plan, waiting)
    for name, id_ in new.items():
      print(f"{name}: submitted as {id_}")
    print(f"next: v2a sweep status {plan.folder} --watch")
  return 1 if failed else 0


def _without_hopeless(
  plan: Plan, waiting: list[Job], found: Mapping[str, tuple[str, str]]
) -> list[Job]:
  """Leaves out jobs after one that will not come: cancelled, lost, too large."""
  never = (state_lib.CANCELLED, state_lib.WONT_FIT, state_lib.LOST)
  kept = []
  for job in waiting:
    if job.point and any(found[name][0] in never for name in job.after):
      continue
    kept.append(job)
  return kept


def _log(plan: Plan, name: str) -> pathlib.Path:
  job = next(job for job in plan.jobs() if job.name == name)
  return job.folder / "log.txt"


def _line(plan: Plan, job: Job) -> str:
  """Returns a line on a job that runs."""
  if job.stage != "train":
    return f"{state(job.folder):10} {job.name}"
  rows = [row for row in status_lib.rows(plan) if row["run"] == job.name]
  return status_lib.table(rows).splitlines()[1]


def resume(argv: list[str]) -> int:
  """Start runs again that failed, were cancelled or got lost."""
  example = "v2a sweep resume runs/ar"
  parser = parsing.Parser("v2a sweep resume", resume.__doc__, RESUME, example)
  args = parser.parse(argv)
  plan = plan_lib.read(local_path(args.folder, FOLDER))
  chosen = _chosen(plan, args.run)
  with backend_lib.alone(plan.folder):
    found = status_lib.states(plan)
    ended = [j.name for j in chosen if _has_ended(found[j.name][0])]
    backend_lib.forget(plan, ended)
    for job in chosen:
      (job.folder / "cancelled").unlink(missing_ok=True)
    return _start(plan, chosen, args)


def _has_ended(now: str) -> bool:
  """Says whether a job has ended without being done."""
  ends = (state_lib.CANCELLED, state_lib.LOST, state_lib.RESUME)
  return now in ends or now.startswith("FAILED")


def _chosen(plan: Plan, names: Sequence[str]) -> list[Job]:
  """Returns the jobs of the runs that were named; all if none was.

  Raises:
    UsageError: there is no such run; names the nearest one.
  """
  known = [point.name for point in plan.points]
  for name in names:
    if name not in known:
      hint = did_you_mean(name, known)
      raise parsing.UsageError(
        f"no run {name!r} in {plan.folder}{hint or '; see v2a sweep status'}"
      )
  return [
    job
    for job in plan.jobs()
    if not names or job.point is None or job.point.name in names
  ]


def cancel(argv: list[str]) -> None:
  """Stop runs, after a save, and leave them alone until v2a sweep resume."""
  example = "v2a sweep cancel runs/ar"
  parser = parsing.Parser("v2a sweep cancel", cancel.__doc__, CANCEL, example)
  args = parser.parse(argv)
  plan = plan_lib.read(local_path(args.folder, FOLDER))
  found = status_lib.states(plan)
  over = (state_lib.DONE, state_lib.CANCELLED)
  # The report is on what is left, unless nothing is.
  chosen = [job for job in _chosen(plan, args.run) if job.point or not args.run]
  jobs = [job for job in chosen if found[job.name][0] not in over]
  for job in jobs:
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / "cancelled").write_text("")
  ids = backend_lib.ids(plan)
  if plan.backend == "local":
    ids = {job.name: "" for job in jobs}
  chosen = {job.name: ids[job.name] for job in jobs if job.name in ids}
  if chosen:
    backend_lib.get(plan.backend).cancel(plan, chosen)
  for job in jobs:
    print(f"{job.name}: cancelled, was {found[job.name][0]}")


def status(argv: list[str]) -> None:
  """Show state, progress, speed, best result and next step of each run.

  States: NEW, QUEUED, RUNNING, DONE, RESUME (stopped, and has a checkpoint),
  FAILED, CANCELLED, LOST (the scheduler forgot it) and WON'T FIT.
  """
  example = "v2a sweep status runs/ar"
  parser = parsing.Parser("v2a sweep status", status.__doc__, STATUS, example)
  args = parser.parse(argv)
  plan = plan_lib.read(local_path(args.folder, FOLDER))
  while True:
    rows = status_lib.rows(plan, metric=args.metric or "")
    if args.failed:
      rows = [row for row in rows if _is_bad(row["state"])]
    if args.page:
      page.write(plan, rows, local_path(args.page, "a page"))
    if args.json:
      print(json.dumps(rows, indent=2), flush=True)
    else:
      print(f"{plan_lib.header(plan)}\n{status_lib.table(rows)}")
      print(status_lib.summary(plan, rows), flush=True)
    if not args.watch:
      return
    time.sleep(float(args.every))
    print("\x1b[2J\x1b[H" if sys.stdout.isatty() else "", end="")


def _is_bad(now: str) -> bool:
  return now.startswith("FAILED") or now in (
    state_lib.LOST,
    state_lib.WONT_FIT,
  )
