"""What runs a sweep: the interface of the backends, and their table."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import importlib
import pathlib
import shutil
import subprocess
from typing import Protocol

from launch.parsing import UsageError
from launch.sweep.plan import Job, Plan
from v2a_jax.basics import claim, files
from v2a_jax.basics.text import did_you_mean

# Module in this folder by the name of its backend.
BACKENDS = ("local", "slurm", "gke", "tpu_vm")
_SECONDS = 120


@dataclasses.dataclass(frozen=True)
class Option:
  """A setting of a backend.

  Attributes:
    about: what it is.
    default: its value if nothing is given; None if it must be given.
    whole: whether it is a whole number.
  """

  about: str
  default: str | None = None
  whole: bool = False


@dataclasses.dataclass(frozen=True)
class Report:
  """What a scheduler says of a job.

  Attributes:
    state: QUEUED, RUNNING, or "" if it has ended.
    detail: the scheduler's own word, and its reason for waiting.
    ended: how it ended by the scheduler's account; "" where that is not known.
    known: whether the scheduler knows the job.
  """

  state: str = ""
  detail: str = ""
  ended: str = ""
  known: bool = True


class Backend(Protocol):
  """A module that runs a sweep on one kind of machine.

  Attributes:
    OPTIONS: its settings, by name.
    TRAIN: what comes before the arguments of `v2a train` in scripts.
  """

  OPTIONS: Mapping[str, Option]
  TRAIN: str

  def job_files(self, plan: Plan) -> dict[str, str]:
    """Returns text by name of what it needs beside the scripts.

    Raises:
      UsageError: it cannot run such a sweep.
    """

  def submit(self, plan: Plan, jobs: Sequence[Job]) -> dict[str, str]:
    """Gives jobs to the scheduler; returns its id of each.

    Raises:
      SchedulerError: it is not there, or refuses.
    """

  def query(self, plan: Plan, ids: Mapping[str, str]) -> dict[str, Report]:
    """Asks the scheduler about jobs.

    Raises:
      SchedulerError: it does not answer.
    """

  def cancel(self, plan: Plan, ids: Mapping[str, str]) -> None:
    """Takes jobs back.

    Raises:
      SchedulerError: it does not answer.
    """


class SchedulerError(ValueError):
  """A scheduler that is not there or refuses; one line."""


def get(name: str) -> Backend:
  """Returns a backend by its name.

  Raises:
    UsageError: there is none of that name; names those that there are.
  """
  if name not in BACKENDS:
    known = f"; there are {', '.join(BACKENDS)}"
    raise UsageError(
      f"no backend {name!r}{did_you_mean(name, BACKENDS) or known}"
    )
  return importlib.import_module(f"launch.sweep.{name}")


def options_of(name: str, given: Sequence[tuple[str, str]]) -> dict[str, str]:
  """Returns all settings of a backend, those given before the defaults.

  Raises:
    UsageError: one that it does not have, that is required and not given, or
      that should be a number.
  """
  known, given = get(name).OPTIONS, dict(given)
  for key in given:
    if key not in known:
      there = f"; there are: {', '.join(known) or 'none'}"
      hint = did_you_mean(key, known) or there
      raise UsageError(f"--backend={name} has no option {key!r}{hint}")
  for key, option in known.items():
    if option.default is None and key not in given:
      raise UsageError(
        f"--backend={name} needs --option {key}=…, {option.about}"
      )
    if option.whole and not given.get(key, option.default).isdecimal():
      raise UsageError(f"--option {key}={given[key]} is not a whole number")
  return {k: given.get(k, option.default) for k, option in known.items()}


@contextlib.contextmanager
def alone(folder: pathlib.Path) -> Iterator[None]:
  """Keeps other launchers off a sweep.

  Raises:
    UsageError: there is one; names its process.
  """
  try:
    with claim.held(folder):
      yield
  except claim.ClaimedError as error:
    raise UsageError(
      f"v2a sweep launch runs already: {error}".replace(
        "stop it, or give another folder", "v2a sweep status follows it"
      )
    ) from None


def ids(plan: Plan) -> dict[str, str]:
  """Returns the scheduler's id of each job that was submitted."""
  file = plan.folder / "jobs.json"
  return files.read_json(file) if file.exists() else {}


def remember(plan: Plan, new: Mapping[str, str]) -> None:
  """Notes the ids of jobs that were submitted."""
  files.write_json(plan.folder / "jobs.json", {**ids(plan), **new})


def forget(plan: Plan, names: Sequence[str]) -> None:
  """Drops the ids of jobs that are to be submitted anew."""
  kept = {name: id_ for name, id_ in ids(plan).items() if name not in names}
  if kept != ids(plan):
    files.write_json(plan.folder / "jobs.json", kept)


def ask(
  *words: str,
  scheduler: str,
  given: str | None = None,
  seconds: float = _SECONDS,
) -> str:
  """Runs a scheduler's client; returns what it prints.

  Args:
    *words: command and arguments.
    scheduler: what to call the scheduler in an error.
    given: text for its standard input.
    seconds: time limit.

  Raises:
    SchedulerError: the client is not here, fails, or does not answer.
  """
  if not shutil.which(words[0]):
    raise SchedulerError(
      f"no {words[0]} here, the client of {scheduler}: run this where it is"
    )
  try:
    done = subprocess.run(
      words, input=given, capture_output=True, text=True, timeout=seconds
    )
  except subprocess.TimeoutExpired:
    raise SchedulerError(
      f"{scheduler} does not answer: {words[0]} took {seconds:.0f} s"
    ) from None
  if done.returncode:
    said = " ".join((done.stderr or done.stdout).split())
    raise SchedulerError(f"{scheduler} refuses: {said or done.returncode}")
  return done.stdout
