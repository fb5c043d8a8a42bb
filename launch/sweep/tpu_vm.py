"""Runs the jobs of a sweep on Cloud TPU VMs: a queued resource a run.

https://cloud.google.com/tpu/docs/queued-resources. A request waits until Google
has the slices; then every host runs `NAME.start.sh` by itself, which trains in
the image and starts again after the loss of a host. At the end host 0 notes the
exit status in the workdir, which is on an object store because nothing of a host
stays, and gives the slices back. `NAME.tpu.sh` has all that is asked of gcloud.
"""

from collections.abc import Mapping, Sequence
import json
import shlex
from typing import Any

from launch.parsing import UsageError
from launch.sweep import state, tpus
from launch.sweep.backend import (
  Option,
  Report,
  SchedulerError,
  ask,
  remember,
)
from launch.sweep.plan import Job, Plan, tracking

OPTIONS = {
  "zone": Option("zone of the TPUs"),
  "image": Option("the image of launch/templates/Dockerfile"),
  "workdirs": Option("gs:// folder for the workdirs of all sweeps"),
  "service_account": Option(
    "account of the hosts, which may read the image, use the bucket and delete"
    " queued resources"
  ),
  "project": Option("project; that of gcloud if empty", ""),
  "runtime": Option("software of the hosts; that of the chip if empty", ""),
  "create_flags": Option(
    "further flags of gcloud … create, such as '--spot' or '--reserved'", ""
  ),
  "max_restarts": Option(
    "times that a run is restarted on its slices", "100", whole=True
  ),
}
TRAIN = "python -m launch.train --distributed"
SCHEDULER = "Google Cloud"
# https://cloud.google.com/tpu/docs/runtimes.
RUNTIMES = {
  "v4": "tpu-ubuntu2204-base",
  "v5e": "v2-alpha-tpuv5-lite",
  "v5p": "v2-alpha-tpuv5",
  "v6e": "v2-alpha-tpuv6e",
}
# States of a queued resource: QueuedResourceState of the Cloud TPU API.
ACTIVE, DELETING = "ACTIVE", "DELETING"
DEAD = ("FAILED", "SUSPENDING", "SUSPENDED")
SAVE_SECONDS = 300
QUEUE = """\
#!/usr/bin/env bash
# {title}: its queued resource. v2a sweep calls it; by hand:
#   bash {file} create|start|log|stop|delete
# https://cloud.google.com/sdk/gcloud/reference/compute/tpus/queued-resources
set -euo pipefail
name={name}
start={start}

queue() {{
  gcloud compute tpus queued-resources "$@" {where} --quiet
}}
everywhere() {{
  queue ssh "$name" --node=all --worker=all --command="$1"
}}

case "${{1:-}}" in
  create)
    # Every host runs the start script when it comes up.
    queue create "$name" \\
{create}
    ;;
  start)
    # Trains again on slices that are there.
    queue scp "$start" "$name":v2a_start.sh --node=all --worker=all
    everywhere "sudo setsid nohup bash v2a_start.sh \\
      > v2a_start.log 2>&1 < /dev/null &"
    ;;
  log)
    queue ssh "$name" --command="sudo docker logs --follow v2a"
    ;;
  stop)
    # SIGTERM on every host: a last checkpoint, then the end.
    everywhere "sudo touch /run/v2a_stop; \\
      sudo docker stop --time={save} v2a || true"
    ;;
  delete)
    queue delete "$name" --force "${{@:2}}"
    ;;
  *)
    echo "usage: bash $0 create|start|log|stop|delete" >&2
    exit 2
    ;;
esac
"""
START = """\
#!/usr/bin/env bash
# {title}. Every host of its slices runs this as root.
set -uo pipefail
export HOME=/root PATH="$PATH:/snap/bin"
rm -f /run/v2a_stop
docker rm --force v2a > /dev/null 2>&1
{login}code=0
for _ in $(seq 0 {restarts}); do
  docker run --rm --name=v2a --privileged --network=host \\
    --volume=/var/cache/v2a:/cache \\
{environment}
    {image} \\
    bash -c {command}
  code=$?
  # 75: a host was lost; 134, 137, 139: killed; 143: SIGTERM, after a save.
  # Any other status would be the same again.
  case $code in
    75 | 134 | 137 | 139 | 143) ;;
    *) break ;;
  esac
  [ ! -e /run/v2a_stop ] || break
  sleep 10
done

# Host 0 notes the end where v2a sweep status looks, and gives the slices back.
attribute() {{
  curl -sf --header "Metadata-Flavor: Google" \\
    "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}}
slice=$(attribute tpu-env | sed -n "s/^MEGASCALE_SLICE_ID: '\\(.*\\)'/\\1/p")
if [ "$(attribute agent-worker-number)" = 0 ] && [ "${{slice:-0}}" = 0 ]; then
  echo "$code" | gcloud storage cp - {mark}
  if [ ! -e /run/v2a_stop ]; then
    gcloud compute tpus queued-resources delete {name} \\
      {where} --force --quiet --async
  fi
fi
exit "$code"
"""


def job_files(plan: Plan) -> dict[str, str]:
  """Returns two scripts for each run: what gcloud is asked, what hosts do.

  Raises:
    UsageError: it is not planned for a TPU slice or a store, is to be evaluated,
      or a config file is outside the repository, which is all that the image
      holds.
  """
  tpus.check(plan)
  if plan.evaluate:
    raise UsageError(
      "--backend=tpu_vm only trains: leave --evaluate out, and call v2a eval"
    )
  texts = {}
  for job in plan.jobs():
    texts[_file(job)] = _queue(plan, job)
    texts[f"{job.name}.start.sh"] = _start(plan, job)
  return texts


def _file(job: Job) -> str:
  return f"{job.name}.tpu.sh"


def _where(plan: Plan) -> str:
  words = [f"--zone={plan.options['zone']}"]
  if plan.options["project"]:
    words.append(f"--project={plan.options['project']}")
  return shlex.join(words)


def _queue(plan: Plan, job: Job) -> str:
  chip, shape = tpus.slice_of(plan)
  name, options = tpus.name_of(plan, job.point), plan.options
  folder = plan.folder.resolve()
  # The type of these counts cores, which does not say which of several shapes.
  by_shape = tpus.MACHINES[chip].count > 1
  words = (
    [f"--type={tpus.MACHINES[chip].type}", f"--topology={shape}"]
    if by_shape
    else [f"--accelerator-type={tpus.accelerator_type(chip, shape)}"]
  )
  words += (
    [f"--node-count={plan.num_slices}", f"--node-prefix={name}"]
    if plan.num_slices > 1
    else [f"--node-id={name}"]
  )
  words += [
    f"--runtime-version={options['runtime'] or RUNTIMES[chip]}",
    f"--service-account={options['service_account']}",
    *shlex.split(options["create_flags"]),
  ]
  # gcloud would split at the commas in names of runs (gcloud topic escaping).
  lines = [
    *map(shlex.quote, words),
    '--metadata-from-file="^;^startup-script=$start"',
  ]
  return QUEUE.format(
    title=job.name,
    file=shlex.quote(str(folder / _file(job))),
    name=name,
    start=shlex.quote(str(folder / f"{job.name}.start.sh")),
    where=_where(plan),
    create=" \\\n".join(f"      {line}" for line in lines),
    save=SAVE_SECONDS,
  )


def _start(plan: Plan, job: Job) -> str:
  environment = {
    **tracking(plan, job),
    "WANDB_MODE": "offline",
    "V2A_CACHE": "/cache",
  }
  image = plan.options["image"]
  registry = image.partition("/")[0]
  login = f"gcloud auth configure-docker {shlex.quote(registry)} --quiet\n"
  return START.format(
    title=job.name,
    login=login if registry.endswith(("pkg.dev", "gcr.io")) else "",
    restarts=plan.options["max_restarts"],
    environment="\n".join(
      f"    --env={shlex.quote(f'{k}={v}')} \\" for k, v in environment.items()
    ),
    image=shlex.quote(image),
    command=shlex.quote(tpus.training(plan, job)),
    mark=shlex.quote(f"{job.folder}/exit_code"),
    name=tpus.name_of(plan, job.point),
    where=_where(plan),
  )


def submit(plan: Plan, jobs: Sequence[Job]) -> dict[str, str]:
  """Asks for slices; one that was lost is deleted first.

  A run that ended badly on slices that it still has starts there again.
  """
  there, ids = _there(plan), {}
  for job in jobs:
    name = tpus.name_of(plan, job.point)
    now = _word(there[name]) if name in there else ""
    if now == DELETING:
      raise SchedulerError(
        f"{name} is still being deleted: try again in some minutes"
      )
    if now in ("", ACTIVE, *DEAD):
      (job.folder / "exit_code").unlink(missing_ok=True)
    if now == ACTIVE:
      _do(plan, job, "start")
    elif now in DEAD:
      _do(plan, job, "delete")
    if not now or now in DEAD:
      _do(plan, job, "create")
    ids[job.name] = name
    remember(plan, ids)
  return ids


def _do(plan: Plan, job: Job, *words: str) -> None:
  file = str(plan.folder / _file(job))
  ask("bash", file, *words, scheduler=SCHEDULER, seconds=900)


def _there(plan: Plan) -> dict[str, Any]:
  """Returns the queued resources of the zone, by name."""
  words = ("list", *shlex.split(_where(plan)), "--format=json")
  text = ask(
    *("gcloud", "compute", "tpus", "queued-resources", *words),
    scheduler=SCHEDULER,
  )
  return {item["name"].rpartition("/")[2]: item for item in json.loads(text)}


def query(plan: Plan, ids: Mapping[str, str]) -> dict[str, Report]:
  """Asks for the queued resources, and reads how trainings ended."""
  there = _there(plan)
  jobs = {job.name: job for job in plan.jobs()}
  return {
    name: report_of(
      there.get(id_),
      ended=state.exit_code(jobs[name].folder) is not None,
      free=f"bash {plan.folder / _file(jobs[name])} delete",
    )
    for name, id_ in ids.items()
  }


def report_of(
  item: Mapping[str, Any] | None, *, ended: bool, free: str = ""
) -> Report:
  """Reads the state off a queued resource as gcloud lists it.

  Args:
    item: the queued resource; None if it is not there.
    ended: whether the training has noted how it ended.
    free: command that gives the slices back.
  """
  if item is None:
    return Report(known=ended)
  word, about = _word(item), item["state"]
  if word == ACTIVE:
    if ended:
      return Report(detail=f"its TPUs are still held; {free}")
    return Report(state.RUNNING, "")
  if word in DEAD:
    error = about.get("failedData", {}).get("error", {}).get("message", "")
    cause = error or f"by the {about.get('stateInitiator', 'SERVICE').lower()}"
    return Report(ended=f"{word.lower()}: {cause}")
  if word == DELETING:
    return Report(ended="deleted")
  return Report(state.QUEUED, word.lower().replace("_", " "))


def _word(item: Mapping[str, Any]) -> str:
  return item["state"]["state"]


def cancel(plan: Plan, ids: Mapping[str, str]) -> None:
  """Lets trainings save, and deletes their queued resources."""
  there = _there(plan)
  for job in plan.jobs():
    now = _word(there[name]) if (name := ids.get(job.name)) in there else ""
    if now == ACTIVE:
      _do(plan, job, "stop")
    if now not in ("", DELETING):
      _do(plan, job, "delete", "--async")
