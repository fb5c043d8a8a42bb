"""Runs the jobs of a sweep under Slurm: an array for each stage.

A task of `train.sbatch` trains one run, with a process for every GPU. The same
task of `evaluate.sbatch` starts when it has ended well, and `report.sbatch` when
all evaluations have ended. The folder of the sweep, the repository and the
interpreter must be on a file system that every node sees.
"""

from collections.abc import Iterator, Mapping, Sequence
import re
import shlex
import sys

from launch.parsing import UsageError
from launch.sweep import backend, state
from launch.sweep.backend import Option, Report, SchedulerError, ask
from launch.sweep.plan import REPORT, Job, Plan

OPTIONS = {
  "nodes": Option("machines of a run", "1", whole=True),
  "min_nodes": Option(
    "machines with which a run goes on where fewer are left; nodes if empty", ""
  ),
  "tasks_per_node": Option("processes on each, one a GPU", "8", whole=True),
  "gpus_per_node": Option("GPUs of each; 0 for none", "8", whole=True),
  "cpus_per_task": Option("cores of a process", "8", whole=True),
  "time": Option("time limit of a job, as Slurm writes it", "24:00:00"),
  "save_seconds": Option(
    "seconds between the signal and the limit", "300", whole=True
  ),
  "max_restarts": Option("times that a run is requeued", "100", whole=True),
  "partition": Option("partition; that of the cluster if empty", ""),
  "account": Option("account to charge", ""),
  "qos": Option("quality of service", ""),
  "constraint": Option("features of the machines", ""),
}
# With --distributed JAX reads coordinator, processes and rank from Slurm. When
# a process is lost, the others say which and end by themselves; what is left
# after two minutes is killed.
TRAIN = (
  f"srun --kill-on-bad-exit=0 --wait=120 {sys.executable} -m launch.train"
  " --distributed"
)
SCHEDULER = "Slurm"
STAGES = ("train", "evaluate", "report")
HEAD = """\
#!/usr/bin/env bash
# {about}
# v2a sweep launch submits it; by hand: sbatch {file}
#SBATCH --job-name={name}
{directives}
#SBATCH --open-mode=append
#SBATCH --output={log}
#SBATCH --requeue
set -uo pipefail
"""
ARRAY = """\
names=(
{names}
)
name=${{names[$SLURM_ARRAY_TASK_ID]}}
job=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID
"""
# A task that is to go on asks to be queued again; it keeps its id.
TAIL = """\
trap : TERM  # The processes get it too, and save; this script outlives them.
code=0
bash {folder}/"$name".sh || code=$?

# 75: a host was lost; 134, 137, 139: killed; 143: SIGTERM, after a save.
# Any other status would be the same again.
case $code in
  75 | 134 | 137 | 139 | 143)
    if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {restarts} ] &&
       [ ! -e {folder}/"$name"/cancelled ]; then
      scontrol requeue "$job"
    fi
    ;;
esac
exit "$code"
"""
# Words of Slurm: how a job ended, in ours; all that mean an end; waiting.
ENDED = {"COMPLETED": state.DONE, "CANCELLED": state.CANCELLED}
OVER = (
  *("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL"),
  *("OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL", "PREEMPTED", "REVOKED"),
)
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SUSPENDED")


def job_files(plan: Plan) -> dict[str, str]:
  """Returns an sbatch file for each stage.

  Raises:
    UsageError: a time limit in which no run gets anywhere.
  """
  _check_nodes(plan)
  _check_time(plan)
  stages = STAGES if plan.evaluate else STAGES[:1]
  return {_file(stage): _sbatch(plan, stage) for stage in stages}


def _file(stage: str) -> str:
  return f"{stage}.sbatch"


def _sbatch(plan: Plan, stage: str) -> str:
  jobs = [job for job in plan.jobs() if job.stage == stage]
  folder, options = plan.folder.resolve(), plan.options
  about = {
    "train": f"{plan.name}: trains {len(jobs)} runs, each a task of an array.",
    "evaluate": f"{plan.name}: judges each run after its training.",
    "report": f"{plan.name}: compares all runs.",
  }[stage]
  text = HEAD.format(
    about=about,
    file=shlex.quote(str(folder / _file(stage))),
    name=_job_name(plan, stage),
    directives="\n".join(f"#SBATCH {d}" for d in _directives(plan, stage)),
    log=folder / "slurm" / ("%x-%j.log" if stage == REPORT else "%x-%A_%a.log"),
  )
  if stage == REPORT:
    text += f"name={REPORT} job=$SLURM_JOB_ID\n"
  else:
    names = "\n".join(f"  {shlex.quote(job.name)}" for job in jobs)
    text += ARRAY.format(names=names)
  return text + TAIL.format(
    folder=shlex.quote(str(folder)),
    restarts=options["max_restarts"],
  )


def _job_name(plan: Plan, stage: str) -> str:
  return re.sub(r"[^A-Za-z0-9._-]+", "_", f"{plan.name}-{stage}")


def _directives(plan: Plan, stage: str) -> Iterator[str]:
  options = dict(plan.options)
  gpus = _gpus(plan)
  if stage == "train":
    yield f"--array=0-{len(plan.points) - 1}"
    least, nodes = options["min_nodes"], _nodes(plan)
    yield f"--nodes={least}-{nodes}" if least else f"--nodes={nodes}"
    yield f"--ntasks-per-node={gpus or options['tasks_per_node']}"
    # To every process, before the limit and at preemption: a last checkpoint.
    yield f"--signal=TERM@{options['save_seconds']}"
  else:
    if stage == "evaluate":
      yield f"--array=0-{len(plan.points) - 1}"
    yield "--nodes=1"
    yield "--ntasks-per-node=1"
  if gpus and stage != REPORT:
    yield f"--gpus-per-node={gpus if stage == 'train' else 1}"
  yield f"--cpus-per-task={options['cpus_per_task']}"
  yield f"--time={options['time']}"
  for key in ("partition", "account", "qos", "constraint"):
    if options[key]:
      yield f"--{key}={options[key]}"


def _gpus(plan: Plan) -> int:
  """Returns the GPUs of a machine; those of the topology go first."""
  _, _, shape = plan.topology.partition(":")
  return int(shape or plan.options["gpus_per_node"])


def _nodes(plan: Plan) -> str:
  return str(plan.num_slices) if plan.topology else plan.options["nodes"]


def _check_nodes(plan: Plan) -> None:
  """Refuses numbers of machines that are none, and chips that are no GPUs."""
  _, _, shape = plan.topology.partition(":")
  if shape and not shape.isdecimal():
    raise UsageError(
      f"--topology={plan.topology}: Slurm's machines have GPUs, such as h100:8"
    )
  least, nodes = plan.options["min_nodes"], _nodes(plan)
  if int(nodes) < 1:
    raise UsageError(f"--option nodes={nodes} is no number of machines")
  if least and not (least.isdecimal() and 1 <= int(least) <= int(nodes)):
    raise UsageError(
      f"--option min_nodes={least} is not from 1 to {nodes}, the machines of a"
      " run"
    )


def seconds_of(time: str) -> float:
  """Returns the seconds of a time limit as Slurm writes it.

  Minutes, MM:SS, HH:MM:SS, days-HH, days-HH:MM or days-HH:MM:SS.

  Raises:
    UsageError: it is none of these.
  """
  days, dash, rest = time.rpartition("-")
  parts = rest.split(":")
  if not all(p.isdecimal() for p in [*parts, *([days] if dash else [])]):
    raise UsageError(f"--option time={time} is no time such as 24:00:00")
  numbers = [int(part) for part in parts]
  if dash:
    hours, minutes, seconds = (*numbers, 0, 0)[:3]
  elif len(numbers) < 3:
    hours, (minutes, seconds) = 0, (*numbers, 0)[:2]
  else:
    hours, minutes, seconds = numbers[:3]
  return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def _check_time(plan: Plan) -> None:
  """Refuses a limit that ends a run before it has saved anything new."""
  limit = seconds_of(plan.options["time"])
  # Slurm may send the signal up to a minute early.
  left = limit - float(plan.options["save_seconds"]) - 60
  if left <= 0:
    raise UsageError(
      f"--option time={plan.options['time']} leaves no time to train:"
      f" {plan.options['save_seconds']} s are for the last checkpoint"
      " (--option save_seconds), and Slurm may signal a minute early"
    )
  if not all(point.cost.get("step_seconds") for point in plan.points):
    print(
      "not checked whether a time limit of"
      f" {plan.options['time']} reaches a first checkpoint: that needs"
      " --topology, without --quick",
      file=sys.stderr,
    )
  for point in plan.points:
    seconds = point.cost.get("step_seconds")
    needed = seconds and seconds * point.checkpoint_every
    if needed and needed > left:
      raise UsageError(
        f"{point.name}: --option time={plan.options['time']} is shorter than"
        f" the {point.checkpoint_every} steps between checkpoints, which take"
        f" {needed:.0f} s at least: raise it, or lower"
        " config.checkpoint_every"
      )


def submit(plan: Plan, jobs: Sequence[Job]) -> dict[str, str]:
  """Submits jobs stage by stage, each after those that it depends on."""
  folder = plan.folder.resolve()
  (folder / "slurm").mkdir(exist_ok=True)
  ids = {}
  index = {point.name: i for i, point in enumerate(plan.points)}
  for stage in STAGES:
    groups: dict[str, list[Job]] = {}
    for job in (job for job in jobs if job.stage == stage):
      groups.setdefault(_dependency(plan, job, ids), []).append(job)
    for dependency, group in groups.items():
      words = ["sbatch", "--parsable"]
      if dependency:
        words += [f"--dependency={dependency}", "--kill-on-invalid-dep=yes"]
      if stage != REPORT:
        tasks = [index[job.point.name] for job in group]
        words.append(f"--array={','.join(map(str, tasks))}")
      words.append(str(folder / _file(stage)))
      number = ask(*words, scheduler=SCHEDULER).strip().partition(";")[0]
      new = {
        job.name: number
        if stage == REPORT
        else f"{number}_{index[job.point.name]}"
        for job in group
      }
      backend.remember(plan, new)  # At once: the next submission may fail.
      ids |= new
  return ids


def _dependency(plan: Plan, job: Job, new: Mapping[str, str]) -> str:
  """Returns what a job waits for, as Slurm writes it; "" for nothing."""
  ids = {**backend.ids(plan), **new}
  folders = {j.name: j.folder for j in plan.jobs()}
  open_ = [
    ids[name]
    for name in job.after
    if name in ids and state.state(folders[name]) != state.DONE
  ]
  if not open_:
    return ""
  if job.stage == REPORT:
    return "afterany:" + ":".join(open_)
  (one,) = open_
  return "aftercorr:" + one.partition("_")[0]


def query(plan: Plan, ids: Mapping[str, str]) -> dict[str, Report]:
  """Asks squeue, and sacct about what that does not know any more."""
  listed = _squeue(ids.values())
  gone = [id_ for id_ in ids.values() if id_ not in listed]
  ended = _sacct(gone) if gone else {}
  reports = {}
  for name, id_ in ids.items():
    word, reason = listed.get(id_) or (ended.get(id_, ""), "")
    if id_ not in listed or word in OVER:
      now = ENDED.get(word, word.lower())
      reports[name] = Report(ended=now, known=bool(word))
    else:
      waits = word in WAITING
      known = f"{word.lower()}: {reason}" if waits else word.lower()
      reports[name] = Report(state.QUEUED if waits else state.RUNNING, known)
  return reports


def _squeue(ids) -> dict[str, tuple[str, str]]:
  """Returns state and reason of jobs, by id.

  Slurm lists those that have ended for some minutes more (MinJobAge), while the
  database that sacct reads may learn of them late.
  """
  bases = sorted({id_.partition("_")[0] for id_ in ids})
  words = ["squeue", "-h", "-r", "-t", "all", "-o", "%i|%T|%r"]
  try:
    text = ask(*words, "-j", ",".join(bases), scheduler=SCHEDULER)
  except SchedulerError as error:
    if "Invalid job id" not in str(error):
      raise
    return {}  # It knows none of them.
  rows = [line.split("|") for line in text.splitlines()]
  return {id_: (word, why) for id_, word, why in rows}


def _sacct(ids: Sequence[str]) -> dict[str, str]:
  """Returns how jobs ended, by id; {} where nothing is accounted."""
  words = ["sacct", "-X", "-n", "-P", "-o", "JobID,State", "-j", ",".join(ids)]
  try:
    text = ask(*words, scheduler=SCHEDULER)
  except SchedulerError:
    return {}
  rows = [line.split("|") for line in text.splitlines() if line.strip()]
  # "CANCELLED by 1000"; a pending array is one row, "7_[0-2]".
  return {id_: word.partition(" ")[0] for id_, word in rows}


def cancel(plan: Plan, ids: Mapping[str, str]) -> None:
  """Takes jobs back; those that run get SIGTERM, and some time to save."""
  del plan
  ask("scancel", *ids.values(), scheduler=SCHEDULER)
