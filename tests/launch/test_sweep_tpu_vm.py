"""Sweeps on TPU VMs: scripts, and a queue of slices from start to loss."""

import json
import os
import shlex
import subprocess
import sys

import pytest

from launch import config as config_lib
from launch import parsing, train
from launch.sweep import backend, plan, tpus
from tests.launch.commands import refused, succeeds

OPTIONS = (
  *("--backend=tpu_vm", "--option=zone=us-west4-a"),
  *(
    "--option=image=us-docker.pkg.dev/team/v2a:1",
    "--option=workdirs=gs://b/r",
  ),
  "--option=service_account=trainer@team.iam",
)
# Keeps queued resources in a file; what is asked of hosts is noted only.
GCLOUD = """#!{python}
import json, os, pathlib, sys
folder = pathlib.Path(__file__).parent
queue = folder / "queue.json"
there = json.loads(queue.read_text()) if queue.exists() else {{}}
with (folder / "log").open("a") as log:
  log.write(" ".join(sys.argv[1:]) + "\\n")
assert sys.argv[1:4] == ["compute", "tpus", "queued-resources"]
verb, name = sys.argv[4:6]
if verb == "list":
  print(json.dumps(list(there.values())))
elif verb == "create":
  if name in there:
    sys.exit(f"ERROR: (gcloud) ALREADY_EXISTS: {{name}}\\nmore")
  (start,) = [a for a in sys.argv if a.startswith("--metadata-from-file")]
  assert pathlib.Path(start.partition("^;^startup-script=")[2]).exists()
  path = f"projects/team/locations/us-west4-a/queuedResources/{{name}}"
  state = {{"state": "WAITING_FOR_RESOURCES", "stateInitiator": "USER"}}
  there[name] = {{"name": path, "state": state}}
elif verb == "delete":
  del there[name]
queue.write_text(json.dumps(there))
"""


def make(capsys, folder, *args):
  """Plans a sweep of three runs."""
  words = ["sweep", "plan", "--quick", "--config=configs/diffusion_tiny.py"]
  succeeds(capsys, *words, "--sweep=depth", *OPTIONS, *args, "-o", folder)
  return plan.read(folder)


class Queue:
  """The stand-in for gcloud, first in the path."""

  def __init__(self, folder):
    self.folder = folder
    (folder / "gcloud").write_text(GCLOUD.format(python=sys.executable))
    (folder / "gcloud").chmod(0o755)

  def turns(self, name, **state):
    """Brings a queued resource into another state."""
    file = self.folder / "queue.json"
    there = json.loads(file.read_text())
    there[name]["state"] = state
    file.write_text(json.dumps(there))

  def names(self):
    return set(json.loads((self.folder / "queue.json").read_text()))

  def asked(self):
    """Returns verbs and names since the last call, without the lists."""
    file = self.folder / "log"
    lines = [line.split()[3:] for line in file.read_text().splitlines()]
    file.unlink()
    return [(line[0], line[1]) for line in lines if line[0] != "list"]


@pytest.fixture
def queue(tmp_path, monkeypatch):
  folder = tmp_path / "bin"
  folder.mkdir()
  monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
  return Queue(folder)


@pytest.fixture
def planned(object_stores, tmp_path, capsys, queue):
  url = f"{object_stores.gs}/{tmp_path.name}"
  return make(
    *(capsys, tmp_path / "sweep", "--topology=v5e:4x4"),
    f"--option=workdirs={url}",
  )


def states(capsys, planned):
  text = succeeds(capsys, "sweep", "status", planned.folder, "--json")
  return {row["run"]: (row["state"], row["detail"]) for row in json.loads(text)}


def test_every_host_trains_the_planned_config_in_the_image(planned):
  for job in planned.jobs():
    start = planned.folder / f"{job.name}.start.sh"
    for file in (start, planned.folder / f"{job.name}.tpu.sh"):
      subprocess.run(["bash", "-n", file], check=True)
    (line,) = [s for s in start.read_text().splitlines() if "bash -c" in s]
    words = shlex.split(shlex.split(line)[2])
    assert words[:5] == "exec python -m launch.train --distributed".split()
    args = parsing.Parser("x", "x", train.ARGUMENTS, "x").parse(words[5:])
    resolved = config_lib.parse(args.config, args.overrides)
    assert config_lib.fingerprint(resolved) == args.config_hash
    assert args.workdir == str(job.folder)


@pytest.mark.parametrize(
  "topology,slices,words",
  [
    ("v5e:4x4", 1, "--accelerator-type=v5litepod-16 --node-id=NAME"),
    ("v5p:2x2x4", 1, "--type=v5p --topology=2x2x4 --node-id=NAME"),
    (
      "v6e:4x4",
      2,
      "--accelerator-type=v6e-16 --node-count=2 --node-prefix=NAME",
    ),
  ],
)
def test_the_slices_that_are_asked_for(
  topology, slices, words, tmp_path, capsys, queue
):
  flags = "--option=create_flags=--spot --network=lab"
  made = make(
    *(capsys, tmp_path / "sweep", f"--topology={topology}", flags),
    f"--num_slices={slices}",
  )
  job = made.jobs()[0]
  script = made.folder / f"{job.name}.tpu.sh"
  subprocess.run(["bash", script, "create"], check=True)
  name = tpus.name_of(made, job.point)
  given = set((queue.folder / "log").read_text().split())
  assert {w.replace("NAME", name) for w in words.split()} <= given
  assert {"--spot", "--network=lab", "--zone=us-west4-a"} <= given
  assert len(name) < 50 and name.endswith(job.point.fingerprint)


def test_a_sweep_waits_runs_is_lost_and_taken_up_again(planned, queue, capsys):
  first, second, third = planned.jobs()
  names = [tpus.name_of(planned, job.point) for job in planned.jobs()]
  shown = succeeds(capsys, "sweep", "launch", planned.folder)
  assert shown.count("submitted as v2a-sweep-") == 3
  assert queue.names() == set(names)
  queue.asked()
  assert states(capsys, planned)[first.name] == (
    *("QUEUED", "waiting for resources"),
  )
  # One is done and gone, one is preempted, one failed and keeps its slices.
  for name in names:
    queue.turns(name, state="ACTIVE")
  assert {now for now, _ in states(capsys, planned).values()} == {"RUNNING"}
  (first.folder / "exit_code").write_text("0")
  subprocess.run([queue.folder / "gcloud", *DELETE, names[0]], check=True)
  queue.turns(names[1], state="SUSPENDED", stateInitiator="SERVICE")
  (third.folder / "exit_code").write_text("1")
  found = states(capsys, planned)
  assert found[first.name] == ("DONE", "")
  assert found[second.name] == ("FAILED (suspended: by the service)", "")
  assert found[third.name][0] == "FAILED (1)"
  assert "its TPUs are still held; bash " in found[third.name][1]
  queue.asked()
  succeeds(capsys, "sweep", "resume", planned.folder)
  assert queue.asked() == [
    ("delete", names[1]),
    ("create", names[1]),
    ("scp", str(planned.folder.resolve() / f"{third.name}.start.sh")),
    ("ssh", names[2]),
  ]
  found = states(capsys, planned)
  assert [found[job.name][0] for job in (first, second, third)] == [
    *("DONE", "QUEUED", "RUNNING"),
  ]
  # What runs may save before it is deleted; what waits is only deleted.
  queue.asked()
  succeeds(capsys, "sweep", "cancel", planned.folder)
  assert queue.asked() == [
    *(("delete", names[1]), ("ssh", names[2]), ("delete", names[2])),
  ]
  found = states(capsys, planned)
  assert found[second.name][0] == found[third.name][0] == "CANCELLED"
  succeeds(capsys, "sweep", "resume", planned.folder, second.name)
  assert queue.names() == {names[1]}


DELETE = ("compute", "tpus", "queued-resources", "delete")


def test_a_forgotten_resource_is_lost(planned, queue, capsys):
  succeeds(capsys, "sweep", "launch", planned.folder)
  (queue.folder / "queue.json").write_text("{}")
  found = states(capsys, planned)
  assert {now for now, _ in found.values()} == {"LOST"}
  assert len(backend.ids(planned)) == 3


def test_a_client_that_refuses_or_is_not_here_is_one_line(
  planned, queue, capsys, monkeypatch
):
  taken = tpus.name_of(planned, planned.points[0])
  other = {"name": f"x/{taken}", "state": {"state": "DELETING"}}
  (queue.folder / "queue.json").write_text(json.dumps({taken: other}))
  line = refused(capsys, "sweep", "launch", planned.folder)
  assert "still being deleted: try again" in line
  (queue.folder / "gcloud").write_text("#!/bin/sh\necho 'no quota' >&2; exit 1")
  line = refused(capsys, "sweep", "launch", planned.folder)
  assert "Google Cloud refuses: no quota" in line
  monkeypatch.setenv("PATH", "/nowhere")
  line = refused(capsys, "sweep", "launch", planned.folder)
  assert "no gcloud here, the client of Google Cloud" in line


def host(planned, tmp_path, codes):
  """Runs the start script of a host whose trainings end with `codes`."""
  folder = tmp_path / "host"
  folder.mkdir()
  (folder / "codes").write_text("\n".join(map(str, codes)) + "\n")
  programs = {
    "docker": f'[ "$1" = run ] || exit 0; cd {folder}; code=$(head -n1 codes);'
    ' sed -i 1d codes; exit "$code"',
    "sleep": "",
    "curl": 'case "$*" in *agent-worker-number) echo 0 ;; *) exit 22 ;; esac',
    "gcloud": f'echo "$@" >> {folder}/log;'
    f' [ "$1" != storage ] || cat >> {folder}/log',
  }
  for name, text in programs.items():
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)
  script = planned.folder / f"{planned.jobs()[0].name}.start.sh"
  env = {"PATH": f"{folder}:/usr/bin:/bin"}
  code = subprocess.run(["bash", script], env=env).returncode
  return code, (folder / "log").read_text().splitlines()


@pytest.mark.parametrize("codes,end", [([75, 137, 0], 0), ([75, 2, 0], 2)])
def test_a_host_starts_again_what_may_go_better_and_notes_the_end(
  codes, end, planned, tmp_path
):
  job = planned.jobs()[0]
  code, log = host(planned, tmp_path, codes)
  assert code == end
  login, note, noted, delete = log
  assert login == "auth configure-docker us-docker.pkg.dev --quiet"
  assert note == f"storage cp - {job.folder}/exit_code" and noted == str(end)
  assert f"delete {tpus.name_of(planned, job.point)} " in delete


@pytest.mark.parametrize(
  "args,words",
  [
    (OPTIONS, "--backend=tpu_vm needs --topology"),
    ((*OPTIONS, "--topology=v5e:4x4", "--evaluate=gs://b/d"), "only trains"),
    (
      (*OPTIONS, "--topology=v5e:4x4", "--option=workdirs=/runs"),
      "--option workdirs=/runs: nothing of a host stays",
    ),
    (OPTIONS[:1], "--backend=tpu_vm needs --option zone=…, zone of the TPUs"),
  ],
)
def test_a_plan_that_it_cannot_run_is_refused(args, words, tmp_path, capsys):
  line = refused(
    *(capsys, "sweep", "plan", "--quick", "--config=configs/ar_tiny.py"),
    *("-o", tmp_path / "x", *args),
  )
  assert words in line
