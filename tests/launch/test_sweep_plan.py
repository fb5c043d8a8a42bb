"""What a plan shows before anything runs: runs, costs, fit, the code."""

import json
import re
import subprocess

import pytest

from launch import cli
from launch import config as config_lib
from launch.sweep import code, plan
from launch.sweep import points as points_lib
from tests.launch.commands import refused, succeeds

CONFIG = """
from configs import diffusion_tiny

def get_config(width="32", heads="2"):
  config = diffusion_tiny.get_config()
  config.name = "toy"
  config.model.update(
    width=int(width), num_heads=int(heads), depth=1, mlp_dim=32,
    joint_depth=1, modulation_rank=8,
  )
  config.num_train_steps = 40
  return config

def sweep_lr():
  for value in (1e-3, 1e-4):
    yield {"optimizer.learning_rate": value}

def sweep_depth():
  for depth in (1, 2, 3):
    yield {"model.depth": depth}

def sweep_width():
  for width in ("32", "48"):
    yield {"arg.width": width}

def sweep_heads():
  for heads in (2, 3):
    yield {"model.num_heads": heads}

def evaluate_guidance():
  for scale in (1.0, 2.0):
    yield {"guidance_video": scale}
"""


@pytest.fixture
def config(tmp_path):
  file = tmp_path / "toy.py"
  file.write_text(CONFIG)
  return str(file)


def shown(capsys, tmp_path, config, *args):
  """Plans a sweep; returns what is printed, and the runs."""
  out = tmp_path / "sweep"
  text = succeeds(
    capsys, "sweep", "plan", f"--config={config}", *args, "-o", out
  )
  return text, plan.read(out)


def test_changes_are_tried_one_at_a_time_beside_the_base(config):
  points = points_lib.points(
    [config], names=[], ablate=["depth", "lr"], seeds=2, overrides={}
  )
  changes = [
    {k: v for k, v in p.overrides.items() if k != "seed"} for p in points[::2]
  ]
  # A depth of 1 and a rate of 1e-3 are the base, which is there once.
  assert changes == [
    {},
    {"model.depth": 2},
    {"model.depth": 3},
    {"optimizer.learning_rate": 1e-4},
  ]
  assert [p.overrides["seed"] for p in points[:2]] == [0, 1]
  assert len({p.fingerprint for p in points}) == len(points) == 8


def test_seeds_start_at_that_of_the_config(config):
  points = points_lib.points(
    [config], names=[], seeds=2, overrides={"seed": "7"}
  )
  assert [p.overrides["seed"] for p in points] == [7, 8]


def test_a_generator_may_set_arguments_of_the_config(config):
  points = points_lib.points([config], names=["width", "lr"], overrides={})
  assert [p.config.partition(":")[2] for p in points] == [
    *("width=32", "width=32", "width=48", "width=48")
  ]
  assert points[2].name.startswith("width-lr-002-width=48,learning_rate=0.001-")
  resolved = config_lib.parse(points[2].config, points[2].changes())
  assert resolved.model.width == 48
  assert config_lib.fingerprint(resolved) == points[2].fingerprint
  (alone,) = points_lib.points(
    [f"{config}:width=48"], names=[], overrides={"model.depth": "1"}
  )
  assert config_lib.parse(alone.config).model.width == 48


@pytest.mark.parametrize(
  "args,words",
  [
    (["--sweep=size"], "no sweep 'size' in "),
    (["--ablate=wdith"], ", did you mean width?"),
    (["--variants=guidnce"], "no evaluate 'guidnce' in "),
    (["--backend=slrum"], "no backend 'slrum', did you mean slurm?"),
    (["--backend=k8s"], "; there are local, slurm, gke"),
    (["--option=nodes=2"], "--backend=local has no option 'nodes'"),
    (["--option=nodes"], "nodes is not NAME=VALUE"),
    (["--sweep=lr,lr"], "are the same run"),
    (["--topology=h100:3"], "h100"),
    (["--seeds=0"], "0 is not a whole number in [1"),
  ],
)
def test_a_plan_that_makes_no_sense_is_refused(
  args, words, config, tmp_path, capsys
):
  out = tmp_path / "sweep"
  args = ["sweep", "plan", f"--config={config}", *args, "-o", out]
  assert words in refused(capsys, *args)
  assert not out.exists()


def test_a_run_that_cannot_be_built_is_named_with_its_field(
  config, tmp_path, capsys
):
  out = tmp_path / "sweep"
  args = ["sweep", "plan", f"--config={config}", "--sweep=heads", "-o", out]
  line = refused(capsys, *args)
  assert re.search(r"heads-001-num_heads=3-\w{6}: ", line)
  assert "num_heads=3 does not divide width=32" in line
  assert not out.exists()


def test_the_table_shows_cost_and_fit(config, tmp_path, capsys):
  text, planned = shown(
    capsys, tmp_path, config, "--sweep=lr", "--topology=h100:8"
  )
  head = text.splitlines()[0]
  assert head.startswith("sweep sweep: 2 runs on local, 1 x h100:8; code ")
  small, other = (point.cost for point in planned.points)
  assert small == other  # Another rate, the same program.
  assert small["fits"] and small["capacity"] == 80e9 > small["memory"] > 0
  assert (small["batch_size"], small["clips"], small["chips"]) == (8, 1, 8)
  # Steps, seconds and chips to hours.
  hours = 40 * small["step_seconds"] * 8 / 3600
  assert small["chip_hours"] == pytest.approx(hours)
  # What is sent decides here, so that the share of the peak does not matter.
  assert small["step_seconds"] >= small["compute_seconds"] / 0.4
  assert f"{small['memory'] / 1e9:.3g}/80 GB" in text
  total = sum(p.cost["chip_hours"] for p in planned.points)
  assert f"together {total:,.3g} chip-hours" in text


def test_a_run_that_does_not_fit_says_what_to_change_and_is_not_started(
  config, tmp_path, capsys
):
  huge = "--config.model.width=8192 --config.model.num_heads=64".split()
  huge += ["--config.model.mlp_dim=65536", "--config.model.depth=96"]
  text, planned = shown(
    capsys, tmp_path, config, *huge, "--topology=h100:1", "--command=false"
  )
  (point,) = planned.points
  assert not point.cost["fits"]
  assert "WON'T FIT   " in text and f"{point.name}" in text
  assert "of 80.0 GB a chip; less is needed with --config." in text
  assert cli.main(["sweep", "launch", str(planned.folder)]) == 1
  line = capsys.readouterr()
  assert "less is needed with" in line.err
  assert "WON'T FIT, skipped" in line.out
  assert not (planned.folder / point.name).exists()


def test_the_plan_holds_the_code_and_what_was_changed_in_it(
  tmp_path, monkeypatch
):
  repository = tmp_path / "code"
  repository.mkdir()
  git = lambda *words: subprocess.run(
    ["git", "-c", "user.name=x", "-c", "user.email=x@y", *words],
    cwd=repository,
    check=True,
    capture_output=True,
    text=True,
  ).stdout.strip()
  git("init", "-q")
  (repository / "a.py").write_text("one\n")
  git("add", ".")
  git("commit", "-qm", "first")
  monkeypatch.setattr(code, "PACKAGED", repository)
  clean, patch = code.identity()
  assert clean == {"commit": git("rev-parse", "HEAD"), "changed": []}
  assert not patch
  assert code.describe(clean) == f"code {clean['commit'][:7]}"
  (repository / "a.py").write_text("two\n")
  (repository / "new.py").write_text("new\n")
  dirty, patch = code.identity()
  assert sorted(dirty["changed"]) == ["a.py", "new.py"]
  assert "-one\n+two\n" in patch
  assert code.describe(dirty).endswith(", 2 files changed (code.patch)")
  (repository / ".git").rename(repository / "gone")
  monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
  assert code.describe(code.identity()[0]) == "code not in a git checkout"


def test_a_changed_code_is_written_beside_the_plan(
  config, tmp_path, capsys, monkeypatch
):
  identity = {"commit": "1" * 40, "changed": ["a.py"]}
  monkeypatch.setattr(code, "identity", lambda: (identity, "-one\n+two\n"))
  text, planned = shown(capsys, tmp_path, config, "--quick")
  assert "code 1111111, 1 file changed (code.patch)" in text
  assert planned.code == identity
  assert (planned.folder / "code.patch").read_text() == "-one\n+two\n"


def test_a_run_refuses_a_config_that_is_not_the_one_planned(
  config, tmp_path, capsys
):
  _, planned = shown(capsys, tmp_path, config, "--quick")
  (point,) = planned.points
  words = [*point.arguments(), "--print_config"]
  assert "num_train_steps: 40" in succeeds(capsys, "train", *words)
  with open(config, "a") as file:
    file.write(
      "\nbefore = get_config\n"
      "def get_config():\n"
      "  config = before()\n  config.num_train_steps = 41\n  return config\n"
    )
  line = refused(capsys, "train", *words)
  assert f"planned with {point.fingerprint}" in line
  assert "plan the sweep again, or leave --config_hash out" in line


def test_an_evaluation_for_each_variant_and_a_report_follow_training(
  config, tmp_path, capsys
):
  data = tmp_path / "data set"
  args = [f"--evaluate={data}", "--variants=guidance", "--sweep=lr", "--quick"]
  _, planned = shown(
    capsys, tmp_path, config, *args, "--eval_flags=--num_clips=3 --step=each"
  )
  jobs = {job.name: job for job in planned.jobs()}
  first, second = (p.name for p in planned.points)
  assert list(jobs) == [
    *(first, second, f"{first}.eval", f"{second}.eval", "report")
  ]
  assert jobs[f"{first}.eval"].after == (first,)
  assert jobs["report"].after == (f"{first}.eval", f"{second}.eval")
  text = (planned.folder / f"{first}.eval.sh").read_text()
  assert text.count("launch.cli eval") == 2
  assert text.count("--num_clips=3") == text.count("--step=each") == 2
  assert f"'--set={data}'" in text
  for scale in ("1.0", "2.0"):
    assert f"--guidance_video={scale} " in text
    assert f"eval/{first}/guidance_video={scale}" in text
  for job in jobs.values():
    script = planned.folder / f"{job.name}.sh"
    subprocess.run(["bash", "-n", script], check=True)


def test_wandb_is_told_the_sweep_and_what_differs(config, tmp_path, capsys):
  """Short tags without quotes or commas, which wandb would split at."""
  shared = "--config.data.paths=('/data/a set, cut',)"
  args = ("--quick", "--sweep=lr,width", shared)
  text, planned = shown(capsys, tmp_path, config, *args)
  script = (planned.folder / f"{planned.points[-1].name}.sh").read_text()
  assert "export WANDB_RUN_GROUP=sweep\n" in script
  assert "export WANDB_TAGS=toy,width=48,learning_rate=0.0001\n" in script
  # What all have stands once above the table.
  assert text.count("data.paths=('/data/a set, cut',)") == 1
  assert text.splitlines()[1].startswith("all with data.paths=")
  assert text.count("optimizer.learning_rate=0.0001\n") == 2


def test_tags_are_clean_and_keys_of_one_name_are_told_apart():
  runs = [
    points_lib.Point(name="", config="a.py", fingerprint="", overrides=given)
    for given in ({"x.depth": "('b, c',)", "y.depth": 1}, {"z": "w" * 99})
  ]
  first, second = points_lib.tags(runs)
  assert first == ["a", "x.depth=b_c", "y.depth=1"]
  assert second == ["a", "z=" + "w" * 62]


def test_a_plan_can_be_read_as_json(config, tmp_path, capsys):
  _, planned = shown(capsys, tmp_path, config, "--quick", "--sweep=lr")
  fields = json.loads((planned.folder / "plan.json").read_text())
  assert fields["backend"] == "local"
  assert [p["name"] for p in fields["points"]] == [
    point.name for point in planned.points
  ]
