"""Scores are drawn over training steps and numbers of the sampler."""

import re

import numpy as np
import pytest
from report_results import write_results

from v2a_jax.evaluation.report import loading, series
from v2a_jax.evaluation.report import page as report
from v2a_jax.evaluation.report.columns import columns_of


def test_scores_are_drawn_over_the_steps_of_a_run(tmp_path):
  """From three checkpoints on; the points are the model's scores."""
  for i, step in enumerate((100, 300, 200)):
    checkpoint = {"path": "runs/a", "step": step}
    write_results(
      tmp_path / str(step), f"a {step}", shift=0.1 * i, checkpoint=checkpoint
    )
  runs = loading.load_runs([tmp_path])
  columns = columns_of(runs)
  f1, fad = series.plots(runs, columns, colours=8)
  assert [f1["column"].id, fad["column"].id] == ["onset_f1_50", "fad"]
  (line,) = re.findall(r'points="([^"]+)"', f1["svg"])
  x, y = np.array([p.split(",") for p in line.split()], float).T
  # In the order of steps, evenly apart; the second is the best.
  assert np.diff(x) == pytest.approx([np.diff(x)[0]] * 2, rel=0.01)
  assert y[1] < y[2] < y[0]  # Down the page is less.
  assert not series.plots(runs[:2], columns, colours=8)
  report.write_report([tmp_path], tmp_path / "page.html")
  assert "over <code>step</code>" in (tmp_path / "page.html").read_text()


def test_scores_are_drawn_over_the_one_number_that_samplers_differ_in(tmp_path):
  def run(name, **sampler):
    sampler = {"num_steps": 16, "guidance": {"video": 2.0}} | sampler
    write_results(tmp_path / name, name, sampler=sampler, checkpoint=model)

  model = {"path": "runs/a", "step": 900}
  for steps in (4, 8, 16):
    run(f"s{steps}", num_steps=steps)
  runs = loading.load_runs([tmp_path])
  found = series.plots(runs, columns_of(runs), colours=8)
  assert {plot["over"] for plot in found} == {"num_steps"}
  # Which of two settings a change comes from cannot be drawn.
  run("g4", num_steps=32, guidance={"video": 4.0})
  runs = loading.load_runs([tmp_path])
  found = series.plots(runs, columns_of(runs), colours=8)
  assert [plot["svg"].count('class="whisker') for plot in found] == [3, 3]
  # With a second line of three, each has its own setting in its name.
  for steps in (8, 16):
    run(f"g4_{steps}", num_steps=steps, guidance={"video": 4.0})
  runs = loading.load_runs([tmp_path])
  found = series.plots(runs, columns_of(runs), colours=8)
  assert [plot["over"] for plot in found] == ["num_steps"] * 2
  names = [name for _, name in found[0]["legend"]]
  assert len(names) == 2
  assert all(" guidance.video " in name for name in names)
  page = report.write_report([tmp_path], tmp_path / "page.html").read_text()
  assert names[0] in page and names[1] in page
