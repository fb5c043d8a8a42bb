"""Sweeps under a real Slurm of one node, started here."""

import collections
import functools
import json
import subprocess

import pytest

from launch.sweep import backend, plan, state
from tests.launch import slurm_cluster, toy_run
from tests.launch.commands import refused, succeeds
from tests.launch.test_sweep_faults import CONFIG, outcome, wait_for


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
  if why := slurm_cluster.missing():
    pytest.skip(why)
  with slurm_cluster.running(tmp_path_factory.mktemp("slurm")) as env:
    yield env


@pytest.fixture
def slurm(cluster, monkeypatch):
  monkeypatch.setenv("SLURM_CONF", cluster["SLURM_CONF"])


TOY = f"srun --kill-on-bad-exit=0 --wait=60 {toy_run.COMMAND} --distributed"
SMALL = (
  *("--option=gpus_per_node=0", "--option=cpus_per_task=1"),
  *("--option=save_seconds=30", "--option=time=0:10:00"),
)


def planned(tmp_path, capsys, name, *args, tasks=1, seeds=1):
  config = tmp_path / "toy.py"
  config.write_text(CONFIG)
  folder = tmp_path / name
  words = ["sweep", "plan", "--quick", f"--config={config}", "-o", folder]
  words += ["--backend=slurm", *SMALL, f"--option=tasks_per_node={tasks}"]
  words += [f"--seeds={seeds}", f"--command={TOY}", *args]
  succeeds(capsys, *words)
  return folder, [point.name for point in plan.read(folder).points]


def rows(folder, capsys):
  return json.loads(succeeds(capsys, "sweep", "status", folder, "--json"))


def ask(*words):
  return subprocess.run(words, capture_output=True, text=True).stdout.split()


def is_completed(job):
  words = ["sacct", "-X", "-n", "-P", "-o", "State", "-j", job]
  return ask(*words) == ["COMPLETED"]


def agrees(folder, capsys):
  """Compares the status with what squeue and sacct list; returns the states."""
  ours = {row["job"]: row["state"] for row in rows(folder, capsys)}
  queue = dict(
    line.split("|") for line in ask("squeue", "-h", "-r", "-o", "%i|%T")
  )
  expected = {"RUNNING": "RUNNING", "PENDING": "QUEUED", "COMPLETED": "DONE"}
  for job, now in ours.items():
    if queue.get(job) in ("RUNNING", "PENDING"):
      # A job may have started or ended between the two questions.
      again = {row["job"]: row["state"] for row in rows(folder, capsys)}
      assert expected[queue[job]] in (now, again[job]), (job, queue[job], now)
    elif job not in queue and now == "DONE":
      wait_for(functools.partial(is_completed, job))
  return collections.Counter(ours.values())


def test_an_array_of_three_with_requeue_equals_a_local_sweep(
  slurm, tmp_path, capsys
):
  """Tasks of two processes; one of them is preempted, and goes on."""
  local = tmp_path / "local"
  config = tmp_path / "toy.py"
  config.write_text(CONFIG)
  folder, names = planned(tmp_path, capsys, "array", tasks=2, seeds=3)
  shown = succeeds(capsys, "sweep", "launch", folder)
  assert shown.count("submitted as") == 3
  # All are queued or running, none is submitted twice.
  shown = succeeds(capsys, "sweep", "launch", folder)
  assert "submitted" not in shown and shown.count("skipped") == 3
  ids = backend.ids(plan.read(folder))
  first = folder / names[0]
  seen = collections.Counter()

  def saved():
    seen.update(agrees(folder, capsys))
    return state.checkpoints(first)

  wait_for(saved)
  # A job of the better partition needs the whole node.
  urgent = ask(
    *("sbatch", "--parsable", "--partition=high", "--exclusive"),
    *("--output", "/dev/null", "--wrap", "sleep 2"),
  )
  assert urgent

  def done():
    found = agrees(folder, capsys)
    seen.update(found)
    return found["DONE"] == 3

  wait_for(done, seconds=150)
  assert seen["RUNNING"] and seen["QUEUED"]
  assert backend.ids(plan.read(folder)) == ids
  table, losses, final = outcome(folder, capsys)
  assert sum(row["restarts"] for row in final) >= 1, "nothing was preempted"
  again = [row["run"] for row in final if row["restarts"]]
  log = (folder / again[0] / "log.txt").read_text()
  assert "from step " in log and "2 data" in log  # Of two processes.

  words = ["sweep", "plan", "--quick", f"--config={config}", "--seeds=3"]
  succeeds(capsys, *words, "-o", local, f"--command={toy_run.COMMAND}")
  assert [p.name for p in plan.read(local).points] == names
  succeeds(capsys, "sweep", "launch", local, "--jobs=3")
  expected, losses_here, _ = outcome(local, capsys)
  assert [row["state"] for row in table] == [row["state"] for row in expected]
  for ours, theirs in zip(losses, losses_here):
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_a_time_limit_is_followed_by_a_requeue_and_a_cancel_by_none(
  slurm, tmp_path, capsys
):
  folder, (name,) = planned(tmp_path, capsys, "limit")
  succeeds(capsys, "sweep", "launch", folder)
  wait_for(lambda: state.checkpoints(folder / name))
  (job,) = backend.ids(plan.read(folder)).values()
  # What Slurm does save_seconds before the limit.
  subprocess.run(["scancel", "--signal=TERM", job], check=True)
  wait_for(lambda: "from step" in (folder / name / "log.txt").read_text())
  wait_for(lambda: rows(folder, capsys)[0]["restarts"] == 1)
  assert rows(folder, capsys)[0]["job"] == job
  shown = succeeds(capsys, "sweep", "cancel", folder)
  assert f"{name}: cancelled, was " in shown
  wait_for(lambda: rows(folder, capsys)[0]["state"] == "CANCELLED")
  wait_for(lambda: job not in ask("squeue", "-h", "-r", "-o", "%i"))
  (sacct,) = set(ask("sacct", "-X", "-n", "-P", "-o", "State", "-j", job)) - {
    *("by", "0")
  }
  assert sacct in ("CANCELLED", "COMPLETED", "FAILED")
  stopped = state.newest(folder / name)
  assert "CANCELLED, skipped" in succeeds(capsys, "sweep", "launch", folder)
  shown = succeeds(capsys, "sweep", "resume", folder)
  assert f"{name}: submitted as" in shown
  wait_for(lambda: rows(folder, capsys)[0]["state"] == "DONE")
  assert f"from step {stopped}" in (folder / name / "log.txt").read_text()


def test_a_pipeline_is_a_chain_of_dependencies(slurm, tmp_path, capsys):
  """Toy runs cannot be judged: `v2a eval` is replaced by a note."""
  args = ["--evaluate=/no/data"]
  folder, names = planned(tmp_path, capsys, "chain", *args, seeds=2)
  for name in names:
    text = (folder / f"{name}.eval.sh").read_text()
    head, _, rest = text.partition("{\n")
    tail = rest.partition("\n}")[2]
    body = f"test -e {folder}/{name}/checkpoints/40 && date"
    (folder / f"{name}.eval.sh").write_text(f"{head}{{\n{body}\n}}{tail}")
  (folder / f"{names[1]}.sh").write_text("#!/bin/bash\nexit 2\n")
  text = (folder / "report.sh").read_text()
  (folder / "report.sh").write_text(
    "#!/bin/bash\n" + text.partition("{\n")[0].partition("\n")[2] + "exit 0\n"
  )
  shown = succeeds(capsys, "sweep", "launch", folder)
  assert shown.count("submitted as") == 5
  report = backend.ids(plan.read(folder))["report"]
  wait_for(lambda: is_completed(report), seconds=90)
  table = rows(folder, capsys)
  assert table[0]["state"] == table[0]["evaluation"] == "DONE"
  assert table[1]["state"].startswith("FAILED")
  assert table[1]["evaluation"] == "CANCELLED"


def test_a_run_goes_on_with_fewer_machines_than_it_asks_for(
  slurm, tmp_path, capsys
):
  """Two are asked for, and there is one."""
  args = ["--option=nodes=2", "--option=min_nodes=1"]
  folder, (name,) = planned(tmp_path, capsys, "fewer", *args)
  succeeds(capsys, "sweep", "launch", folder)
  wait_for(lambda: rows(folder, capsys)[0]["state"] == "DONE", seconds=90)
  assert state.newest(folder / name) == 40


def test_a_scheduler_that_refuses_or_forgets_is_one_line(
  slurm, tmp_path, capsys
):
  args = ["--option=partition=nowhere"]
  folder, (name,) = planned(tmp_path, capsys, "refused", *args)
  line = refused(capsys, "sweep", "launch", folder)
  assert "Slurm refuses: sbatch: error: " in line and "partition" in line
  assert not backend.ids(plan.read(folder))
  backend.remember(plan.read(folder), {name: "99999_0"})
  (row,) = rows(folder, capsys)
  assert row["state"] == "LOST"
  assert row["next"] == f"v2a sweep resume {folder} {name}"
  shown = succeeds(capsys, "sweep", "status", folder, "--failed")
  assert "the scheduler does not know the job any more" in shown


def test_a_scheduler_that_is_not_there_is_one_line(
  tmp_path, capsys, monkeypatch
):
  folder, _ = planned(tmp_path, capsys, "absent")
  monkeypatch.setenv("PATH", str(tmp_path))
  line = refused(capsys, "sweep", "launch", folder)
  assert "no sbatch here, the client of Slurm: run this where it is" in line


@pytest.mark.parametrize(
  "args,words",
  [
    (["--option=time=0:05:00"], "leaves no time to train: 300 s are for"),
    (["--option=time=tomorrow"], "time=tomorrow is no time such as 24:00:00"),
    (["--option=partion=x"], "no option 'partion', did you mean partition?"),
    (["--option=nodes=few"], "--option nodes=few is not a whole number"),
    (["--option=nodes=0"], "nodes=0 is no number of machines"),
    (["--option=save_seconds=x"], "save_seconds=x is not a whole number"),
    (["--topology=v5e:4x4"], "--topology=v5e:4x4: Slurm's machines have GPUs"),
    (["--option=min_nodes=2"], "min_nodes=2 is not from 1 to 1, the machines"),
  ],
)
def test_options_that_make_no_sense_are_refused(args, words, tmp_path, capsys):
  config = tmp_path / "toy.py"
  config.write_text(CONFIG)
  line = refused(
    *(capsys, "sweep", "plan", "--quick", f"--config={config}"),
    *("-o", tmp_path / "x", "--backend=slurm", *args),
  )
  assert words in line


def test_a_checkpoint_must_come_before_the_time_limit(tmp_path, capsys):
  config = tmp_path / "toy.py"
  config.write_text(CONFIG)
  line = refused(
    *(capsys, "sweep", "plan", f"--config={config}", "-o", tmp_path / "x"),
    *("--backend=slurm", "--topology=h100:8", "--option=time=0:07:00"),
    "--config.checkpoint_every=10000000000",
  )
  assert "is shorter than the 10000000000 steps between checkpoints" in line
