"""What a person sees of a sweep: speed, hosts, results, what to do next."""

import json
import os
import time

import pytest

from launch.sweep import plan, status
from launch.sweep import points as points_lib
from tests.launch.commands import succeeds
from v2a_jax.evaluation import metrics


@pytest.fixture
def sweep(tmp_path):
  """Returns a plan of two runs, the first of which runs."""
  found = points_lib.points(
    ["configs/ar_tiny.py"], names=[], seeds=2, overrides={}
  )
  planned = plan.Plan(
    folder=tmp_path / "sweep", points=found, command="true", evaluate="/data"
  )
  plan.write(planned)
  workdir = planned.workdir(found[0])
  (workdir / "hosts").mkdir(parents=True)
  (workdir / "running").write_text(f"{os.uname().nodename} {os.getpid()}\n")
  return planned


def beat(planned, process, *, age=0.0, **facts):
  facts = {"host": f"h{process}", "step": 7, "time": time.time() - age, **facts}
  file = planned.workdir(planned.points[0]) / "hosts" / f"{process}.json"
  file.write_text(json.dumps(facts))


def results(planned, step, value, *, better=True):
  out = planned.results(planned.points[0]) / f"step_{step}"
  out.mkdir(parents=True)
  metric = {"value": value, "low": value - 0.05, "high": value + 0.05}
  (out / "results.json").write_text(
    json.dumps(
      {
        "metrics": {
          "onset_f1_50ms": {"role": "quality", "higher_is_better": better}
        },
        "checkpoint": {"step": step},
        "rows": [
          {"kind": "anchor", "metrics": {"onset_f1_50ms": {"value": 0.99}}},
          {"kind": "model", "metrics": {"onset_f1_50ms": metric}},
        ],
      }
    )
  )


def test_silent_and_slow_hosts_are_named(sweep):
  usual = dict(step_time=1.0, data_time=0.01, device_time=0.97)
  beat(sweep, 0, **usual)
  beat(sweep, 1, **usual | dict(data_time=0.8, device_time=0.15))
  beat(sweep, 2, age=300, **usual)
  row = status.rows(sweep)[0]
  assert "process 2 (host h2) silent for 5:0" in row["hosts"]
  assert (
    "process 1 (host h1) holds the others up: it waits for data"
    in (row["hosts"])
  )
  assert row["hosts"] in status.table([row])


def test_the_metric_that_is_shown_is_measured():
  assert status.MAIN_METRIC in [metric.id for metric in metrics.choose()]


@pytest.mark.parametrize("better,best", [(True, 0.8), (False, 0.4)])
def test_the_best_checkpoint_is_shown_with_its_interval(sweep, better, best):
  for step, value in ((2, 0.4), (4, 0.8), (6, 0.6)):
    results(sweep, step, value, better=better)
  row = status.rows(sweep)[0]
  assert row["best"]["value"] == best
  assert row["best"]["step"] == (4 if better else 2)
  low, high = best - 0.05, best + 0.05
  assert f"onset_f1_50ms {best:.3g} [{low:.3g}, {high:.3g}]" in status.table(
    [row]
  )


def test_restarts_are_counted_and_failed_runs_are_shown_alone(sweep, capsys):
  workdir = sweep.workdir(sweep.points[0])
  (workdir / "goodput.json").write_text(json.dumps({"starts": 3}))
  (workdir / "exit_code").write_text("1\n")
  rows = json.loads(
    succeeds(capsys, "sweep", "status", sweep.folder, "--failed", "--json")
  )
  assert [(row["state"], row["restarts"]) for row in rows] == [
    ("FAILED (1)", 2)
  ]
  assert rows[0]["next"] == (
    f"see {workdir / 'log.txt'}; then v2a sweep resume {sweep.folder}"
    f" {sweep.points[0].name}"
  )


def test_a_finished_run_points_to_its_evaluation(sweep):
  (sweep.workdir(sweep.points[0]) / "exit_code").write_text("0\n")
  row = status.rows(sweep)[0]
  assert (row["state"], row["evaluation"]) == ("DONE", "NEW")
  assert row["next"] == f"v2a sweep launch {sweep.folder}"
  folder = sweep.results(sweep.points[0])
  folder.mkdir(parents=True)
  (folder / "exit_code").write_text("0\n")
  assert status.rows(sweep)[0]["next"] == f"see {folder / 'report.html'}"


def test_a_page_for_the_wall_has_every_run_and_no_markup_of_theirs(
  sweep, tmp_path, capsys
):
  workdir = sweep.workdir(sweep.points[0])
  (workdir / "metrics.jsonl").write_text(
    json.dumps({"step": 4000, "train/loss": 0.5}) + "\n"
  )
  beat(sweep, 0, age=300, host="<b>h</b>")
  page = tmp_path / "wall.html"
  succeeds(capsys, "sweep", "status", sweep.folder, "--page", page)
  text = page.read_text()
  for point in sweep.points:
    assert point.name in text
  assert 'http-equiv="refresh"' in text and "width: 50.0%" in text
  assert "&lt;b&gt;h&lt;/b&gt;" in text and "<b>h</b>" not in text
  assert "http://" not in text and "https://" not in text


def test_a_cancelled_run_leaves_the_report_on_the_others(sweep, capsys):
  name = sweep.points[1].name
  succeeds(capsys, "sweep", "cancel", sweep.folder, name)
  found = {name: now for name, (now, _) in status.states(sweep).items()}
  assert found[name] == found[f"{name}.eval"] == "CANCELLED"
  assert found["report"] == "NEW"
  (sweep.workdir(sweep.points[0]) / "running").unlink()  # Of this process.
  succeeds(capsys, "sweep", "cancel", sweep.folder)
  assert status.states(sweep)["report"][0] == "CANCELLED"
