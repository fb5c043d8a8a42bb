"""The verdict says what tests over clips allow, and no more."""

import json

import numpy as np
import pytest
from report_results import METRICS, load, two_runs, verdict, write_results

from v2a_jax.evaluation.report import compare, loading
from v2a_jax.evaluation.report import table as report_table
from v2a_jax.evaluation.report.columns import columns_of
from v2a_jax.evaluation.report.differences import difference, row_of


@pytest.fixture(scope="module")
def results(tmp_path_factory):
  return two_runs(tmp_path_factory.mktemp("results"))


def test_names_a_difference_only_where_the_test_finds_it(results):
  runs = loading.load_runs(results)
  columns = columns_of(runs)
  sentences = [s.text for s in compare.verdict(runs, columns)]
  assert sentences[0] == (
    "In short: each of diffusion and ar follows the video in time; diffusion"
    " and ar differ on 1 of 2 metrics."
  )
  (between,) = [t for t in sentences if t.startswith("diffusion beats ar on")]
  assert "Onset F1 at 50 ms by 0.200" in between
  assert "paired, 12 clips, p < 0.001" in between
  assert "diffusion and ar cannot be told apart on FAD (mn04)." in sentences
  assert compare.best_runs(columns, runs) == {"onset_f1_50": 0}


def with_onsets_described(path, change):
  """Changes the entry of the onset metric in results.json by a function."""
  content = json.loads(path.read_text())
  change(content["metrics"]["onset_f1_50"])
  path.write_text(json.dumps(content))
  return path


def test_a_better_sound_alone_is_not_called_in_time(tmp_path):
  path = write_results(tmp_path / "a", "diffusion", shift=0.2)
  assert "follows the video in time" in verdict(path)
  with_onsets_described(path, lambda entry: entry.update(judges_timing=False))
  text = verdict(path)
  assert "follows the video in time" not in text
  assert "no metric here shows that it is in time" in text


def test_in_time_needs_a_metric_that_tells_what_is_not(tmp_path):
  """A metric on which a metronome is as good as the true sound says nothing."""
  path = write_results(tmp_path / "a", "diffusion", shift=0.2, with_media=0)
  content = json.loads(path.read_text())
  for clip in content["clips"]:
    clip["scores"]["metronome"] = clip["scores"]["ground_truth"]
  path.write_text(json.dumps(content))
  text = verdict(path)
  assert "follows the video in time" not in text
  assert (
    "Nothing measured here can tell whether diffusion is in time: Onset F1 at"
    " 50 ms does not tell the true sound from noise, a metronome" in text
  )
  for row in list(content["rows"]):
    if row["name"] == "shifted":
      content["rows"].remove(row)
  path.write_text(json.dumps(content))
  assert "it has no row shifted" in verdict(path)


def test_the_first_line_says_what_is_not_known_and_why(tmp_path):
  path = write_results(
    tmp_path / "a",
    "ar",
    shift=-0.3,
    with_media=0,
    skipped={"kad": "no weights of mn04: v2a weights fetch mn04"},
  )
  run = load(path)
  sentences = compare.verdict([run], columns_of([run]))
  assert sentences[0].kind == "worse"
  assert sentences[0].text == (
    "In short: ar is not shown to follow the video; kad were not measured (why:"
    " below)."
  )
  assert sentences[-1].text == (
    "Not measured: kad: no weights of mn04: v2a weights fetch mn04."
  )


def test_the_first_line_says_how_many_clips_are_needed(tmp_path):
  """Clips that are told apart by any test, were there more of them."""
  metrics = {"onset_f1_50": METRICS["onset_f1_50"]}
  first = lambda *paths: verdict(*paths).partition(". ")[0]
  for clips, few in ((6, True), (7, False)):
    paths = [
      write_results(
        *(tmp_path / f"{name}{clips}", name),
        **dict(shift=shift, clips=clips, with_media=0, metrics=metrics),
      )
      for name, shift in (("a", 0.3), ("b", 0.9))
    ]
    # Two runs are compared with their shuffled videos together.
    text = first(*paths)
    words = "(6 clips are too few: with 2 comparisons 7 are needed)"
    assert (words in text) == few == ("is not shown to follow" in text)
    # One of six is enough for one comparison.
    assert "follows the video in time" in first(paths[0])
    assert "a and b differ on 1 of 1 metrics" in text
  alone = write_results(
    *(tmp_path / "c", "c"), clips=5, with_media=0, metrics=metrics
  )
  text = verdict(alone)
  assert "5 clips are too few: with one comparison 6 are needed" in text


def test_what_is_right_by_construction_wins_nothing(tmp_path):
  path = write_results(tmp_path / "a", "run", with_media=0)
  assert "Noise beats run" not in verdict(path)
  content = json.loads(path.read_text())
  for clip in content["clips"]:
    clip["scores"]["noise"]["onset_f1_50"] = 1.5
  path.write_text(json.dumps(content))
  assert "Noise beats run" in verdict(path)
  with_onsets_described(path, lambda entry: entry.update(role="sanity"))
  assert "Noise beats run" not in verdict(path)
  with_onsets_described(path, lambda entry: entry.update(role="shown"))
  assert "Onset F1" not in verdict(path)


def test_shares_begin_at_chance(tmp_path):
  """A run that is as good as with videos shuffled has gone no way at all."""
  run = load(write_results(tmp_path / "a", "run", with_media=0))
  columns = columns_of([run])
  entries = {
    name: row_of(run, name)["metrics"]["onset_f1_50"]
    for name in ("generated", "ground_truth", "shuffled_video")
  }
  for name, value in zip(entries, (0.4, 0.9, 0.4)):
    entries[name]["value"] = value
  texts = [s.text for s in compare.verdict([run], columns)]
  assert any("run comes 0 % on Onset F1" in text for text in texts)


def test_the_verdict_pools_counts_as_the_table_does(tmp_path):
  """A clip with many events counts as many clips with few."""
  paths = []
  for name, hits in (("one", (1, 40)), ("two", (2, 10))):
    path = write_results(tmp_path / name, name, with_media=0, clips=8)
    content = json.loads(path.read_text())
    entry = content["metrics"]["onset_f1_50"]
    entry["ratio"] = [{"hits": 2}, {"reference": 1, "detected": 1}]
    for i, clip in enumerate(content["clips"]):
      size = (2, 40)[i % 2]
      counts = {"hits": hits[i % 2], "reference": size, "detected": size}
      clip["counts"] = {"generated": {"onset_f1_50": counts}}
    path.write_text(json.dumps(content))
    paths.append(path)
  runs = loading.load_runs(paths)
  gaps = compare.compare_runs(runs, columns_of(runs))
  assert gaps[0, 1, "onset_f1_50"].value == pytest.approx((41 - 12) / 42)


def test_many_runs_are_ranked_in_a_line_a_metric(tmp_path):
  paths = [
    write_results(tmp_path / name, name, shift=shift, with_media=0)
    for name, shift in (("low", -0.2), ("high", 0.2), ("mid", 0.0))
  ]
  runs = loading.load_runs(paths)
  texts = [s.text for s in compare.verdict(runs, columns_of(runs))]
  assert any(
    text.startswith("Onset F1 at 50 ms, best first: high (0.8")
    and "beats 2), mid" in text
    for text in texts
  )
  assert "No run can be told from another on FAD (mn04)." in texts
  assert "3 of 3 pairs of runs differ" in texts[0]
  assert not any(" beats low on" in text for text in texts)


def test_a_metric_without_direction_is_shown_and_never_better(tmp_path):
  paths = [
    with_onsets_described(
      write_results(tmp_path / name, name, shift=shift, with_media=0),
      lambda entry: entry.update(higher_is_better=None),
    )
    for name, shift in (("one", 0.3), ("two", 0.0))
  ]
  runs = loading.load_runs(paths)
  columns = columns_of(runs)
  assert not compare.best_runs(columns, runs)
  sentences = [sentence.text for sentence in compare.verdict(runs, columns)]
  assert not any("Onset F1" in text for text in sentences)
  table = report_table.rows(runs, columns)
  markdown = report_table.as_markdown(columns, table)
  assert "| Onset F1 at 50 ms | FAD (mn04) \N{DOWNWARDS ARROW} |" in markdown
  assert table[0]["cells"][0]["value"] > 0.8


def test_direction_is_that_of_the_metric(tmp_path):
  low_fad = write_results(tmp_path / "a", "near", with_media=0)
  high_fad = write_results(tmp_path / "b", "far", with_media=0)
  runs = loading.load_runs([low_fad, high_fad])
  for run, value in zip(runs, (2.0, 30.0)):
    entry = row_of(run, "generated")["metrics"]["fad"]
    entry.update(value=value, low=value - 1, high=value + 1)
  columns = columns_of(runs)
  texts = [sentence.text for sentence in compare.verdict(runs, columns)]
  assert any(t.startswith("near beats far on FAD (mn04) by 28") for t in texts)
  assert compare.best_runs(columns, runs) == {"fad": 0}


def test_says_where_noise_does_better(tmp_path):
  run = load(write_results(tmp_path, "run", with_media=0))
  for clip in run["clips"]:
    clip["scores"]["noise"]["onset_f1_50"] = 1.5
  sentences = [s.text for s in compare.verdict([run], columns_of([run]))]
  assert any(
    text.startswith("Noise beats run on Onset F1") for text in sentences
  )


def test_equal_runs_cannot_be_told_apart(tmp_path):
  runs = loading.load_runs(
    [
      write_results(tmp_path / n, n, with_media=0, clips=12)
      for n in ("one", "two")
    ]
  )
  sentences = compare.verdict(runs, columns_of(runs))
  assert "one and two cannot be told apart." in sentences[0].text
  texts = [sentence.text for sentence in sentences]
  assert "one and two cannot be told apart on any metric." in texts


def test_other_sets_are_not_paired(results, tmp_path):
  other = write_results(
    tmp_path / "o",
    "other",
    with_media=0,
    set={"n": 12, "split": "test", "manifest_sha256": "c" * 64},
    failures=load(results[0])["failures"],
  )
  runs = [load(results[0]), load(other)]
  column = columns_of(runs)[0]
  gap = difference(column, (runs[0], "generated"), (runs[1], "generated"))
  assert gap.pairs == 0
  # Independent intervals of half width h give one of h sqrt(2).
  assert gap.high - gap.low == pytest.approx(2 * 0.05 * np.sqrt(2))
  assert any("same set" in t for t in compare.limits(runs, [column]))


def test_undefined_figures_are_shown_and_not_compared(results):
  runs = loading.load_runs(results)
  for run in runs:
    for clip in run["clips"]:
      clip["scores"] = {}
    entry = row_of(run, "generated")["metrics"]["onset_f1_50"]
    entry.update(value=None, low=None, high=None)
  columns = columns_of(runs)
  assert not compare.best_runs(columns, runs)
  row = report_table.rows(runs, columns)[0]
  assert row["cells"][0]["text"] == "n/a"


def test_what_worse_pictures_cost_is_tested_clip_by_clip(tmp_path):
  path = write_results(tmp_path / "a", "run", with_media=0, clips=16)
  content = json.loads(path.read_text())
  rng = np.random.default_rng(0)
  for row, lost in (("noisy_video", 0.2), ("slow_video", 0.0)):
    for clip in content["clips"]:
      own = clip["scores"]["generated"]["onset_f1_50"]
      value = own - lost + 0.02 * rng.normal()
      clip["scores"][row] = {"onset_f1_50": value}
    content["rows"].append({"name": row, "kind": "anchor", "metrics": {}})
  path.write_text(json.dumps(content))
  text = verdict(path)
  assert (
    "Given noisy pictures, run is worse on Onset F1 at 50 ms by 0.2" in text
  )
  assert "(paired, 16 clips, p < 0.001)" in text
  assert (
    "Given pictures of 5 frames a second, run cannot be told from itself."
    in text
  )
  assert "strongly compressed" not in text


def test_only_what_is_compared_is_said_to_be_compared_as_a_whole(results):
  """The distance has no parts of clips; in another role nobody compares it."""
  runs = loading.load_runs(results)
  said = lambda: " ".join(compare.limits(runs, columns_of(runs)))
  assert "FAD (mn04): a value of the whole set, compared" in said()
  for run in runs:
    run["metrics"] = run["metrics"] | {
      "fad": run["metrics"]["fad"] | {"role": "shown"}
    }
  assert "compared through intervals" not in said()
