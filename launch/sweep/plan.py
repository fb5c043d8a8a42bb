"""Plans a sweep: the product of config files and their `sweep_*` generators.

A config file names its grids itself, as generators of dotted overrides:

    def sweep_lr():
      for value in (1e-4, 3e-4):
        yield {"optimizer.learning_rate": value}
"""

from collections.abc import Mapping, Sequence
import dataclasses
import itertools
import os
import pathlib
import re
import shlex
from typing import Any

from launch import config as config_lib
from launch.parsing import UsageError
from v2a_jax.basics import files
from v2a_jax.basics.text import did_you_mean

SCHEMA = 1
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
trap : INT TERM  # The training gets these signals too, and saves.
{command} \\
{arguments}
  --workdir="$run" 2>&1 |
  (trap "" INT TERM; exec tee -a "$run/log.txt")
code=${{PIPESTATUS[0]}}
echo "$code" > "$run/exit_code"
rm -f "$run/running"
exit "$code"
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
  """One run of a sweep.

  Attributes:
    name: name of its script and workdir.
    config: config file, as a full path, with its argument if it has one.
    overrides: value by dotted key.
    fingerprint: digest of the resolved config.
    num_train_steps: number of steps that the config asks for.
    train_seconds: wall-clock limit of the config in seconds; 0 for none.
  """

  name: str
  config: str
  overrides: dict[str, Any]
  fingerprint: str
  num_train_steps: int | None = None
  train_seconds: float | None = None

  def arguments(self) -> list[str]:
    """Returns the config and overrides as arguments of `v2a train`."""
    changes = [config_lib.override(k, v) for k, v in self.overrides.items()]
    return [f"--config={self.config}", *changes]


def points(
  configs: Sequence[str], *, names: Sequence[str], overrides: Mapping[str, str]
) -> list[Point]:
  """Resolves every point of the product of config files and named sweeps.

  Args:
    configs: config files, the outermost axis.
    names: names of `sweep_*` generators of each file; `all` for every one.
    overrides: value by dotted key, as typed, for every point.

  Raises:
    UsageError: a sweep that the file does not have, an unknown key, or two
      points that resolve to the same config.
    ConfigError: a value out of range.
  """
  planned = []
  for config in map(config_lib.find_config, configs):
    for values in itertools.product(*_axes(config, names)):
      changes = {}
      for value in values:
        changes |= value
      short = ",".join(f"{k.split('.')[-1]}={v}" for k, v in changes.items())
      arm = pathlib.Path(config).name.replace(".py", "")
      parts = [
        "-".join(names) or "arms",
        f"{len(planned):03d}",
        arm if len(configs) > 1 else "",
        short[:60],
      ]
      name = re.sub(r"[^A-Za-z0-9._=,-]+", "_", "-".join(filter(None, parts)))
      planned.append(_resolve(name, config, overrides | changes))
  names_by_config = {}
  for point in planned:
    twin = names_by_config.setdefault(point.fingerprint, point.name)
    if twin != point.name:
      raise UsageError(
        f"{twin} and {point.name} are the same run: a sweep sets what an"
        " override or another sweep sets too"
      )
  return planned


def _axes(config: str, names: Sequence[str]) -> list[list[Mapping[str, Any]]]:
  """Returns the values of the chosen sweeps of a config file."""
  if not names:
    return []
  sweeps = config_lib.sweeps(config)
  for name in [] if names == ["all"] else names:
    if name not in sweeps:
      there = f"; there are: {', '.join(sweeps) or 'none'}"
      hint = did_you_mean(name, sweeps) or there
      raise UsageError(f"no sweep {name!r} in {config}{hint}")
  return [sweeps[name] for name in (sweeps if names == ["all"] else names)]


def _resolve(name: str, config: str, overrides: dict[str, Any]) -> Point:
  """Reads the config afresh: copies of a ConfigDict share their nested parts."""
  arguments = [config_lib.override(k, v) for k, v in overrides.items()]
  resolved = config_lib.parse(config, arguments)
  config_lib.check(resolved)
  fingerprint = config_lib.fingerprint(resolved)
  return Point(
    name=f"{name}-{fingerprint}",
    config=config,
    overrides=overrides,
    fingerprint=fingerprint,
    num_train_steps=resolved.num_train_steps,
    train_seconds=resolved.train_seconds,
  )


def write(
  folder: pathlib.Path, planned: Sequence[Point], *, command: str
) -> None:
  """Writes plan.json and a script for each point; keeps runs that are there.

  Raises:
    UsageError: the folder holds a plan with other runs in it.
  """
  names = {point.name for point in planned}
  if (folder / "plan.json").exists():
    others = [p.name for p in read(folder) if p.name not in names]
    if others:
      raise UsageError(
        f"{folder} holds another plan, with {others[0]} in it;"
        " choose another -o, or remove its plan.json"
      )
  folder.mkdir(parents=True, exist_ok=True)
  for index, point in enumerate(planned, start=1):
    script = folder / f"{point.name}.sh"
    arguments = [f"  {shlex.quote(arg)} \\" for arg in point.arguments()]
    text = SCRIPT.format(
      name=point.name,
      index=index,
      count=len(planned),
      fingerprint=point.fingerprint,
      cwd=shlex.quote(os.getcwd()),
      workdir=shlex.quote(str((folder / point.name).resolve())),
      command=command,
      arguments="\n".join(arguments),
    )
    files.write_whole(script, text)
    script.chmod(0o755)
  rows = [dataclasses.asdict(point) for point in planned]
  files.write_json(folder / "plan.json", {"schema": SCHEMA, "points": rows})


def read(folder: pathlib.Path) -> list[Point]:
  """Returns the points of a written plan.

  Raises:
    UsageError: there is none, or it was written by another version.
  """
  file = folder / "plan.json"
  if not file.exists():
    raise UsageError(
      f"no plan in {folder}; v2a sweep plan -o {folder} makes it"
    )
  try:
    plan = files.read_json(file)
    if plan["schema"] != SCHEMA:
      raise UsageError(f"{file} has schema {plan['schema']}, not {SCHEMA}")
    return [Point(**point) for point in plan["points"]]
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UsageError(f"{file} is not a plan ({error})") from None
