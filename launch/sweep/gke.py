"""Runs the jobs of a sweep on GKE: a JobSet a run, queued by Kueue.

https://jobset.sigs.k8s.io, https://kueue.sigs.k8s.io. Workdirs and results are on
an object store, because nothing of a pod stays. An evaluation is a second part of
the JobSet, which starts on one host when the training has ended well. The report
on all runs is made on the machine that launches, once all are judged.
"""

from collections.abc import Mapping, Sequence
import json
import math
import re
import shlex
import subprocess
from typing import Any

from launch.parsing import UsageError
from launch.sweep import backend, code, state
from launch.sweep.backend import Option, Report, ask, remember
from launch.sweep.plan import REPORT, Job, Plan, tracking
from launch.sweep.points import Point
from launch.sweep.tpus import (
  MACHINES,
  accelerator_type,
  check,
  name_of,
  slice_of,
  training,
)

OPTIONS = {
  "image": Option("the image of launch/templates/Dockerfile"),
  "workdirs": Option("gs:// folder for the workdirs of all sweeps"),
  "queue": Option("Kueue's LocalQueue"),
  "service_account": Option("Kubernetes account that may use the bucket"),
  "namespace": Option("namespace of the JobSets", "default"),
  "cpu": Option("cores that a host is asked for", "24"),
  "memory": Option("memory that a host is asked for", "100Gi"),
  "cache": Option("disk of a host for copies of the data", "200Gi"),
  "max_restarts": Option("times that a run is restarted", "100", whole=True),
  "cluster": Option("cluster in the command lines for xpk", "CLUSTER"),
}
TRAIN = "python -m launch.train --distributed"
SCHEDULER = "Kubernetes"
SAVE_SECONDS = 300  # Between SIGTERM and the end: a last checkpoint.
ONE_HOST = {"v4": "2x2x1", "v5e": "2x2", "v5p": "2x2x1", "v6e": "2x2"}
QUEUE = "kueue.x-k8s.io/queue-name"
EXCLUSIVE = "alpha.jobset.sigs.k8s.io/exclusive-topology"
XPK = """\
#!/usr/bin/env bash
# {plan}: the same trainings as command lines of xpk, which makes its own JobSets;
# evaluations are not in them.
{lines}
"""


def job_files(plan: Plan) -> dict[str, str]:
  """Returns a JobSet for each run as YAML, and xpk's command lines.

  Raises:
    UsageError: it is not planned for a TPU slice, or a config file is outside
      the repository, which is all that the image holds.
  """
  check(plan)
  if plan.variants and len(plan.variants) > 1:
    raise UsageError(
      "--backend=gke judges a run once: leave --variants out, and call v2a eval"
    )
  texts = {
    f"{point.name}.yaml": _yaml(jobset(plan, point)) for point in plan.points
  }
  return texts | {"xpk.sh": _xpk(plan)}


def jobset(plan: Plan, point: Point) -> dict[str, Any]:
  """Returns the JobSet of a run."""
  options = plan.options
  chip, shape = slice_of(plan)
  jobs = [job for job in plan.jobs() if job.point == point]
  parts = [_part(plan, jobs[0], chip, shape, plan.num_slices)]
  if plan.evaluate:
    judge = _part(plan, jobs[1], chip, ONE_HOST[chip], 1)
    judge["dependsOn"] = [{"name": parts[0]["name"], "status": "Complete"}]
    parts.append(judge)
  return {
    "apiVersion": "jobset.x-k8s.io/v1alpha2",
    "kind": "JobSet",
    "metadata": {
      "name": name_of(plan, point),
      "namespace": options["namespace"],
      "labels": {QUEUE: options["queue"]},
      "annotations": {
        EXCLUSIVE: "cloud.google.com/gke-nodepool",
        "v2a/run": point.name,
        "v2a/code": code.describe(plan.code),
      },
    },
    "spec": {
      "failurePolicy": {
        # A lost host or a preemption starts again, from the newest checkpoint;
        # an error that would be the same again (1, 2) ends the run.
        "maxRestarts": int(options["max_restarts"]),
        "rules": [
          {
            "name": "failFast",
            "action": "FailJobSet",
            "onJobFailureReasons": ["PodFailurePolicy"],
          }
        ],
      },
      "replicatedJobs": parts,
    },
  }


def _part(
  plan: Plan, job: Job, chip: str, shape: str, slices: int
) -> dict[str, Any]:
  """Returns one replicated job: a host is a pod."""
  options = plan.options
  machine = MACHINES[chip]
  per_host = machine.chips_per_host
  chips = math.prod(map(int, shape.split("x")))
  hosts = max(chips // per_host, 1)
  tpus = {"google.com/tpu": min(chips, per_host)}
  environment = _environment(plan, job)
  container = {
    "name": job.stage,
    "image": options["image"],
    "command": ["bash", "-c", _command(plan, job)],
    "env": [{"name": k, "value": v} for k, v in environment.items()],
    "resources": {
      "requests": {"cpu": options["cpu"], "memory": options["memory"], **tpus},
      "limits": tpus,
    },
    "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
  }
  pod = {
    "restartPolicy": "Never",
    "terminationGracePeriodSeconds": SAVE_SECONDS,
    "serviceAccountName": options["service_account"],
    "nodeSelector": {
      "cloud.google.com/gke-tpu-accelerator": machine.node_label,
      "cloud.google.com/gke-tpu-topology": shape,
    },
    "containers": [container],
    "volumes": [{"name": "cache", "emptyDir": {"sizeLimit": options["cache"]}}],
  }
  rule = {
    "action": "FailJob",
    "onExitCodes": {
      "containerName": job.stage,
      "operator": "In",
      "values": [1, 2],
    },
  }
  return {
    "name": job.stage,
    "replicas": slices,
    "template": {
      "spec": {
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [rule]},
        "parallelism": hosts,
        "completions": hosts,
        "template": {"spec": pod},
      }
    },
  }


def _environment(plan: Plan, job: Job) -> dict[str, str]:
  return {
    **tracking(plan, job),
    "WANDB_MODE": "offline",
    "V2A_CACHE": "/cache",
  }


def _command(plan: Plan, job: Job) -> str:
  """Returns what a pod runs, with the config as the image has it.

  Raises:
    UsageError: the config file is not in the repository.
  """
  if job.stage == "train":
    return training(plan, job)
  (flags,) = plan.variants.values() or [[]]
  out = str(job.folder)
  words = [str(plan.workdir(job.point)), f"--set={plan.evaluate}"]
  words += [*plan.eval_flags, *flags, f"--output={out}"]
  page = shlex.join([out, f"--output={out}/report.html"])
  return f"v2a eval {shlex.join(words)} &&\nexec v2a report {page}"


def _yaml(value: dict[str, Any]) -> str:
  """Writes an object as YAML; keys and texts are quoted as in JSON."""
  return "\n".join(_lines(value)) + "\n"


def _lines(value: Any) -> list[str]:
  if isinstance(value, dict) and value:
    lines = []
    for key, item in value.items():
      name = key if re.fullmatch(r"[A-Za-z]\w*", key) else json.dumps(key)
      if isinstance(item, dict | list) and item:
        lines += [f"{name}:", *(f"  {line}" for line in _lines(item))]
      else:
        lines.append(f"{name}: {json.dumps(item)}")
    return lines
  if isinstance(value, list) and value and not isinstance(value[0], str):
    lines = []
    for item in value:
      first, *rest = _lines(item)
      lines += [f"- {first}", *(f"  {line}" for line in rest)]
    return lines
  return [json.dumps(value)]


def _xpk(plan: Plan) -> str:
  """Returns a command line of xpk for the training of each run."""
  chip, shape = slice_of(plan)
  trains = [job for job in plan.jobs() if job.stage == "train"]
  lines = []
  for job in trains:
    words = [
      f"--cluster={plan.options['cluster']}",
      f"--workload={name_of(plan, job.point)}",
      f"--tpu-type={accelerator_type(chip, shape)}",
      f"--num-slices={plan.num_slices}",
      f"--docker-image={plan.options['image']}",
      f"--max-restarts={plan.options['max_restarts']}",
      f"--termination-grace-period-seconds={SAVE_SECONDS}",
      *(f"--env={k}={v}" for k, v in _environment(plan, job).items()),
      f"--command={_command(plan, job)}",
    ]
    lines.append(
      " \\\n  ".join(["xpk workload create", *map(shlex.quote, words)])
    )
  return XPK.format(plan=plan.name, lines="\n".join(lines))


def submit(plan: Plan, jobs: Sequence[Job]) -> dict[str, str]:
  """Applies the JobSets of runs; one that is there is taken away first.

  A training that is done ends at once when its run is only to be judged. Where
  nothing is to be applied any more, the report on all runs is made, here.
  """
  ids: dict[str, str] = {}
  space = f"--namespace={plan.options['namespace']}"
  for point in {j.point.name: j.point for j in jobs if j.point}.values():
    name = name_of(plan, point)
    words = ["delete", "jobset", name, space, "--ignore-not-found"]
    ask("kubectl", *words, scheduler=SCHEDULER)
    file = str(plan.folder / f"{point.name}.yaml")
    ask("kubectl", "apply", "-f", file, scheduler=SCHEDULER)
    new = {job.name: name for job in plan.jobs() if job.point == point}
    remember(plan, new)
    ids |= new
  if not ids and any(job.stage == REPORT for job in jobs):
    _compare(plan)
  return ids


def _compare(plan: Plan) -> None:
  """Runs the script of the report if every run is judged.

  Raises:
    SchedulerError: it fails.
  """
  reports = query(plan, backend.ids(plan))
  judged = [job.name for job in plan.jobs() if job.stage == "evaluate"]
  done = [name for name in judged if _is_done(reports.get(name))]
  if len(done) < len(judged):
    print(f"{REPORT}: {len(done)} of {len(judged)} runs are judged")
    return
  if subprocess.run(["bash", plan.folder / f"{REPORT}.sh"]).returncode:
    raise backend.SchedulerError(
      f"the report failed: see {plan.folder / REPORT / 'log.txt'}"
    )


def _is_done(report: Report | None) -> bool:
  return report is not None and report.ended == state.DONE


def query(plan: Plan, ids: Mapping[str, str]) -> dict[str, Report]:
  """Asks for the JobSets of the namespace."""
  space = f"--namespace={plan.options['namespace']}"
  text = ask(
    *("kubectl", "get", "jobsets", space, "-o", "json"), scheduler=SCHEDULER
  )
  found = {item["metadata"]["name"]: item for item in json.loads(text)["items"]}
  stages = {job.name: job.stage for job in plan.jobs()}
  return {
    name: report_of(found.get(id_), stages[name]) for name, id_ in ids.items()
  }


def report_of(item: Mapping[str, Any] | None, stage: str) -> Report:
  """Reads the state of one stage off a JobSet as `kubectl get` returns it."""
  if item is None:
    return Report(known=False)
  status = item.get("status", {})
  on = {
    condition["type"]: condition.get("reason", "")
    for condition in status.get("conditions", ())
    if condition.get("status") == "True"
  }
  parts = {
    part["name"]: part for part in status.get("replicatedJobsStatus", ())
  }
  asked = {
    part["name"]: part["replicas"] for part in item["spec"]["replicatedJobs"]
  }
  done = {
    name: "Completed" in on
    or parts.get(name, {}).get("succeeded", 0) >= replicas
    for name, replicas in asked.items()
  }
  if done[stage]:
    return Report(ended=state.DONE)
  if "Failed" in on:
    # What waited for the part that failed was never started.
    never = stage == "evaluate" and not done["train"]
    return Report(ended=state.CANCELLED if never else f"failed: {on['Failed']}")
  if item["spec"].get("suspend") or "Suspended" in on:
    return Report(state.QUEUED, "queued by Kueue")
  if not parts.get(stage, {}).get("active", 0):
    waits = stage == "evaluate" and not done["train"]
    return Report(
      state.QUEUED, f"waiting for {'the training' if waits else 'machines'}"
    )
  return Report(state.RUNNING, f"{status.get('restarts', 0)} restarts")


def cancel(plan: Plan, ids: Mapping[str, str]) -> None:
  """Deletes JobSets; their pods get SIGTERM, and `SAVE_SECONDS` to save."""
  space = f"--namespace={plan.options['namespace']}"
  names = dict.fromkeys(ids.values())
  words = ("delete", "jobset", *names, space, "--ignore-not-found")
  ask("kubectl", *words, scheduler=SCHEDULER)
