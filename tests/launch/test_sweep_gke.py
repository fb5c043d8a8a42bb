"""Sweeps on GKE: the JobSets, xpk's command lines, and what kubectl says."""

import dataclasses
import json
import os
import pathlib
import re
import shlex
import subprocess
import time

import pytest
import yaml

from launch import cli, parsing, train
from launch import config as config_lib
from launch.sweep import backend, gke, plan, status, tpus
from tests.evaluation.report_results import write_results
from tests.launch.commands import refused, succeeds
from v2a_jax.basics import claim
from v2a_jax.training.digests import DIGESTS

OPTIONS = (
  *("--backend=gke", "--option=image=registry/v2a:1", "--option=queue=team"),
  "--option=service_account=trainer",
)
STORE = "--option=workdirs=gs://bucket/runs"
CRDS = "V2A_CRDS"


@pytest.fixture
def planned(gs_url, tmp_path, capsys):
  return make(capsys, tmp_path / "sweep", gs_url)


def make(capsys, folder, bucket):
  """Plans three runs whose workdirs are in a bucket."""
  words = ["sweep", "plan", "--quick", "--config=configs/diffusion_tiny.py"]
  words += ["--sweep=depth", *OPTIONS, f"--option=workdirs={bucket}/runs"]
  words += ["--topology=v5e:4x4", "--num_slices=2"]
  succeeds(capsys, *words, f"--evaluate={bucket}/scenes", "-o", folder)
  return plan.read(folder)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
  """A kubectl that notes what it is given and lists the JobSets of a file."""
  folder = tmp_path / "cluster"
  folder.mkdir()
  (folder / "items.json").write_text('{"items": []}')
  (folder / "kubectl").write_text(
    f'#!/bin/sh\necho "$@" >> {folder}/log\n'
    f"[ $1 = get ] && cat {folder}/items.json\nexit 0\n"
  )
  (folder / "kubectl").chmod(0o755)
  monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
  return folder


def show(cluster, planned, **status):
  """Lets the cluster list the JobSet of every run, with a status."""
  items = [item | {"status": status} for item in manifests(planned)]
  (cluster / "items.json").write_text(json.dumps({"items": items}))


def manifests(planned):
  return [
    yaml.safe_load((planned.folder / f"{point.name}.yaml").read_text())
    for point in planned.points
  ]


def test_a_run_is_a_jobset_in_a_queue_that_fails_fast(planned):
  sets = manifests(planned)
  assert len({item["metadata"]["name"] for item in sets}) == 3
  for item, point in zip(sets, planned.points):
    meta = item["metadata"]
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", meta["name"])
    assert meta["name"].endswith(point.fingerprint)
    assert meta["labels"] == {"kueue.x-k8s.io/queue-name": "team"}
    (key,) = (k for k in meta["annotations"] if "exclusive-topology" in k)
    assert meta["annotations"][key] == "cloud.google.com/gke-nodepool"
    (rule,) = item["spec"]["failurePolicy"]["rules"]
    assert rule["action"] == "FailJobSet"
    first, judge = item["spec"]["replicatedJobs"]
    assert judge["dependsOn"] == [{"name": "train", "status": "Complete"}]
    assert (first["replicas"], judge["replicas"]) == (2, 1)
    for part, chips in ((first, 16), (judge, 4)):
      job = part["template"]["spec"]
      (rule,) = job["podFailurePolicy"]["rules"]
      assert rule["onExitCodes"]["values"] == [1, 2]
      pod = job["template"]["spec"]
      assert pod["serviceAccountName"] == "trainer"
      (container,) = pod["containers"]
      assert rule["onExitCodes"]["containerName"] == container["name"]
      requests = container["resources"]["requests"]
      assert set(requests) == {"cpu", "memory", "google.com/tpu"}
      assert job["parallelism"] == job["completions"]
      assert requests["google.com/tpu"] * job["parallelism"] == chips
      (mount,), (volume,) = container["volumeMounts"], pod["volumes"]
      assert mount["name"] == volume["name"]
      env = {entry["name"]: entry["value"] for entry in container["env"]}
      assert env["V2A_CACHE"] == mount["mountPath"]


def test_one_config_has_one_digest_in_the_image(planned):
  """The pod resolves the same config from the path that the image has."""
  for item, point in zip(manifests(planned), planned.points):
    first = item["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
    (command,) = first["spec"]["containers"][0]["command"][2:]
    words = shlex.split(command)
    assert words[:5] == [
      *("exec", "python", "-m", "launch.train", "--distributed")
    ]
    args = parsing.Parser("x", "x", train.ARGUMENTS, "x").parse(words[5:])
    assert args.config == "configs/diffusion_tiny.py"
    resolved = config_lib.parse(args.config, args.overrides)
    assert config_lib.fingerprint(resolved) == args.config_hash
    assert args.config_hash == point.fingerprint
    assert args.workdir == str(planned.workdir(point))


def test_xpk_gets_the_same_command(planned):
  file = planned.folder / "xpk.sh"
  subprocess.run(["bash", "-n", file], check=True)
  text = file.read_text()
  assert text.count("xpk workload create") == 3
  assert "--tpu-type=v5litepod-16 " in text and "--num-slices=2 " in text
  for point in planned.points:
    assert f"--config_hash={point.fingerprint}" in text


@pytest.mark.parametrize(
  "status,spec,expected",
  [
    ({"conditions": [{"type": "Completed", "status": "True"}]}, {}, "DONE"),
    ({}, {"suspend": True}, "QUEUED"),
    ({"replicatedJobsStatus": [{"name": "train", "active": 2}]}, {}, "RUNNING"),
    ({}, {}, "QUEUED"),
    (
      {"conditions": [{"type": "Failed", "status": "True", "reason": "Why"}]},
      {},
      "failed: Why",
    ),
  ],
)
def test_the_state_of_a_jobset(status, spec, expected):
  parts = {"replicatedJobs": [{"name": "train", "replicas": 2}]}
  found = gke.report_of({"status": status, "spec": spec | parts}, "train")
  assert (found.state or found.ended) == expected
  assert not gke.report_of(None, "train").known


def test_kubectl_is_asked_and_told(planned, cluster, capsys):
  first, second, _ = planned.points
  shown = succeeds(capsys, "sweep", "launch", planned.folder)
  assert shown.count("submitted as v2a-") == 6  # Trainings and evaluations.
  log = cluster / "log"
  assert log.read_text().count("apply -f ") == 3
  waiting = manifests(planned)[0]
  waiting["spec"]["suspend"] = True
  (cluster / "items.json").write_text(json.dumps({"items": [waiting]}))
  ids = backend.ids(planned)
  reports = gke.query(planned, ids)
  assert reports[first.name].state == "QUEUED"
  assert not reports[second.name].known
  gke.cancel(planned, ids)
  last = log.read_text().splitlines()[-1]
  assert last.startswith(f"delete jobset {ids[first.name]} ")
  assert len(set(last.split())) == len(last.split())


def test_sweeps_with_the_same_runs_leave_each_other_alone(planned):
  twin = dataclasses.replace(planned, folder=planned.folder.parent / "twin")
  names = {tpus.name_of(each, each.points[0]) for each in (planned, twin)}
  assert len(names) == 2


def test_a_run_is_followed_to_its_judgement_and_the_report(
  gs_url, cluster, tmp_path, capsys
):
  """With a store that holds what the pods of a run would have written."""
  planned = make(capsys, tmp_path / "sweep", gs_url)
  for point in planned.points:
    workdir = planned.workdir(point)
    beat = {"host": "pod-1", "step": 7, "time": time.time() - 400}
    (workdir / "hosts" / "1.json").write_text(json.dumps(beat))
    (workdir / "checkpoints" / "7" / DIGESTS).write_text("{}")
  succeeds(capsys, "sweep", "launch", planned.folder)
  show(
    *(cluster, planned),
    replicatedJobsStatus=[{"name": "train", "active": 2}],
  )
  time.sleep(1.1)
  row = status.rows(planned)[0]
  assert (row["state"], row["evaluation"]) == ("RUNNING", "QUEUED")
  assert "process 1 (host pod-1) silent for 6:4" in row["hosts"]
  assert 1 < row["checkpoint"] < 60
  assert succeeds(capsys, "sweep", "launch", planned.folder).count("skipped")
  show(
    *(cluster, planned),
    replicatedJobsStatus=[
      {"name": "train", "succeeded": 2},
      {"name": "evaluate", "active": 1},
    ],
  )
  row = status.rows(planned)[0]
  assert (row["state"], row["evaluation"]) == ("DONE", "RUNNING")
  shown = succeeds(capsys, "sweep", "launch", planned.folder)
  assert "report: 0 of 3 runs are judged" in shown
  for point in planned.points:
    results = write_results(tmp_path / point.name, point.name)
    out = planned.results(point) / "results.json"
    out.write_bytes(results.read_bytes())
  done = [{"type": "Completed", "status": "True"}]
  show(cluster, planned, conditions=done)
  row = status.rows(planned, metric="onset_f1_50")[0]
  assert (row["state"], row["evaluation"]) == ("DONE", "DONE")
  assert row["best"]["name"] == "onset_f1_50"
  assert row["next"] == f"see {planned.results(planned.points[0])}/report.html"
  script = planned.folder / "report.sh"
  own = script.read_text()
  script.write_text("exit 3")
  capsys.readouterr()
  assert cli.main(["sweep", "launch", str(planned.folder)]) == 2
  assert "the report failed" in capsys.readouterr().err
  script.write_text(own)
  applied = (cluster / "log").read_text().count("apply -f ")
  succeeds(capsys, "sweep", "launch", planned.folder)
  assert (cluster / "log").read_text().count("apply -f ") == applied == 3
  page = planned.page().read_text()
  assert all(point.name in page for point in planned.points)
  assert str(planned.page()) in succeeds(
    capsys, "sweep", "status", planned.folder
  )


def test_a_second_launcher_submits_nothing(planned, cluster, capsys):
  with claim.held(planned.folder):
    for verb in ("launch", "resume"):
      line = refused(capsys, "sweep", verb, planned.folder)
      assert "v2a sweep launch runs already" in line
  assert not (cluster / "log").exists()


def test_what_was_not_judged_is_applied_again(
  gs_url, cluster, tmp_path, capsys
):
  planned = make(capsys, tmp_path / "sweep", gs_url)
  succeeds(capsys, "sweep", "launch", planned.folder)
  failed = [{"type": "Failed", "status": "True", "reason": "FailJobSet"}]
  show(
    *(cluster, planned),
    conditions=failed,
    replicatedJobsStatus=[{"name": "train", "succeeded": 2}],
  )
  row = status.rows(planned)[0]
  assert row["state"] == "DONE" and row["evaluation"].startswith("FAILED")
  succeeds(capsys, "sweep", "resume", planned.folder)
  assert (cluster / "log").read_text().count("apply -f ") == 6


@pytest.mark.parametrize(
  "args,words",
  [
    ((*OPTIONS, STORE), "--backend=gke needs --topology"),
    (
      (*OPTIONS, STORE, "--topology=h100:8"),
      "one of TPU such as v5e:4x4, not 'h100",
    ),
    (OPTIONS[:2], "--backend=gke needs --option workdirs=…, gs:// folder"),
  ],
)
def test_a_plan_that_gke_cannot_run_is_refused(args, words, tmp_path, capsys):
  line = refused(
    *(capsys, "sweep", "plan", "--quick", "--config=configs/ar_tiny.py"),
    *("-o", tmp_path / "x", *args),
  )
  assert words in line


def check(value, schema, where=""):
  """Holds a value to a schema of a CRD, in which what is unnamed is refused."""
  if schema.get("x-kubernetes-int-or-string"):
    assert isinstance(value, int | str), where
    return
  kinds = {"object": dict, "array": list, "string": str, "integer": int}
  kinds |= {"boolean": bool, "number": (int, float)}
  assert isinstance(value, kinds[schema["type"]]), (where, value)
  assert value in schema.get("enum", [value]), (where, value)
  if isinstance(value, dict):
    assert set(schema.get("required", ())) <= set(value), where
    known = schema.get("properties")
    for key, item in value.items():
      inner = known.get(key) if known else schema.get("additionalProperties")
      if known is None and inner is None:
        return  # An object that the schema leaves open, as metadata.
      assert inner is not None, f"{where}.{key} is not known"
      check(item, inner, f"{where}.{key}")
  if isinstance(value, list):
    for index, item in enumerate(value):
      check(item, schema["items"], f"{where}[{index}]")


def test_jobsets_are_as_the_published_schema_wants_them(planned):
  """V2A_CRDS: folder with config/components/crd/bases of kubernetes-sigs/jobset."""
  folder = os.environ.get(CRDS)
  if not folder:
    pytest.skip(f"set {CRDS} to a folder with JobSet's CRD")
  file = pathlib.Path(folder) / "jobset.x-k8s.io_jobsets.yaml"
  crd = yaml.safe_load(file.read_text())
  (version,) = (v for v in crd["spec"]["versions"] if v["name"] == "v1alpha2")
  schema = version["schema"]["openAPIV3Schema"]
  for item in manifests(planned):
    check(item, schema)
  broken = manifests(planned)[0]
  broken["spec"]["replicatedJobs"][0]["replica"] = 1
  with pytest.raises(AssertionError, match="replica is not known"):
    check(broken, schema)
