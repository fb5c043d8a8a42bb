"""A sweep of toy runs through its whole life: plan, launch, stop, status."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from launch import cli
from launch.parsing import UsageError
from launch.sweep import plan, state
from launch.sweep import points as points_lib
from tests.launch.commands import ENV, ROOT, refused, succeeds
from tests.processes import all_end

CONFIG = """
from configs import diffusion_tiny

def get_config(name="toy"):
  config = diffusion_tiny.get_config()
  config.update(name=name, num_train_steps=5)
  return config

def sweep_lr():
  for value in (1e-3, 1e-4):
    yield {"optimizer.learning_rate": value}

def sweep_depth():
  for depth in (2, 3):
    yield {"model.depth": depth}

def sweep_size():
  yield {"data.frame_size": (16, 24), "model.width": 64}

def sweep_seed():
  for seed in (0, 2**32):
    yield {"seed": seed}
"""
# Writes what a training run leaves; depth 3 fails the first time.
TRAINER = """
import json, pathlib, sys, time
args = dict(a[2:].split("=", 1) for a in sys.argv[1:])
run = pathlib.Path(args["workdir"])
(run / "seen.json").write_text(json.dumps([args, str(pathlib.Path.cwd())]))
(run / "checkpoints" / "4").mkdir(parents=True, exist_ok=True)
if args["config.model.depth"] == "3" and not (run / "again").exists():
  (run / "again").touch()
  sys.exit("out of luck")
with open(run / "metrics.jsonl", "a") as file:
  file.write(json.dumps({"step": 4, "train/loss": 0.5}) + "\\n")
  file.write('{"step": 5, "train/l')  # Torn by a crash.
print("trained", run.name)
"""
# Waits until it is stopped, or until another run waits beside it.
WAITER = """
import pathlib, signal, sys, time
from v2a_jax.basics.parent import stop_with_launcher
run = pathlib.Path(sys.argv[-1].removeprefix("--workdir="))
def save(*_):
  time.sleep(0.5)  # By now a killed tee would be gone.
  print("saving", flush=True)
  (run / "saved").touch()
  sys.exit(143)
signal.signal(signal.SIGTERM, save)
stop_with_launcher()
(run / "checkpoints" / "3").mkdir(parents=True)
(run / "waits").touch()
while len(list(run.parent.glob("*/waits"))) < int(sys.argv[1]):
  time.sleep(0.05)
"""
DEAF = """
import os, pathlib, signal, sys, time
run = pathlib.Path(sys.argv[-1].removeprefix("--workdir="))
signal.signal(signal.SIGTERM, lambda *_: (run / "asked").touch())
(run / "waits.part").write_text(str(os.getpid()))
(run / "waits.part").rename(run / "waits")
while True:
  time.sleep(0.05)
"""


@pytest.fixture
def config(tmp_path):
  file = tmp_path / "toy.py"
  file.write_text(CONFIG)
  return str(file)


@pytest.fixture
def trainer(tmp_path):
  """Returns the command that scripts run in place of `v2a train`."""

  def write(text=TRAINER, *words):
    file = tmp_path / "trainer.py"
    file.write_text(text)
    return " ".join([sys.executable, str(file), *words])

  return write


@pytest.fixture
def planned(tmp_path, config, trainer, capsys):
  folder = tmp_path / "a sweep"
  args = [
    *("sweep", "plan", "--quick", f"--config={config}", "--sweep=lr,depth")
  ]
  args += ["--config.model.width=16", "-o", folder]
  succeeds(capsys, *args, f"--command={trainer()}")
  return folder


def rows(folder, capsys):
  return json.loads(succeeds(capsys, "sweep", "status", folder, "--json"))


def test_a_plan_writes_readable_files_and_starts_nothing(planned, capsys):
  points = plan.read(planned).points
  assert len(points) == 4
  assert points[1].name.startswith("lr-depth-001-learning_rate=0.001,depth=3-")
  assert points[0].overrides == {
    "model.width": "16",
    "optimizer.learning_rate": 1e-3,
    "model.depth": 2,
  }
  for point in points:
    script = planned / f"{point.name}.sh"
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text()
    assert f"--config.model.depth={point.overrides['model.depth']}" in text
    assert not (planned / point.name).exists()
  assert {row["state"] for row in rows(planned, capsys)} == {"NEW"}


def test_a_plan_is_the_product_of_configs_and_sweeps(config):
  points = points_lib.points([config], names=["lr", "depth"], overrides={})
  pairs = [
    (p.overrides["optimizer.learning_rate"], p.overrides["model.depth"])
    for p in points
  ]
  assert pairs == [(1e-3, 2), (1e-3, 3), (1e-4, 2), (1e-4, 3)]
  two = points_lib.points(
    [config, f"{config}:other"], names=["lr", "depth", "size"], overrides={}
  )
  assert len(two) == 8
  assert len({point.fingerprint for point in two}) == 8
  assert len({point.name for point in two}) == 8
  for point in two:
    assert re.fullmatch(r"[A-Za-z0-9._=,-]+", point.name)
    assert point.overrides["data.frame_size"] == (16, 24)
    assert "--config.data.frame_size=(16, 24)" in point.arguments()
    assert (point.num_train_steps, point.train_seconds) == (5, 0.0)
  assert [p.name.split("-")[4] for p in two[::4]] == ["toy", "toy_other"]


def test_several_configs_are_arms(tmp_path, config):
  other = tmp_path / "other.py"
  other.write_text(CONFIG.replace("=5", "=6"))
  points = points_lib.points([config, str(other)], names=[], overrides={})
  assert [p.name.rpartition("-")[0] for p in points] == [
    "arms-000-toy",
    "arms-001-other",
  ]
  assert [p.num_train_steps for p in points] == [5, 6]


def test_points_do_not_leak_into_one_another(config):
  """ConfigDict copies share nested dicts, so each point is read afresh."""
  points = points_lib.points([config], names=["lr", "depth"], overrides={})
  alone = points_lib.points(
    [config], names=["lr"], overrides={"model.depth": "3"}
  )
  assert points[1].fingerprint == alone[0].fingerprint
  assert len({point.fingerprint for point in points}) == 4


def test_two_points_that_are_the_same_run_are_refused(config):
  for configs, names in [
    ([config], ["depth", "depth"]),
    ([config, config], []),
    ([config, f"{config}:toy"], ["lr"]),
  ]:
    with pytest.raises(UsageError, match="-000-.* and .* are the same run"):
      points_lib.points(configs, names=names, overrides={})


def test_a_sweep_goes_before_an_override(config):
  points = points_lib.points(
    [config], names=["depth"], overrides={"model.depth": "9"}
  )
  assert [p.overrides["model.depth"] for p in points] == [2, 3]


@pytest.mark.parametrize(
  "args,words",
  [
    (["--sweep=colour"], "no sweep 'colour' in "),
    (["--sweep=colour"], "; there are: lr, depth, size, seed\n"),
    (["--sweep=dept"], ", did you mean depth?"),
    (["--sweep=seed"], "config.seed=4294967296 is not in [0, 4294967295]"),
    (["--config.model.widht=3"], "unknown config key 'model.widht'"),
    (["--config.log_every=0"], "config.log_every=0 is not in [1, inf)"),
    (["--config=no/such.py"], "no config file no/such.py"),
  ],
)
def test_a_plan_that_cannot_run_is_refused_as_a_whole(
  args, words, config, tmp_path, capsys
):
  out = tmp_path / "sweep"
  line = refused(
    capsys, "sweep", "plan", "--quick", f"--config={config}", *args, "-o", out
  )
  assert words in line
  assert not out.exists()


def test_planning_again_keeps_runs_and_refuses_another_plan(
  planned, config, trainer, capsys
):
  name = plan.read(planned).points[0].name
  (planned / name).mkdir()
  (planned / name / "exit_code").write_text("0\n")
  args = ["sweep", "plan", "--quick", f"--config={config}", "-o", planned]
  again = [*args, "--sweep=lr,depth", "--config.model.width=16"]
  shown = succeeds(capsys, *again, f"--command={trainer()}")
  lines = shown.splitlines()
  assert lines[1] == "all with model.width=16"
  assert lines[2].startswith(f"DONE        {name}  optimizer.learning_rate=")
  assert lines[3].startswith("NEW         lr-depth-001-")
  assert "holds another plan, with lr-depth-" in refused(
    capsys, *args, "--sweep=lr"
  )
  assert len(plan.read(planned).points) == 4


@pytest.mark.parametrize(
  "text,words",
  [
    (None, "no plan in .*; v2a sweep plan -o .* makes it"),
    ("{", "plan.json is not a plan"),
    ('{"schema": 7}', "plan.json has schema 7, not 2"),
    ("[]", "plan.json is not a plan"),
    ('{"schema": 2, "points": [{"size": 1}]}', "plan.json is not a plan"),
  ],
)
def test_a_folder_without_a_usable_plan_says_so(text, words, tmp_path, capsys):
  if text:
    (tmp_path / "plan.json").write_text(text)
  for command in ("launch", "status"):
    assert re.search(words, refused(capsys, "sweep", command, tmp_path))


def test_launch_runs_the_rest_after_a_failure_and_then_resumes(planned, capsys):
  assert cli.main(["sweep", "launch", str(planned)]) == 1
  shown = capsys.readouterr()
  names = [point.name for point in plan.read(planned).points]
  for number, name in enumerate(names, start=1):
    assert f"[{number}/4] {name}\n" in shown.out
  assert f"failed: {names[1]}; see {planned / names[1] / 'log.txt'}" in (
    shown.err
  )
  assert "out of luck" in (planned / names[1] / "log.txt").read_text()
  states = [row["state"] for row in rows(planned, capsys)]
  assert states == ["DONE", "FAILED (1)", "DONE", "FAILED (1)"]
  before = os.stat(planned / names[0] / "seen.json")

  shown = succeeds(capsys, "sweep", "launch", planned, "--jobs", "2")
  assert f"{names[0]}: DONE, skipped" in shown
  table = rows(planned, capsys)
  assert [row["state"] for row in table] == ["DONE"] * 4
  assert (table[0]["step"], table[0]["total"], table[0]["loss"]) == (4, 5, 0.5)
  assert table[0]["checkpoint"] >= 0 and table[0]["eta"] is None
  after = os.stat(planned / names[0] / "seen.json")
  assert after.st_mtime_ns == before.st_mtime_ns, "a finished run ran again"


def test_a_script_is_the_same_by_hand(planned, capsys, tmp_path):
  point = plan.read(planned).points[0]
  script = ["bash", planned / f"{point.name}.sh"]
  run_it = lambda: subprocess.run(
    script, capture_output=True, text=True, cwd=tmp_path, check=True
  )
  assert run_it().stdout == f"trained {point.name}\n"
  seen, folder = json.loads((planned / point.name / "seen.json").read_text())
  assert folder == os.getcwd()  # Where it was planned, so paths still hold.
  assert seen == {
    "config": point.config,
    "config_hash": point.fingerprint,
    "config.model.width": "16",
    "config.optimizer.learning_rate": "0.001",
    "config.model.depth": "2",
    "workdir": str(planned / point.name),
  }
  assert rows(planned, capsys)[0]["state"] == "DONE"
  assert run_it().stdout == f"{point.name}: done already\n"
  (planned / point.name / "exit_code").unlink()
  assert run_it().stdout == f"trained {point.name}\n"


def test_jobs_run_at_the_same_time(planned, config, trainer, capsys):
  """Each run ends only when the other has started, too."""
  command = trainer(WAITER, "2")
  args = ["sweep", "plan", "--quick", f"--config={config}", "--sweep=depth"]
  folder = planned.with_name("pair")
  succeeds(capsys, *args, "-o", folder, f"--command={command}")
  succeeds(capsys, "sweep", "launch", folder, "--jobs=2")
  assert {row["state"] for row in rows(folder, capsys)} == {"DONE"}


def launched(folder):
  """Starts `v2a sweep launch` of one run, and waits until the run waits."""
  (name,) = (point.name for point in plan.read(folder).points)
  launcher = subprocess.Popen(
    [sys.executable, "-m", "launch.cli", "sweep", "launch", folder],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
    cwd=ROOT,
    env=ENV,
  )
  wait_for(folder / name / "waits", launcher)
  return launcher, name


def wait_for(path, launcher):
  deadline = time.monotonic() + 60
  while not path.exists():
    assert time.monotonic() < deadline and launcher.poll() is None
    time.sleep(0.05)


@pytest.mark.parametrize(
  "number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
)
def test_a_signal_stops_the_run_and_it_can_be_resumed(
  number, planned, config, trainer, capsys
):
  folder = planned.with_name("alone")
  args = ["sweep", "plan", "--quick", f"--config={config}", "-o", folder]
  succeeds(capsys, *args, f"--command={trainer(WAITER, '2')}")
  launcher, name = launched(folder)
  assert rows(folder, capsys)[0]["state"] == "RUNNING"
  line = refused(capsys, "sweep", "launch", folder)
  assert f"launch runs already: {folder} is being written by process" in line
  assert str(launcher.pid) in line
  launcher.send_signal(number)
  killed = number == signal.SIGKILL
  assert launcher.wait(timeout=30) == (-number if killed else 128 + number)
  deadline = time.monotonic() + (10 if killed else 0)
  while not (folder / name / "exit_code").exists():
    assert time.monotonic() < deadline, "the run goes on"
    time.sleep(0.05)
  assert (folder / name / "saved").exists()
  assert "saving" in (folder / name / "log.txt").read_text()
  if number == signal.SIGINT:  # The shell may name the signal of the run first.
    assert launcher.stderr.read().endswith("v2a sweep: interrupted\n")
  row = rows(folder, capsys)[0]
  assert (row["state"], row["step"]) == ("RESUME", 3)


def test_a_second_ctrl_c_ends_runs_that_do_not_end(
  planned, config, trainer, capsys
):
  folder = planned.with_name("deaf")
  args = ["sweep", "plan", "--quick", f"--config={config}", "-o", folder]
  succeeds(capsys, *args, f"--command={trainer(DEAF, '2')}")
  launcher, name = launched(folder)
  launcher.send_signal(signal.SIGINT)
  wait_for(folder / name / "asked", launcher)
  launcher.send_signal(signal.SIGINT)
  assert launcher.wait(timeout=10) == 130
  assert all_end([int((folder / name / "waits").read_text())])


def test_the_state_of_a_run_is_in_its_files(planned, capsys):
  name = plan.read(planned).points[0].name
  workdir = planned / name
  workdir.mkdir()
  host = os.uname().nodename
  (workdir / "running").write_text(f"{host} {os.getpid()}\n")
  assert state.state(workdir) == "RUNNING"
  (workdir / "running").write_text("another-host 1\n")
  assert state.state(workdir) == "RUNNING"  # Nobody here can know better.
  ended = subprocess.Popen(["true"])
  ended.wait()
  (workdir / "running").write_text(f"{host} {ended.pid}\n")
  assert state.state(workdir) == "FAILED (killed)"
  (workdir / "checkpoints" / "3").mkdir(parents=True)
  (workdir / "checkpoints" / "7.tmp").mkdir()  # Not finished.
  # As one that its run removes meanwhile: listed, and no longer there.
  (workdir / "checkpoints" / "2").symlink_to("gone")
  assert state.state(workdir) == "RESUME"
  assert list(state.checkpoints(workdir)) == [3]
  for code, now in [("143", "RESUME"), ("1", "FAILED (1)"), ("0", "DONE")]:
    (workdir / "exit_code").write_text(code + "\n")
    assert state.state(workdir) == now


def test_the_table_shows_times_as_a_clock(planned, capsys):
  name = plan.read(planned).points[0].name
  workdir = planned / name
  (workdir / "checkpoints" / "3").mkdir(parents=True)
  os.utime(workdir / "checkpoints" / "3", (0, time.time() - 3723))
  (workdir / "running").write_text(f"{os.uname().nodename} {os.getpid()}\n")
  record = {"step": 4, "train/loss": 1 / 3, "perf/eta_seconds": 123.4}
  record |= {"perf/examples_per_sec": 7.25, "perf/mfu": 0.123}
  lines = [{"step": 5, "perf/step_time": 0.1}]  # Without a loss.
  lines += [{"step": 4, "eval_mean/loss": 0.25}, {"step": 3}]
  (workdir / "metrics.jsonl").write_text(
    "".join(json.dumps(row) + "\n" for row in [record, *lines])
  )
  _, head, first, *others = succeeds(
    capsys, "sweep", "status", planned
  ).splitlines()
  columns = dict(zip(re.split("  +", head), re.split("  +", first)))
  age = columns.pop("saved")
  assert re.fullmatch(r"1:02:0\d", age)
  assert columns == {
    "run": name,
    "state": "RUNNING",
    "step": "4/5",
    "%": "80.0",
    "loss": "0.3333",
    "clips/s": "7.2",
    "MFU": "12.3",
    "ETA": "2:03",
    "best": "eval_mean/loss 0.25",
    "restarts": "0",
  }
  assert others[-1] == "1 RUNNING, 3 NEW"
