"""Quality over cost: the front, and what is drawn of results."""

import pytest
from report_results import write_results

from v2a_jax.evaluation.report import loading, page, tradeoffs
from v2a_jax.evaluation.report.columns import columns_of

COST = {
  "clip_seconds": 2.0,
  "device": "cpu",
  "devices": 1,
  "precision": "float32",
  "parameters": 10**6,
}


def run_of(folder, name, seconds, shift, **over):
  cost = COST | {"seconds_per_clip": seconds} | over
  return write_results(
    folder / name, name, shift=shift, with_media=0, cost=cost
  )


def test_the_front_is_what_none_beats_in_both():
  points = [(1, 0.5), (2, 0.4), (3, 0.9), (4, 0.9), (0.5, 0.1), (1, 0.3)]
  assert tradeoffs.front(points, higher_is_better=True) == [4, 0, 2]
  assert tradeoffs.front(points, higher_is_better=False) == [4]


def test_scores_are_drawn_over_cost(tmp_path):
  results = [
    run_of(tmp_path, "fast", 0.1, 0.0),
    run_of(tmp_path, "slow", 2.0, 0.2, parameters=10**7),
    run_of(tmp_path, "worse", 3.0, 0.1),
  ]
  runs = loading.load_runs(results)
  plots = tradeoffs.plots(runs, columns_of(runs), colours=6)
  # Their time of training is the same, which says nothing.
  overs = {plot["over"] for plot in plots}
  assert overs == {
    "seconds to make a clip of 2 s, cpu, float32",
    "parameters",
  }
  f1, fad, *_ = plots
  assert {f1["column"].id, fad["column"].id} == {"onset_f1_50", "fad"}
  assert [name for _, name in f1["legend"]] == [
    *("not beaten in both", "fast", "slow", "worse")
  ]
  out = page.write_report(results, tmp_path / "r.html")
  text = out.read_text()
  assert "Quality over cost" in text
  assert "2 s for a clip of 2 s, on 1 cpu; 10,000,000 parameters" in text


@pytest.mark.parametrize("same_device", [True, False])
def test_times_of_two_machines_share_no_plot(tmp_path, same_device):
  other = "cpu" if same_device else "H200"
  results = [
    run_of(tmp_path, "a", 0.1, 0.0),
    run_of(tmp_path, "b", 2.0, 0.2, device=other),
  ]
  runs = loading.load_runs(results)
  plots = tradeoffs.plots(runs, columns_of(runs), colours=6)
  assert bool(plots) == same_device


def test_results_of_before_costs_were_kept_have_no_plot(tmp_path):
  results = [
    write_results(tmp_path / name, name, with_media=0) for name in "ab"
  ]
  runs = loading.load_runs(results)
  assert not tradeoffs.plots(runs, columns_of(runs), colours=6)
