"""Runs that differ in nothing but their training seed, as one arm.

An arm stands where a run does: its rows have the mean over seeds, with the
interval over seeds and clips (training_seeds.py), and `models` has its runs. What
cannot be averaged, such as sounds and the training curve, is that of its first.
"""

from collections.abc import Hashable, Sequence
import json
import pathlib
import re

import numpy as np

from v2a_jax.evaluation import training_seeds
from v2a_jax.evaluation.intervals import Estimate
from v2a_jax.evaluation.report.columns import Column
from v2a_jax.evaluation.report.differences import row_of, terms
from v2a_jax.evaluation.schema import is_finite

# Settings that may differ between runs of one arm.
_OWN = ("seed", "name", "checkpoint_dir")


def groups(runs: Sequence[dict]) -> list[list[dict]]:
  """Groups runs that differ in their training seed alone, in order of it.

  Their settings, sampler, clips and metrics are equal, and their steps too where
  several checkpoints of a run are there. Of runs with one seed twice nothing is
  grouped.
  """
  seeds = [run["config"].get("seed") for run in runs]
  steps = [run["checkpoint"].get("step") for run in runs]
  found = []
  for own in _by([_rest(run) or i for i, run in enumerate(runs)]):
    parts = [own]
    if not _apart(own, seeds):
      by_step = _by([steps[i] for i in own])
      parts = [[own[i] for i in part] for part in by_step]
    for part in parts:
      if _apart(part, seeds):
        found.append(sorted(part, key=seeds.__getitem__))
      else:
        found += [[i] for i in part]
  return [[runs[i] for i in group] for group in sorted(found, key=min)]


def _by(keys: Sequence[Hashable]) -> list[list[int]]:
  """Returns the places of equal keys."""
  places: dict[Hashable, list[int]] = {}
  for i, key in enumerate(keys):
    places.setdefault(key, []).append(i)
  return list(places.values())


def _apart(places: Sequence[int], seeds: Sequence) -> bool:
  """Says whether runs have different seeds each."""
  return len({seeds[i] for i in places}) == len(places)


def _rest(run: dict) -> str:
  """Returns all that runs of an arm have in common; "" where it has no seed."""
  if not isinstance(run["config"].get("seed"), int):
    return ""
  config = {k: v for k, v in run["config"].items() if k not in _OWN}
  metrics = {id_: of.get("identity") for id_, of in run["metrics"].items()}
  rows = [row["name"] for row in run["rows"]]
  clips = run["set"].get("manifest_sha256"), run["set"].get("split")
  rest = (config, run["sampler"], clips, run["identity"], metrics, rows)
  return json.dumps(rest, sort_keys=True, default=str)


def folder_of(group: Sequence[dict]) -> pathlib.Path:
  """Returns the folder of the first run, whose seed is not in its name."""
  folder = group[0]["folder"]
  if len(group) < 2:
    return folder
  parts = (re.sub(r"[,_-]?\bseed=\d+", "", part) for part in folder.parts)
  return pathlib.Path(*(part for part in parts if part))


def arms_of(runs: Sequence[dict], columns: Sequence[Column]) -> list[dict]:
  """Makes an arm of runs with one `arm`, its name; single runs stay as are."""
  by_name: dict[str, list[dict]] = {}
  for run in runs:
    by_name.setdefault(run["arm"], []).append(run)
  return [
    _arm(own, columns) if len(own) > 1 else own[0] for own in by_name.values()
  ]


def _arm(runs: Sequence[dict], columns: Sequence[Column]) -> dict:
  first = runs[0]
  arm = {"name": first["arm"], "models": list(runs)}
  arm["config"] = first["config"] | {
    "seed": [run["config"]["seed"] for run in runs]
  }
  arm["rows"] = [
    row | {"metrics": {c.id: e for c in columns if (e := _entry(runs, row, c))}}
    for row in first["rows"]
  ]
  return first | arm


def _entry(runs: Sequence[dict], row: dict, column: Column) -> dict | None:
  """Returns the entry of results.json for the mean over seeds."""
  rows = [row_of(run, row["name"]) for run in runs]
  entries = [(of["metrics"].get(column.id) or {}) for of in rows]
  if all(entry == entries[0] for entry in entries):
    return entries[0]  # True sounds, and all that no model made.
  if not all(is_finite(entry.get("value")) for entry in entries):
    return None
  ends = ("value", "low", "high")
  number = lambda value: value if is_finite(value) else np.nan
  models = [
    Estimate(*(number(entry.get(end)) for end in ends), entry.get("n") or 0)
    for entry in entries
  ]
  values = np.array([model.value for model in models])
  arm = arm_of_terms(runs, row["name"], column)
  known = arm is not None and np.allclose(arm.values, values, 1e-2, 1e-3)
  # A median has no parts of clips.
  found = training_seeds.mean(models, arm.parts if known else None)
  return found.within(column.bounds).to_json()


def arm_of_terms(
  runs: Sequence[dict], row: str, column: Column, ids: Sequence[str] = ()
) -> training_seeds.Arm | None:
  """Returns what the runs' clips have in a metric; None where none has it.

  Clips that a run has nothing for count as none in its value. `ids`: only these
  clips; without, those of the first run.
  """
  ids = ids or [clip["id"] for clip in runs[0]["clips"]]
  found = np.zeros((len(runs), len(ids), 1, 2))
  for s, run in enumerate(runs):
    clips = {clip["id"]: clip for clip in run["clips"]}
    for i, id_ in enumerate(ids):
      if id_ in clips and (own := terms(clips[id_], row, column)) is not None:
        found[s, i, 0] = own
  return training_seeds.Arm(found) if found[..., 1].any(1).all() else None
