"""How the runs of a sweep are doing: scheduler, heartbeats, metrics, results."""

from collections.abc import Mapping, Sequence
import json
import pathlib
import time
from typing import Any

from launch.sweep import backend as backend_lib
from launch.sweep import state
from launch.sweep.backend import Report
from launch.sweep.plan import Job, Plan
from v2a_jax.basics import files
from v2a_jax.basics.paths import as_path, find, is_remote
from v2a_jax.basics.text import clock
from v2a_jax.training.slowness import slow_hosts

# What is shown of an evaluation, if it was measured.
MAIN_METRIC = "onset_f1_50ms"
# A process that has not reported for so long is silent.
SILENT_SECONDS = 120.0
COLUMNS = {
  "run": "run",
  "state": "state",
  "step": "step",
  "percent": "%",
  "loss": "loss",
  "clips_per_second": "clips/s",
  "mfu": "MFU",
  "eta": "ETA",
  "checkpoint": "saved",
  "best": "best",
  "restarts": "restarts",
}


def states(plan: Plan) -> dict[str, tuple[str, str]]:
  """Returns the state of every job, and a word of the scheduler on it.

  Raises:
    SchedulerError: the scheduler of the sweep does not answer.
  """
  ids = backend_lib.ids(plan)
  reports: Mapping[str, Report] = {}
  if ids and plan.backend != "local":
    reports = backend_lib.get(plan.backend).query(plan, ids)
  return {job.name: state_of(job, reports.get(job.name)) for job in plan.jobs()}


def state_of(job: Job, report: Report | None = None) -> tuple[str, str]:
  """Joins what the scheduler says of a job with the marks in its folder."""
  marks = state.state(job.folder)
  if report is None:
    fits = job.point is None or job.point.cost.get("fits", True)
    if job.stage == "train" and marks == state.NEW and not fits:
      return state.WONT_FIT, state.why_not(job.point.cost)
    return marks, ""
  if report.state:
    return report.state, report.detail
  if marks in (state.DONE, state.CANCELLED) or report.ended == state.DONE:
    now = state.DONE if report.ended == state.DONE else marks
    return now, report.detail
  if report.ended == state.CANCELLED:
    return state.CANCELLED, "by the scheduler"
  if marks.startswith("FAILED") and marks != "FAILED (killed)":
    return marks, report.detail
  if not report.known:
    return state.LOST, "the scheduler does not know the job any more"
  if state.checkpoints(job.folder):
    return state.RESUME, report.ended or report.detail
  return f"FAILED ({report.ended or 'killed'})", ""


def rows(plan: Plan, *, metric: str = "") -> list[dict[str, Any]]:
  """Returns a row for each run; None stands for what is unknown.

  Args:
    plan: the sweep.
    metric: metric of the evaluation to show; "" for onset F1, or else the
      first that judges quality.

  Returns:
    `run`, `state`, `detail`, `step`, `total`, `percent`, `loss`,
    `clips_per_second`, `mfu` in percent, `eta` and `checkpoint` (age of the
    newest) in seconds, `best`, `evaluation` (its state), `hosts` (what holds the
    run up), `restarts`, `log`, `job` (the scheduler's id) and `next`.
  """
  found, ids = states(plan), backend_lib.ids(plan)
  jobs = {job.name: job for job in plan.jobs()}
  table = []
  for point in plan.points:
    row = _progress(plan, jobs[point.name], *found[point.name], metric)
    judged = jobs.get(f"{point.name}.eval")
    row["evaluation"] = found[judged.name][0] if judged else None
    row["job"] = ids.get(point.name)
    row["next"] = _next(plan, row, judged)
    table.append(row)
  return table


def _progress(
  plan: Plan, job: Job, now: str, detail: str, metric: str
) -> dict[str, Any]:
  workdir, total = as_path(job.folder), job.point.num_train_steps
  records = _records(workdir / "metrics.jsonl")
  last = next((r for r in reversed(records) if "train/loss" in r), {})
  ages = state.checkpoints(workdir)
  step = last.get("step", max(ages, default=None))
  mfu = last.get("perf/mfu")
  running = now == state.RUNNING
  goodput = _json(workdir / "goodput.json")
  return {
    "run": job.name,
    "state": now,
    "detail": detail,
    "step": step,
    "total": total,
    "percent": round(100 * step / total, 1) if step and total else None,
    "loss": last.get("train/loss"),
    "clips_per_second": last.get("perf/examples_per_sec"),
    "mfu": None if mfu is None else 100 * mfu,
    "eta": last.get("perf/eta_seconds") if running else None,
    "checkpoint": min(ages.values(), default=None),
    "best": _best(plan, job, records, metric),
    "hosts": _hosts(workdir) if running else None,
    "restarts": max(goodput.get("starts", 1) - 1, 0),
    "log": str(_log(plan, job)),
  }


def _records(file) -> list[dict[str, Any]]:
  """Returns the rows of metrics; a torn line is passed over."""
  found = []
  for line in (state.text_of(file) or "").splitlines():
    try:
      found.append(json.loads(line))
    except json.JSONDecodeError:
      continue
  return found


def _json(file) -> dict[str, Any]:
  """Returns an object of a file; {} if it is missing or half written."""
  try:
    return files.read_json(file)
  except (OSError, ValueError):
    return {}


def _best(
  plan: Plan, job: Job, records: Sequence[Mapping], metric: str
) -> dict[str, Any] | None:
  """Returns `name`, `value`, `low`, `high` and `step` of the best result.

  Without results of an evaluation it is the lowest validation loss, without an
  interval.
  """
  best = None
  for file in find(plan.results(job.point), "results.json"):
    results = _json(file)
    about = results.get("metrics", {})
    name = metric or _main_metric(about)
    row = next((r for r in results.get("rows", ()) if r["kind"] == "model"), {})
    entry = row.get("metrics", {}).get(name)
    if not entry or entry.get("value") is None:
      continue
    sign = -1 if about.get(name, {}).get("higher_is_better") is False else 1
    step = results.get("checkpoint", {}).get("step")
    found = {k: entry.get(k) for k in ("value", "low", "high")}
    found |= {"name": name, "step": step}
    if best is None or sign * found["value"] > sign * best["value"]:
      best = found
  if best:
    return best
  name = metric or "eval_mean/loss"
  losses = [(r[name], r["step"]) for r in records if r.get(name) is not None]
  if not losses:
    return None
  value, step = min(losses)
  return dict(name=name, value=value, low=None, high=None, step=step)


def _main_metric(about: Mapping[str, Mapping]) -> str:
  """Returns onset F1 if it was measured, else the first metric of quality."""
  if MAIN_METRIC in about:
    return MAIN_METRIC
  return next((k for k, m in about.items() if m.get("role") == "quality"), "")


def _hosts(workdir) -> str | None:
  """Names processes that are silent, or hold the others up."""
  beats, now = {}, time.time()
  for file in find(workdir / "hosts", "*.json"):
    if file.stem.isdecimal() and (beat := _json(file)):
      beats[int(file.stem)] = beat
  silent = [
    f"process {number} (host {beat['host']}) silent for"
    f" {clock(now - beat['time'])}"
    for number, beat in sorted(beats.items())
    if now - beat["time"] > SILENT_SECONDS
  ]
  lines = [*silent, *slow_hosts(beats).values()]
  return "; ".join(lines) or None


def _log(plan: Plan, job: Job) -> pathlib.Path | str:
  """Returns where the output of a run is to be read."""
  if not is_remote(job.folder):
    return job.folder / "log.txt"
  return job.folder / "hosts" / "0.log"


def _next(plan: Plan, row: Mapping, judged: Job | None) -> str:
  """Says what to do about a run; "" if nothing."""
  now, folder = row["state"], plan.folder
  if now in (state.NEW, state.RESUME):
    return f"v2a sweep launch {folder}"
  if now in (state.CANCELLED, state.LOST):
    return f"v2a sweep resume {folder} {row['run']}"
  if now == state.WONT_FIT:
    return "plan it again with other settings"
  if now.startswith("FAILED"):
    return f"see {row['log']}; then v2a sweep resume {folder} {row['run']}"
  if now == state.DONE and judged:
    if row["evaluation"] == state.DONE:
      return f"see {judged.folder / 'report.html'}"
    if row["evaluation"] not in (state.QUEUED, state.RUNNING):
      return f"v2a sweep launch {folder}"
  return ""


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Formats rows as a table; what holds a run up stands under its line."""
  cells = [list(COLUMNS.values())]
  cells += [[cell(row, key) for key in COLUMNS] for row in rows]
  widths = [max(map(len, column)) for column in zip(*cells)]
  lines = []
  for index, line in enumerate(cells):
    text = [cell.ljust(width) for cell, width in zip(line, widths)]
    lines.append("  ".join(text).rstrip())
    if index:
      lines += [f"    {note}" for note in notes(rows[index - 1])]
  return "\n".join(lines)


def notes(row: Mapping[str, Any]) -> list[str]:
  """Returns what a person should know of a run beside its figures."""
  found = [row["detail"], row["hosts"]]
  if row["evaluation"] and row["state"] == state.DONE:
    found.append(f"evaluation {row['evaluation']}")
  if row["state"] == state.RUNNING:
    found.append(f"log: {row['log']}")
  # Of a new one the whole sweep says what is next.
  if row["state"] != state.NEW:
    found.append(row["next"] and f"next: {row['next']}")
  return [note for note in found if note]


def cell(row: Mapping[str, Any], key: str) -> str:
  """Formats one figure of a row."""
  value = row[key]
  if key == "step":
    return f"{'-' if value is None else value}/{row['total'] or '-'}"
  if key == "best" and value:
    interval = (
      ""
      if value["low"] is None
      else (f" [{value['low']:.3g}, {value['high']:.3g}]")
    )
    return f"{value['name']} {value['value']:.3g}{interval}"
  if value is None:
    return "-"
  if key in ("eta", "checkpoint"):
    return clock(value)
  if key in ("percent", "clips_per_second", "mfu"):
    return f"{value:.1f}"
  return f"{value:.4g}" if key == "loss" else str(value)


def summary(plan: Plan, rows: Sequence[Mapping[str, Any]]) -> str:
  """Counts the runs by state, and says where the report is."""
  counts: dict[str, int] = {}
  for row in rows:
    counts[row["state"]] = counts.get(row["state"], 0) + 1
  text = ", ".join(f"{n} {name}" for name, n in counts.items())
  if state.NEW in counts and not {state.RUNNING, state.QUEUED} & {*counts}:
    text += f"; next: v2a sweep launch {plan.folder}"
  report = next((j for j in plan.jobs() if j.stage == "report"), None)
  if report and state.state(report.folder) == state.DONE:
    text += f"; report {plan.page()}"
  return text
