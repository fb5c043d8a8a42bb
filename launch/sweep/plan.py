"""A sweep as files that a person can read, and what became of each run.

    DIR/plan.json      the points: name, config file, overrides, fingerprint
    DIR/NAME.sh        one runnable script a point: bash DIR/NAME.sh
    DIR/NAME/          that run's work directory

A script leaves three small files in its work directory: `running` (host and
process) while it runs, `exit_code` when it has ended, and `log.txt`. They say
all that there is to know about a run, so a run started by hand, by `v2a sweep
launch` or by a scheduler looks the same, and nothing has to keep running.
"""

import dataclasses
import itertools
import json
import os
import pathlib
import re
import shlex
import socket
import time
from typing import Any

from launch import config as config_lib
from launch.parsing import UsageError
from v2a_jax.basics.text import did_you_mean

SCHEMA = 1
# Exit codes of SIGINT and SIGTERM: interrupted or preempted, after a save.
STOPPED = ("130", "143")
SCRIPT = """\
#!/usr/bin/env bash
# {name}: run {index} of {count}, config {fingerprint}
# Start it again after an interruption: it resumes, or says that it is done.
set -uo pipefail
cd {cwd} || exit 1
run={workdir}
mkdir -p "$run"
if [ "$(cat "$run/exit_code" 2>/dev/null)" = 0 ]; then
  echo "{name}: done already"
  exit 0
fi
rm -f "$run/exit_code"
echo "$(uname -n) $$" > "$run/running"
{command} \\
{arguments}
  --workdir="$run" 2>&1 | tee -a "$run/log.txt"
code=${{PIPESTATUS[0]}}
echo "$code" > "$run/exit_code"
rm -f "$run/running"
exit "$code"
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
  """One run: a config file and what is changed in it."""

  name: str
  config: str
  overrides: dict[str, Any]
  fingerprint: str
  num_train_steps: int | None = None
  train_seconds: float | None = None

  def arguments(self) -> list[str]:
    """As they would be typed after `v2a train`."""
    changes = [config_lib.override(k, v) for k, v in self.overrides.items()]
    return [f"--config={self.config}", *changes]


def points(
  configs: list[str],
  *,
  names: list[str],
  overrides: dict[str, str],
) -> list[Point]:
  """The product of config files and named sweeps.

  Args:
    configs: config files; each is one more value of the outermost axis.
    names: names of `sweep_*` generators of each file; `all` takes every one.
    overrides: dotted overrides of every point, as typed.

  Raises:
    UsageError: a sweep that the file does not have, or two points that
      resolve to the same config.
  """
  found = []
  for config in map(config_lib.find_config, configs):
    axes = [list(make()) for make in _chosen(config, names)]
    for values in itertools.product(*axes):
      changes = {}
      for value in values:
        changes |= value
      found.append((config, changes))
  label = "-".join(names) or "arms"
  planned = []
  for index, (config, changes) in enumerate(found):
    arm = [pathlib.Path(config.partition(":")[0]).stem]
    short = ",".join(f"{k.split('.')[-1]}={v}" for k, v in changes.items())
    parts = [label, f"{index:03d}", *arm * (len(configs) > 1), short[:60]]
    name = re.sub(r"[^A-Za-z0-9._=,-]+", "_", "-".join(filter(None, parts)))
    planned.append(_point(name, config, overrides | changes))
  _refuse_twins(planned)
  return planned


def write(folder: pathlib.Path, planned: list[Point], *, command: str) -> None:
  """Writes plan.json and a script a point; keeps runs that are there.

  Raises:
    UsageError: the folder holds a plan with other runs in it.
  """
  kept = {point.name for point in planned}
  if (folder / "plan.json").exists():
    others = [p.name for p in read(folder) if p.name not in kept]
    if others:
      raise UsageError(
        f"{folder} holds another plan, with {others[0]} in it;"
        " choose another -o, or remove its plan.json"
      )
  folder.mkdir(parents=True, exist_ok=True)
  for index, point in enumerate(planned):
    script = folder / f"{point.name}.sh"
    script.write_text(_script(folder, point, index, len(planned), command))
    script.chmod(0o755)
  plan = {"schema": SCHEMA, "points": [dataclasses.asdict(p) for p in planned]}
  (folder / "plan.json").write_text(json.dumps(plan, indent=2) + "\n")


def read(folder: pathlib.Path) -> list[Point]:
  """The points of a written plan.

  Raises:
    UsageError: there is none, or it was written by another version.
  """
  file = folder / "plan.json"
  if not file.exists():
    raise UsageError(
      f"no plan in {folder}; v2a sweep plan -o {folder} makes it"
    )
  plan = json.loads(file.read_text())
  if plan.get("schema") != SCHEMA:
    raise UsageError(f"{file} has schema {plan.get('schema')}, not {SCHEMA}")
  return [Point(**point) for point in plan["points"]]


def state(workdir: pathlib.Path) -> str:
  """NEW, RUNNING, DONE, RESUME (stopped with a checkpoint) or FAILED."""
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
  """Steps that have a finished checkpoint, and their age in seconds."""
  folders = (workdir / "checkpoints").glob("[0-9]*")
  now = time.time()
  return {
    int(folder.name): now - folder.stat().st_mtime
    for folder in folders
    if folder.name.isdigit()
  }


def progress(point: Point, workdir: pathlib.Path) -> dict[str, Any]:
  """One row of `v2a sweep status`; a value is None where it is unknown.

  Returns:
    `run`, `state`, `step`, `total`, `loss`, `eta` (seconds), `checkpoint`
    (age in seconds of the newest).
  """
  last = _last_record(workdir / "metrics.jsonl")
  ages = checkpoints(workdir)
  running = state(workdir)
  return {
    "run": point.name,
    "state": running,
    "step": last.get("step", max(ages, default=None)),
    "total": point.num_train_steps,
    "loss": last.get("train/loss"),
    "eta": last.get("perf/eta_seconds") if running == "RUNNING" else None,
    "checkpoint": min(ages.values(), default=None),
  }


def _chosen(config: str, names: list[str]) -> list:
  known = config_lib.sweeps(config)
  if names == ["all"]:
    return list(known.values())
  for name in names:
    if name not in known:
      hint = did_you_mean(name, known)
      there = ", ".join(known) or "none"
      raise UsageError(
        f"no sweep {name!r} in {config}{hint or f'; there are: {there}'}"
      )
  return [known[name] for name in names]


def _point(name: str, config: str, changes: dict[str, Any]) -> Point:
  arguments = [config_lib.override(k, v) for k, v in changes.items()]
  # Read afresh: copies of a ConfigDict share their nested parts.
  resolved = config_lib.parse([f"--config={config}", *arguments])
  fingerprint = config_lib.fingerprint(resolved)
  return Point(
    name=f"{name}-{fingerprint}",
    config=config,
    overrides=changes,
    fingerprint=fingerprint,
    num_train_steps=resolved.get("num_train_steps"),
    train_seconds=resolved.get("train_seconds"),
  )


def _refuse_twins(planned: list[Point]) -> None:
  seen = {}
  for point in planned:
    key = point.fingerprint
    if key in seen:
      raise UsageError(
        f"{seen[key]} and {point.name} are the same run: a sweep sets what"
        " an override or another sweep sets too"
      )
    seen[key] = point.name


def _script(
  folder: pathlib.Path, point: Point, index: int, count: int, command: str
) -> str:
  return SCRIPT.format(
    name=point.name,
    index=index,
    count=count,
    fingerprint=point.fingerprint,
    cwd=shlex.quote(os.getcwd()),
    workdir=shlex.quote(str((folder / point.name).resolve())),
    command=command,
    arguments="\n".join(f"  {shlex.quote(a)} \\" for a in point.arguments()),
  )


def _last_record(file: pathlib.Path) -> dict[str, Any]:
  """The newest record that has a loss; a torn last line is passed over."""
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
