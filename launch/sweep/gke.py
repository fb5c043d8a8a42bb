"""Runs the jobs of a sweep on GKE: a JobSet a run, queued by Kueue.

https://jobset.sigs.k8s.io, https://kueue.sigs.k8s.io. Workdirs are on an object
store, because nothing of a pod stays. An evaluation is a second part of the
JobSet, which starts on one host when the training has ended well.
"""

from collections.abc import Mapping, Sequence
import json
import math
import re
import shlex
from typing import Any

from launch.parsing import UsageError
from launch.sweep import state
from launch.sweep.backend import Option, Report, ask, remember
from launch.sweep.plan import Job, Plan, tracking
from launch.sweep.tpus import (
  MACHINES,
  accelerator_type,
  check,
  job_name,
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
  "max_restarts": Option("times that a run is restarted", "100"),
  "cluster": Option("cluster in the command lines for xpk", "CLUSTER"),
}
TRAIN = "python -m launch.train --distributed"
SCHEDULER = "Kubernetes"
ONE_HOST = {"v4": "2x2x1", "v5e": "2x2", "v5p": "2x2x1", "v6e": "2x2"}
QUEUE = "kueue.x-k8s.io/queue-name"
EXCLUSIVE = "alpha.jobset.sigs.k8s.io/exclusive-topology"
XPK = """\
#!/usr/bin/env bash
# {plan}: the same runs as command lines of xpk, which makes its own JobSets.
# Add --dry-run to see them.
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


def jobset(plan: Plan, point) -> dict[str, Any]:
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
      "name": job_name(point.name),
      "namespace": options["namespace"],
      "labels": {QUEUE: options["queue"]},
      "annotations": {
        EXCLUSIVE: "cloud.google.com/gke-nodepool",
        "v2a/run": point.name,
        "v2a/commit": plan.code["commit"],
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
  environment = {
    **tracking(plan, job),
    "WANDB_MODE": "offline",
    "V2A_CACHE": "/cache",
  }
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
    # Between SIGTERM and the end: a last checkpoint.
    "terminationGracePeriodSeconds": 300,
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


def _command(plan: Plan, job: Job) -> str:
  """Returns what a pod runs, with the config as the image has it.

  Raises:
    UsageError: the config file is not in the repository.
  """
  point = job.point
  if job.stage == "train":
    return training(plan, job)
  (flags,) = plan.variants.values() or [[]]
  out = f"--output={plan.workdir(point)}/eval"
  words = [str(plan.workdir(point)), f"--set={plan.evaluate}"]
  words += [*plan.eval_flags, *flags, out]
  return f"exec v2a eval {shlex.join(words)}"


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
      f"--workload={job_name(job.name)[:39].rstrip('-')}",
      f"--tpu-type={accelerator_type(chip, shape)}",
      f"--num-slices={plan.num_slices}",
      f"--docker-image={plan.options['image']}",
      f"--max-restarts={plan.options['max_restarts']}",
      f"--command={_command(plan, job)}",
    ]
    lines.append(
      " \\\n  ".join(["xpk workload create", *map(shlex.quote, words)])
    )
  return XPK.format(plan=plan.name, lines="\n".join(lines))


def submit(plan: Plan, jobs: Sequence[Job]) -> dict[str, str]:
  """Applies the JobSets of runs; one that is there is taken away first."""
  ids = {}
  for job in (job for job in jobs if job.stage == "train"):
    name = job_name(job.name)
    space = f"--namespace={plan.options['namespace']}"
    words = ["delete", "jobset", name, space, "--ignore-not-found"]
    ask("kubectl", *words, scheduler=SCHEDULER)
    file = str(plan.folder / f"{job.name}.yaml")
    ask("kubectl", "apply", "-f", file, scheduler=SCHEDULER)
    ids[job.name] = name
    remember(plan, ids)
  return ids


def query(plan: Plan, ids: Mapping[str, str]) -> dict[str, Report]:
  """Asks for the JobSets of the namespace."""
  space = f"--namespace={plan.options['namespace']}"
  text = ask(
    *("kubectl", "get", "jobsets", space, "-o", "json"), scheduler=SCHEDULER
  )
  found = {item["metadata"]["name"]: item for item in json.loads(text)["items"]}
  return {name: report_of(found.get(id_)) for name, id_ in ids.items()}


def report_of(item: Mapping[str, Any] | None) -> Report:
  """Reads the state off a JobSet as `kubectl get` returns it."""
  if item is None:
    return Report(known=False)
  status = item.get("status", {})
  on = {
    condition["type"]: condition.get("reason", "")
    for condition in status.get("conditions", ())
    if condition.get("status") == "True"
  }
  if "Completed" in on:
    return Report(ended=state.DONE)
  if "Failed" in on:
    return Report(ended=f"failed: {on['Failed']}")
  if item.get("spec", {}).get("suspend") or "Suspended" in on:
    return Report(state.QUEUED, "queued by Kueue")
  active = sum(
    j.get("active", 0) for j in status.get("replicatedJobsStatus", ())
  )
  if not active:
    return Report(state.QUEUED, "waiting for machines")
  return Report(state.RUNNING, f"{status.get('restarts', 0)} restarts")


def cancel(plan: Plan, ids: Mapping[str, str]) -> None:
  """Deletes JobSets; their pods get SIGTERM, and five minutes to save."""
  space = f"--namespace={plan.options['namespace']}"
  words = ("delete", "jobset", *ids.values(), space, "--ignore-not-found")
  ask("kubectl", *words, scheduler=SCHEDULER)
