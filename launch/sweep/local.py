"""Runs the jobs of a sweep on this machine, some at a time.

The launcher waits for them and starts again what was killed. Without it runs
stop.
"""

from collections.abc import Mapping, Sequence
import contextlib
import glob
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time

from launch.parsing import UsageError
from launch.sweep import state
from launch.sweep.backend import Option
from launch.sweep.plan import Job, Plan
from v2a_jax.basics import claim, files, parent

OPTIONS: dict[str, Option] = {}
# A script is started with the interpreter that planned it.
TRAIN = f"{sys.executable} -m launch.train"
POLL_SECONDS = 0.2
LINE_SECONDS = 30.0  # Between two lines of progress with --jobs > 1.


def job_files(plan: Plan) -> dict[str, str]:
  """Needs no file beside the scripts."""
  return {}


def devices() -> list[str]:
  """Returns the GPUs of this machine, or those that this process may use."""
  if "CUDA_VISIBLE_DEVICES" in os.environ:
    names = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
    return [name for name in names if name.strip()]
  if not shutil.which("nvidia-smi"):
    return []
  listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
  count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
  return [str(index) for index in range(count)]


def _has_tpus() -> bool:
  """Says whether this is a TPU VM: its devices, and the library that drives them."""
  found = any(glob.glob(f"/dev/{name}") for name in ("accel*", "vfio/[0-9]*"))
  return found and importlib.util.find_spec("libtpu") is not None


def slots(jobs: int) -> list[dict[str, str]]:
  """Returns the environment of each of the jobs that run at a time.

  GPUs are dealt to them in equal parts. Without GPUs all share the processor.

  Raises:
    UsageError: there are GPUs, but fewer than jobs, or TPUs, which one process
      takes whole.
  """
  there = devices()
  if jobs > 1 and not there and _has_tpus():
    raise UsageError(f"--jobs {jobs}: one run takes all TPUs of a machine")
  if not there or jobs == 1:
    return [{} for _ in range(jobs)]
  if jobs > len(there):
    raise UsageError(f"--jobs {jobs}: there are {len(there)} GPUs here")
  each = len(there) // jobs
  shares = [there[i * each : (i + 1) * each] for i in range(jobs)]
  return [{"CUDA_VISIBLE_DEVICES": ",".join(share)} for share in shares]


class Launcher:
  """Runs jobs in their order, each when those that it depends on have ended.

  Attributes:
    failed: names of the jobs that ended badly.
  """

  def __init__(
    self, plan: Plan, jobs: Sequence[Job], *, slots, restarts: int, line
  ):
    """Takes the jobs that are to run.

    Args:
      plan: the sweep.
      jobs: jobs to run.
      slots: environment of each job that runs at a time.
      restarts: number of times that a job which was killed, or lost a host, is
        started again without having come further.
      line: returns the line of a job that is shown now and then.
    """
    self.plan, self.folder = plan, plan.folder
    self._all = {job.name: job for job in plan.jobs()}
    self._waiting = list(jobs)
    self._count, self._started = len(jobs), 0
    self._free, self._restarts, self._line = list(slots), restarts, line
    self._width = len(slots)
    self._running: dict[subprocess.Popen, tuple[Job, dict]] = {}
    self._others: list[tuple[Job, dict]] = []
    self._tries: dict[str, tuple[int, int]] = {}
    self._shown = time.monotonic()
    self.failed: list[str] = []

  def run(self) -> list[str]:
    """Runs all; returns the names of those that failed."""
    with contextlib.ExitStack() as stack:
      before = signal.signal(signal.SIGTERM, _exit)
      stack.callback(signal.signal, signal.SIGTERM, before)
      inherited = stack.enter_context(parent.lifeline())
      try:
        while self._waiting or self._running or self._others:
          self._start(inherited)
          time.sleep(POLL_SECONDS)
          self._collect()
          self._show()
      finally:
        self._stop()
    return self.failed

  def _start(self, inherited: Mapping) -> None:
    for job in list(self._waiting):
      if not self._free:
        return
      if not self._is_ready(job):
        continue
      self._waiting.remove(job)
      now = state.state(job.folder)
      if now == state.CANCELLED:
        continue
      if now == state.RUNNING:
        owner = state.owner_of(job.folder)
        if state.is_here(owner):
          print(f"{job.name}: runs already, waited for", flush=True)
          self._others.append((job, self._free.pop(0)))
        else:
          print(f"{job.name}: runs on {owner[0]}, left alone", flush=True)
        continue
      slot = self._free.pop(0)
      self._started += job.name not in self._tries
      print(f"[{self._started}/{self._count}] {job.name}", flush=True)
      env = {**inherited["env"], **slot}
      process = subprocess.Popen(
        ["bash", str(self.folder / f"{job.name}.sh")],
        stdout=None if self._width == 1 else subprocess.DEVNULL,
        start_new_session=True,
        **{**inherited, "env": env},
      )
      self._running[process] = job, slot

  def _is_ready(self, job: Job) -> bool:
    """Says whether a job may start; drops it if what it needs has failed."""
    busy = {job.name for job, _ in (*self._running.values(), *self._others)}
    busy |= {job.name for job in self._waiting}
    if busy.intersection(job.after):
      return False
    ends = [state.state(self._all[name].folder) for name in job.after]
    if job.stage == "report":
      ready = state.DONE in ends
    else:
      ready = all(end == state.DONE for end in ends)
    if not ready:
      self._waiting.remove(job)
      what = ", ".join(job.after) if job.point else "any evaluation"
      print(f"{job.name}: not started without {what}", flush=True)
    return ready

  def _collect(self) -> None:
    """Takes note of jobs that have ended."""
    for process in [p for p in self._running if p.poll() is not None]:
      job, slot = self._running.pop(process)
      self._free.append(slot)
      self._judge(job, state.exit_code(job.folder))
    for entry in self._others[:]:
      if state.state(entry[0].folder) != state.RUNNING:
        self._others.remove(entry)
        self._free.append(entry[1])
        self._judge(entry[0], state.exit_code(entry[0].folder))

  def _judge(self, job: Job, code: int | None) -> None:
    """Starts a job again that was killed, or notes that it failed."""
    if code == 0 or state.state(job.folder) == state.CANCELLED:
      return
    if code is not None and code not in state.START_AGAIN:
      self.failed.append(job.name)
      return
    step, (before, tries) = 0, self._tries.get(job.name, (-1, 0))
    step = state.newest(job.folder)
    tries = 1 if step > before else tries + 1
    self._tries[job.name] = step, tries
    what = "was killed" if code in (None, 137) else f"ended with status {code}"
    if tries > self._restarts:
      print(f"{job.name} {what}: not started again", flush=True)
      self.failed.append(job.name)
      return
    goes_on = f"goes on from step {step}" if step >= 0 else "starts again"
    print(f"{job.name} {what}: {goes_on}", flush=True)
    # A script that was killed may have left the training alone, which must end
    # first: `_start` sees that it runs.
    self._waiting.insert(0, job)

  def _show(self) -> None:
    if self._width > 1 and time.monotonic() - self._shown > LINE_SECONDS:
      self._shown = time.monotonic()
      for job, _ in self._running.values():
        print(self._line(job), flush=True)

  def _stop(self) -> None:
    """Asks jobs to save and end, waits for each, and says how it ended.

    Ctrl-C while they save ends them at once.
    """
    _signal(self._running, signal.SIGTERM)
    try:
      for process, (job, _) in self._running.items():
        process.wait()
        print(self._line(job), flush=True)
    except KeyboardInterrupt:
      _signal(self._running, signal.SIGKILL)
      raise


def cancel(plan: Plan, ids: Mapping[str, str]) -> None:
  """Asks jobs that run here to save and end; a launcher starts no other."""
  for job in plan.jobs():
    owner = state.owner_of(job.folder)
    if job.name not in ids or state.exit_code(job.folder) is not None:
      continue
    if state.is_here(owner) and state.is_alive(owner):
      _end(job, owner[1])


def _end(job: Job, process: int) -> None:
  """Sends SIGTERM to a script and what it started."""
  with contextlib.suppress(ProcessLookupError):
    if os.getpgid(process) == process:
      os.killpg(process, signal.SIGTERM)
      return
    # Started by hand, in a group with other things: the training alone.
    lock = job.folder / claim.LOCK
    if lock.exists() and claim.is_held(job.folder):
      os.kill(files.read_json(lock)["process"], signal.SIGTERM)


def _signal(running, number: int) -> None:
  """Sends a signal to scripts and what they started."""
  for process in running:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, number)


def _exit(number: int, _) -> None:
  raise SystemExit(128 + number)
