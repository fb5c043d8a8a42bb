"""A planned sweep: its runs, its jobs and their scripts, as files.

A run is a chain of jobs: train, then evaluate if asked; the last job of the
sweep reports on all. A job is a script, and a folder for what becomes of it.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import os
import pathlib
import shlex
from typing import Any

from launch.parsing import UsageError
from launch.sweep import code as code_lib
from launch.sweep import points as points_lib
from launch.sweep.points import Point
from v2a_jax.basics import files
from v2a_jax.basics.paths import PathLike, as_path

SCHEMA = 2
REPORT = "report"
SCRIPT = """\
#!/usr/bin/env bash
# {title}
# Start it again after an interruption: it resumes, or says that it is done.
set -uo pipefail
cd {cwd} || exit 1
job={folder}
mkdir -p "$job"
if [ "$(cat "$job/exit_code" 2>/dev/null)" = 0 ]; then
  echo "{name}: done already"
  exit 0
fi
rm -f "$job/exit_code"
echo "$(uname -n) $$" > "$job/running"
trap : INT TERM  # The training gets these signals too, and saves.
{environment}{{
  trap : INT TERM
{body}
}} 2>&1 | (trap "" INT TERM; exec tee -a "$job/log.txt")
code=${{PIPESTATUS[0]}}
echo "$code" > "$job/exit_code"
rm -f "$job/running"
exit "$code"
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
  """One script of a sweep.

  Attributes:
    name: name of its script, without `.sh`.
    stage: `train`, `evaluate` or `report`.
    folder: folder or URL of its marks: `running`, `exit_code`, `log.txt`.
    point: run that it belongs to; None for the report.
    after: names of the jobs that must have ended before it starts, for a report
      in any way, else well.
  """

  name: str
  stage: str
  folder: PathLike
  point: Point | None
  after: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """Everything that plan.json holds.

  Attributes:
    folder: folder of the sweep.
    points: its runs.
    backend: name of what runs it.
    options: settings of the backend, as typed.
    topology: chips of a run, such as `h100:8`; "" where it was not said.
    num_slices: number of slices or machines of that shape.
    command: command that trains, before its arguments.
    tool: command that is `v2a`.
    workdirs: URL of the workdirs and results of all runs; "" for the folder.
    evaluate: data set that runs are judged on after training; "" for none.
    eval_flags: arguments of `v2a eval` for every run.
    variants: further arguments by name; each is an evaluation of its own.
    code: what `code.identity` says of the code.
    cwd: folder that commands run in.
  """

  folder: pathlib.Path
  points: list[Point]
  backend: str = "local"
  options: dict[str, str] = dataclasses.field(default_factory=dict)
  topology: str = ""
  num_slices: int = 1
  command: str
  tool: str = "v2a"
  workdirs: str = ""
  evaluate: str = ""
  eval_flags: list[str] = dataclasses.field(default_factory=list)
  variants: dict[str, list[str]] = dataclasses.field(default_factory=dict)
  code: dict[str, Any] = dataclasses.field(
    default_factory=lambda: {"commit": "", "changed": []}
  )
  cwd: str = dataclasses.field(default_factory=os.getcwd)

  @property
  def name(self) -> str:
    """Name of the sweep: that of its folder."""
    return self.folder.resolve().name

  def workdir(self, point: Point) -> PathLike:
    """Returns the workdir of a run."""
    return self._root() / point.name

  def results(self, point: Point) -> PathLike:
    """Returns the folder of the results of a run's evaluations."""
    return self._root() / "eval" / point.name

  def _root(self) -> PathLike:
    return as_path(self.workdirs or self.folder.resolve())

  def jobs(self) -> list[Job]:
    """Returns all jobs, each after those that it depends on."""
    train = [
      Job(name=p.name, stage="train", folder=self.workdir(p), point=p)
      for p in self.points
    ]
    if not self.evaluate:
      return train
    judge = [
      Job(
        name=f"{p.name}.eval",
        stage="evaluate",
        folder=self.results(p),
        point=p,
        after=(p.name,),
      )
      for p in self.points
    ]
    report = Job(
      name=REPORT,
      stage="report",
      folder=self.folder.resolve() / REPORT,
      point=None,
      after=tuple(job.name for job in judge),
    )
    return [*train, *judge, report]

  def body(self, job: Job) -> list[str]:
    """Returns the commands of a job, each as lines of shell."""
    if job.stage == "train":
      arguments = [*job.point.arguments(), f"--workdir={job.folder}"]
      return [_lines(self.command, arguments)]
    if job.stage == "evaluate":
      page = job.folder / "report.html"
      return [*self._evaluations(job.point), self._report(job.folder, page)]
    return [self._report(self._root() / "eval", self.page())]

  def page(self) -> pathlib.Path:
    """Returns the report of the sweep."""
    return self.folder.resolve() / "report.html"

  def _evaluations(self, point: Point) -> list[str]:
    commands = []
    for name, flags in (self.variants or {"": []}).items():
      out = self.results(point) / name
      words = [f"--set={self.evaluate}", *self.eval_flags, *flags]
      words = [str(self.workdir(point)), *words, f"--output={out}"]
      commands.append(_lines(f"{self.tool} eval", words))
    return commands

  def _report(self, folder: PathLike, page: PathLike) -> str:
    """Returns a command that reports on all results under a folder."""
    return _lines(f"{self.tool} report", [str(folder), f"--output={page}"])


def _lines(command: str, arguments: Sequence[str]) -> str:
  """Writes a command with an argument a line."""
  return " \\\n".join([command, *(f"  {shlex.quote(a)}" for a in arguments)])


def script(plan: Plan, job: Job) -> str:
  """Returns the text of the script of a job."""
  if job.point:
    index = plan.points.index(job.point) + 1
    title = f"{job.name}: run {index} of {len(plan.points)}"
    title += f", config {job.point.fingerprint}"
  else:
    title = f"{job.name}: compares all runs"
  body = " &&\n".join(plan.body(job))
  return SCRIPT.format(
    title=title,
    name=job.name,
    cwd=shlex.quote(plan.cwd),
    folder=shlex.quote(str(job.folder)),
    environment=_environment(plan, job),
    body="\n".join(f"  {line}" for line in body.splitlines()),
  )


def tracking(plan: Plan, job: Job) -> dict[str, str]:
  """Returns what wandb shall know of a run: its group and tags."""
  if job.stage != "train":
    return {}
  tags = points_lib.tags(plan.points)[plan.points.index(job.point)]
  return {"WANDB_RUN_GROUP": plan.name, "WANDB_TAGS": ",".join(tags)}


def _environment(plan: Plan, job: Job) -> str:
  lines = [
    f"export {name}={shlex.quote(value)}\n"
    for name, value in tracking(plan, job).items()
  ]
  return "".join(lines)


def write(
  plan: Plan, *, others: Mapping[str, str] | None = None, patch: str = ""
) -> None:
  """Writes plan.json and all scripts; keeps what runs have written.

  Args:
    plan: the sweep.
    others: text of the backend's files, by name.
    patch: changes of the code since its commit.

  Raises:
    UsageError: the folder holds a plan with other runs in it.
  """
  folder = plan.folder
  names = {point.name for point in plan.points}
  if (folder / "plan.json").exists():
    gone = [p.name for p in read(folder).points if p.name not in names]
    if gone:
      raise UsageError(
        f"{folder} holds another plan, with {gone[0]} in it;"
        " choose another -o, or remove its plan.json"
      )
  folder.mkdir(parents=True, exist_ok=True)
  texts = {f"{job.name}.sh": script(plan, job) for job in plan.jobs()}
  for name, text in {**texts, **(others or {})}.items():
    files.write_whole(folder / name, text)
    if text.startswith("#!"):
      (folder / name).chmod(0o755)
  if patch:
    files.write_whole(folder / "code.patch", patch)
  fields = {
    field.name: getattr(plan, field.name)
    for field in dataclasses.fields(plan)
    if field.name not in ("folder", "points")
  }
  rows = [dataclasses.asdict(point) for point in plan.points]
  files.write_json(
    folder / "plan.json", {"schema": SCHEMA, **fields, "points": rows}
  )


def read(folder: pathlib.Path) -> Plan:
  """Reads a written plan.

  Raises:
    UsageError: there is none, or it was written by another version.
  """
  file = folder / "plan.json"
  if not file.exists():
    raise UsageError(
      f"no plan in {folder}; v2a sweep plan -o {folder} makes it"
    )
  try:
    fields = files.read_json(file)
    if (schema := fields.pop("schema")) != SCHEMA:
      raise UsageError(f"{file} has schema {schema}, not {SCHEMA}")
    points = [Point(**point) for point in fields.pop("points")]
    return Plan(folder=folder, points=points, **fields)
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UsageError(f"{file} is not a plan ({error})") from None


def header(plan: Plan) -> str:
  """Returns the first line of a table: the sweep, where it runs, the code."""
  where = f"{plan.backend}, {plan.num_slices} x {plan.topology}"
  where = where if plan.topology else plan.backend
  return (
    f"sweep {plan.name}: {len(plan.points)} runs on {where};"
    f" {code_lib.describe(plan.code)}"
  )
