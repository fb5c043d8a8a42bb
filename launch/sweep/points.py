"""The runs of a sweep: products of a config's generators, changes one at a time.

A config file names its grids itself, as generators of dotted overrides:

    def sweep_lr():
      for value in (1e-4, 3e-4):
        yield {"optimizer.learning_rate": value}

A key `arg.NAME` is an argument of the file's `get_config`.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import itertools
import pathlib
import re
from typing import Any

from launch import config as config_lib
from launch.parsing import UsageError
from v2a_jax.basics.text import did_you_mean

ARGUMENT = "arg."


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
    checkpoint_every: number of steps between checkpoints.
    cost: what `costs.of` counted; empty if nothing was counted.
  """

  name: str
  config: str
  overrides: dict[str, Any]
  fingerprint: str
  num_train_steps: int | None = None
  train_seconds: float | None = None
  checkpoint_every: int | None = None
  cost: dict[str, Any] = dataclasses.field(default_factory=dict)

  def changes(self) -> list[str]:
    """Returns the overrides as arguments of `v2a train`."""
    return [config_lib.override(k, v) for k, v in self.overrides.items()]

  def arguments(self) -> list[str]:
    """Returns config, overrides and digest as arguments of `v2a train`."""
    digest = f"--config_hash={self.fingerprint}"
    return [f"--config={self.config}", *self.changes(), digest]

  @property
  def arm(self) -> str:
    """Name of the config file."""
    return pathlib.Path(self.config.partition(":")[0]).stem

  @property
  def settings(self) -> dict[str, Any]:
    """Overrides, and before them the named arguments of the config file."""
    given = self.config.partition(":")[2].split(",")
    named = dict(part.split("=", 1) for part in given if "=" in part)
    return {**named, **self.overrides}


def shared(planned: Sequence[Point]) -> dict[str, Any]:
  """Returns the overrides that all runs have with the same value."""
  first, *rest = [point.overrides for point in planned]
  same = lambda k, v: all(k in other and other[k] == v for other in rest)
  return {k: v for k, v in first.items() if same(k, v)}


def tags(planned: Sequence[Point]) -> list[list[str]]:
  """Returns words that tell runs apart: the arm, and settings that differ.

  They hold letters, digits and `_.=/:+-` only, and at most the 64 characters
  that wandb takes.
  """
  values: dict[str, list[Any]] = {}
  for point in planned:
    for key, value in point.settings.items():
      values.setdefault(key, []).append(value)
  differing = [
    key
    for key, found in values.items()
    if len(found) < len(planned) or any(v != found[0] for v in found)
  ]
  lasts = [key.split(".")[-1] for key in differing]
  name = {
    k: last if lasts.count(last) == 1 else k
    for k, last in zip(differing, lasts)
  }
  clean = lambda text: re.sub(r"[^\w.=/:+-]+", "_", text).strip("_")
  return [
    [
      clean(point.arm)[:64],
      *(
        f"{name[key]}={clean(str(value))}"[:64]
        for key, value in point.settings.items()
        if key in name
      ),
    ]
    for point in planned
  ]


def points(
  configs: Sequence[str],
  *,
  names: Sequence[str],
  overrides: Mapping[str, str],
  ablate: Sequence[str] = (),
  seeds: int = 0,
) -> list[Point]:
  """Resolves every run of a sweep.

  They are the product of config files, the sweeps in `names`, the base and each
  single change of `ablate`, and seeds.

  Args:
    configs: config files, the outermost axis.
    names: names of `sweep_*` generators of each file; `all` for every one.
    overrides: value by dotted key, as typed, for every point.
    ablate: names of generators whose values are tried one at a time.
    seeds: number of seeds, from the config's own; 0 for that alone.

  Raises:
    UsageError: a sweep that the file does not have, an unknown key, or two
      points that resolve to the same config.
    ConfigError: a value out of range.
  """
  label = "-".join([*names, *(f"each_{name}" for name in ablate)]) or "arms"
  planned = []
  for config in map(config_lib.find_config, configs):
    axes = _axes(config, names)
    if ablate:
      axes.append(_one_at_a_time(config, ablate, overrides))
    if seeds:
      first = config_lib.parse(*_typed(config, overrides)).seed
      axes.append([{"seed": first + i} for i in range(seeds)])
    for values in itertools.product(*axes):
      changes = {}
      for value in values:
        changes |= value
      short = ",".join(f"{k.split('.')[-1]}={v}" for k, v in changes.items())
      arm = pathlib.Path(config).name.replace(".py", "")
      parts = [
        label,
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


def choose(
  config: str, names: Sequence[str], prefix: str = config_lib.SWEEP
) -> dict[str, list[Mapping[str, Any]]]:
  """Returns what generators of a config file yield, by name.

  Args:
    config: config file.
    names: names of the generators without their prefix; `all` for every one.
    prefix: what the names of the functions begin with.

  Raises:
    UsageError: the file has no such generator; names those that it has.
  """
  if not names:
    return {}
  there = config_lib.sweeps(config, prefix)
  names = list(there) if list(names) == ["all"] else names
  for name in names:
    if name not in there:
      known = f"; there are: {', '.join(there) or 'none'}"
      hint = did_you_mean(name, there) or known
      what = "sweep" if prefix == config_lib.SWEEP else prefix.rstrip("_")
      raise UsageError(f"no {what} {name!r} in {config}{hint}")
  # One name twice is an axis twice, whose points are refused as equal.
  return {f"{name}#{i}": there[name] for i, name in enumerate(names)}


def _axes(config: str, names: Sequence[str]) -> list[list[Mapping[str, Any]]]:
  return list(choose(config, names).values())


def _one_at_a_time(
  config: str, names: Sequence[str], overrides: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
  """Returns no change, and each value of the sweeps that changes something."""
  seen = set()
  kept = []
  for change in [{}, *itertools.chain(*_axes(config, names))]:
    digest = _resolve("", config, dict(overrides) | dict(change)).fingerprint
    if digest not in seen:
      seen.add(digest)
      kept.append(change)
  return kept


def _typed(
  config: str, changes: Mapping[str, Any]
) -> tuple[str, Iterator[str]]:
  """Returns a config with its arguments, and the arguments of its overrides."""
  named = {k: v for k, v in changes.items() if k.startswith(ARGUMENT)}
  if named:
    file, _, before = config.partition(":")
    if before and "=" not in before:
      raise UsageError(
        f"{config}: a sweep sets {', '.join(named)}, so name the argument too:"
        f" {file}:NAME={before}"
      )
    given = dict(part.split("=", 1) for part in before.split(",") if part)
    given |= {k.removeprefix(ARGUMENT): v for k, v in named.items()}
    config = f"{file}:{','.join(f'{k}={v}' for k, v in given.items())}"
  rest = {k: v for k, v in changes.items() if k not in named}
  return config, [config_lib.override(k, v) for k, v in rest.items()]


def _resolve(name: str, config: str, overrides: dict[str, Any]) -> Point:
  """Reads the config afresh: copies of a ConfigDict share their nested parts."""
  config, arguments = _typed(config, overrides)
  try:
    resolved = config_lib.parse(config, arguments)
    config_lib.check(resolved)
  except ValueError as error:
    if not overrides or not name:
      raise
    raise UsageError(f"{name}: {error}") from error
  fingerprint = config_lib.fingerprint(resolved)
  return Point(
    name=f"{name}-{fingerprint}",
    config=config,
    overrides={
      k: v for k, v in overrides.items() if not k.startswith(ARGUMENT)
    },
    fingerprint=fingerprint,
    num_train_steps=resolved.num_train_steps,
    train_seconds=resolved.train_seconds,
    checkpoint_every=resolved.checkpoint_every,
  )
