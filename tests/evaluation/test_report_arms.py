"""Runs that differ in their training seed alone are one row of the report."""

import json
import re

import numpy as np
import pytest
from report_results import write_results
from scipy import stats

from v2a_jax.evaluation import training_seeds
from v2a_jax.evaluation.report import arms as arms_lib
from v2a_jax.evaluation.report import compare, loading, series, slices, table
from v2a_jax.evaluation.report import page as report
from v2a_jax.evaluation.report.columns import columns_of

CLIPS = 30
SEEDS = 3


def write_arm(root, name, *, shift, apart, config=None, seeds=SEEDS, **over):
  """Writes runs of an arm whose scores are `shift`, and `apart` by seed."""
  places = np.linspace(-1, 1, seeds) if seeds > 1 else [0]
  return [
    write_results(
      root / f"arm={name},seed={seed}",
      name,
      shift=shift + apart * place,
      clips=CLIPS,
      with_media=0,
      config={"width": name, "seed": seed, **(config or {})},
      **over,
    )
    for seed, place in enumerate(places)
  ]


def arms(paths):
  runs = loading.load_runs(paths)
  columns = columns_of(runs)
  return arms_lib.arms_of(runs, columns), columns


def texts(paths) -> str:
  found, columns = arms(paths)
  return "\n".join(s.text for s in compare.verdict(found, columns))


def test_three_seeds_are_one_row_whose_interval_holds_their_spread(tmp_path):
  paths = write_arm(tmp_path, "a", shift=0.0, apart=0.1)
  (arm,), columns = arms(paths)
  own = arms([paths[1]])[0][0]
  row, alone = (table.rows([of], columns)[0]["cells"][0] for of in (arm, own))
  assert row["value"] == pytest.approx(alone["value"])
  # The seeds are 0.1 apart: by clips 0.05, by seeds t(2) * 0.1 / sqrt(3).
  half = np.hypot(0.05, 4.303 * 0.1 / np.sqrt(3))
  assert row["high"] - row["value"] == pytest.approx(half, rel=1e-3)
  labels = [r["label"] for r in table.rows([arm], columns)]
  assert labels[:2] == ["a", "Ground truth"]
  assert table.rows([arm], columns)[0]["n"] == "3 seeds × 30 clips"


def test_seeds_that_differ_much_name_no_winner(tmp_path):
  """As many clips as one likes say nothing of other seeds."""
  first = write_arm(tmp_path, "a", shift=0.2, apart=0.15)
  second = write_arm(tmp_path, "b", shift=0.0, apart=0.15)
  assert "a beats b on Onset F1" in texts([first[1], second[1]])
  assert "cannot be told apart on any metric" in texts(first + second)


def test_settings_of_the_same_models_are_compared_model_by_model(tmp_path):
  """All models gain as much by guidance, however far they are apart."""

  def write(scale, paths):
    for path in write_arm(
      tmp_path / f"{scale}",
      "a",
      shift=0.1 * scale,
      apart=0.15,
      sampler={"guidance": {"video": scale}},
    ):
      content = json.loads(path.read_text())
      seed = content["config"]["seed"]
      content["checkpoint"]["path"] = paths.format(seed=seed, scale=scale)
      path.write_text(json.dumps(content))

  for paths, apart in (("runs/{seed}", True), ("runs/{seed}/{scale}", False)):
    for scale in (1, 2):
      write(scale, paths)
    text = texts([tmp_path / "1", tmp_path / "2"])
    assert ("a (2) beats a (1) on Onset F1" in text) == apart


def test_seeds_that_are_alike_name_one(tmp_path):
  first = write_arm(tmp_path, "a", shift=0.2, apart=0.01)
  second = write_arm(tmp_path, "b", shift=0.0, apart=0.01)
  text = texts(first + second)
  assert "a beats b on Onset F1 at 50 ms by 0.200" in text
  assert "paired, 30 clips, 3 seeds" in text
  assert "each of a and b follows the video in time" in text


def test_an_arm_of_one_seed_is_taken_to_vary_as_the_other(tmp_path):
  first = write_arm(tmp_path, "a", shift=0.2, apart=0.15)
  second = write_arm(tmp_path, "b", shift=0.0, apart=0, seeds=1)
  assert "cannot be told apart on any metric" in texts(first + second)
  found, columns = arms(first + second)
  assert any(
    "b: one training seed" in t for t in compare.limits(found, columns)
  )


@pytest.mark.parametrize(
  "over",
  [
    {"sampler": {"num_steps": 8}},
    {"identity": {"noise seed": 1}},
    {"set": {"n": CLIPS, "split": "val", "manifest_sha256": "b" * 64}},
    {"config": {"batch_size": 8}},
  ],
)
def test_runs_that_differ_in_more_are_no_arm(over, tmp_path):
  paths = write_arm(tmp_path, "a", shift=0.0, apart=0.1, seeds=2)
  paths += write_arm(
    tmp_path / "x", "a", shift=0.0, apart=0.1, seeds=3, **over
  )[2:]
  sizes = [len(group) for group in arms_lib.groups(loading.load_runs(paths))]
  assert sizes == [2, 1]


def test_each_checkpoint_is_an_arm_and_a_seed_counts_once(tmp_path):
  paths = [
    *write_arm(tmp_path / "1", "a", shift=0, apart=0.1),
    *write_arm(
      tmp_path / "2", "a", shift=0, apart=0.1, checkpoint={"step": 100}
    ),
  ]
  found, _ = arms(paths)
  assert [len(arm["models"]) for arm in found] == [3, 3]
  assert [arm["name"] for arm in found] == ["a (1)", "a (2)"]
  # Two evaluations of one model are not two models.
  found, _ = arms([*paths[:3], paths[0]])
  assert len(found) == 4 and not any("models" in arm for arm in found)


def test_an_arm_follows_its_video_if_its_models_do(tmp_path):
  """Said of these models: that they are far apart does not matter."""
  text = texts(write_arm(tmp_path, "a", shift=0.0, apart=0.15))
  assert "a follows the video in time: it beats itself" in text
  assert "by 0.291" in text and "paired, 30 clips, p < 0.001" in text


def test_the_page_shows_arms_and_each_seed(tmp_path):
  paths = write_arm(tmp_path, "a", shift=0.2, apart=0.01)
  paths += write_arm(tmp_path, "b", shift=0.0, apart=0.01)
  out = report.write_report(paths, tmp_path / "r.html")
  text = re.sub(r"<[^>]+>|\s+", " ", out.read_text())
  assert "a vs b · evaluation report" in text.replace("  ", " ")
  markdown = out.with_suffix(".md").read_text()
  assert "| a | 3 seeds × 30 clips | **0.79" in markdown
  for part in ("Each training seed by itself", "a, seed 0", "b, seed 2"):
    assert part in text and part in markdown
  assert "a: one training seed" not in text
  assert "a and b: mean of 3 training seeds" in text


def test_parts_of_the_set_are_over_seeds_too(tmp_path):
  paths = write_arm(tmp_path, "a", shift=0.0, apart=0.2)
  found, columns = arms(paths)
  _, parts = slices.slices(found, columns, colours=6)
  _, single = slices.slices([found[0]["models"][1]], columns, colours=6)
  widths = [
    [
      np.ptp([float(x.strip("[]").replace("−", "-")) for x in ends.split(", ")])
      for part in of
      for ends in [part.cells[0].interval]
    ]
    for of in (parts, single)
  ]
  assert len(widths[0]) == len(widths[1]) == 2
  assert np.all(np.array(widths[0]) > 3 * np.array(widths[1]))


def test_the_interval_of_alike_models_is_that_of_their_clips():
  """Models that differ by chance of clips alone add little for seeds."""
  rng = np.random.default_rng(0)
  scores = rng.normal(size=(1, 200)) + 0.1 * rng.normal(size=(4, 200))
  scores -= scores.mean(1, keepdims=True)  # Nothing is left between them.
  terms = np.stack([scores, np.ones_like(scores)], -1)[:, :, None]
  found, p = training_seeds.estimate([training_seeds.Arm(terms)])
  error = scores.mean(0).std(ddof=1) / np.sqrt(200)
  assert found.high - found.low == pytest.approx(2 * 1.97 * error, rel=0.05)
  assert p == pytest.approx(1, abs=1e-6)


def test_without_chance_of_clips_the_test_is_welchs_of_the_seeds():
  values = np.array([[0.1, 0.5, 0.4], [0.7, 0.8, 1.3]])
  scores = np.repeat(values[..., None], 20, -1)
  terms = np.stack([scores, np.ones_like(scores)], -1)[..., None, :]
  arms_ = [training_seeds.Arm(t, (s,)) for t, s in zip(terms, (1, -1))]
  found, p = training_seeds.estimate(arms_)
  welch = stats.ttest_ind(*values, equal_var=False)
  assert p == pytest.approx(welch.pvalue)
  ends = welch.confidence_interval()
  assert (found.low, found.high) == pytest.approx((ends.low, ends.high))


def test_equal_models_do_not_differ_by_rounding():
  counts = np.random.default_rng(0).integers(1, 9, (1, 11, 1, 2)) / 3.0
  terms = np.repeat(counts, 3, 0)
  arms_ = [training_seeds.Arm(terms), training_seeds.Arm(terms[:, ::-1], (-1,))]
  found, p = training_seeds.estimate(arms_)
  assert abs(found.value) < 1e-9 and p == pytest.approx(1, abs=1e-6)


def test_an_interval_ends_where_the_metric_does(tmp_path):
  paths = write_arm(tmp_path, "a", shift=0.0, apart=0.1)
  for i, path in enumerate(paths):
    content = json.loads(path.read_text())
    for k, clip in enumerate(content["clips"]):
      clip["scores"]["generated"]["onset_f1_50"] = float(k < 8 * i)
    entry = content["rows"][0]["metrics"]["onset_f1_50"]
    value = 8 * i / CLIPS
    entry |= {"value": value, "low": value - 0.1, "high": value + 0.1}
    content["metrics"]["onset_f1_50"]["bounds"] = [0.0, None]
    path.write_text(json.dumps(content))
  (arm,), columns = arms(paths)
  cell = table.rows([arm], columns)[0]["cells"][0]
  assert cell["value"] == pytest.approx(8 / CLIPS)
  assert cell["low"] == 0 and cell["high"] < 1


def test_few_clips_name_nothing():
  terms = np.ones((3, 5, 1, 2)) + np.arange(5)[None, :, None, None] * [0.01, 0]
  _, p = training_seeds.estimate([training_seeds.Arm(terms)])
  assert p == 1


def test_results_without_intervals_have_none_together(tmp_path):
  paths = write_arm(tmp_path, "a", shift=0.0, apart=0.1)
  for path in paths:
    content = json.loads(path.read_text())
    for row in content["rows"]:
      row["metrics"]["fad"] |= {"low": None, "high": None}
    path.write_text(json.dumps(content))
  (arm,), columns = arms(paths)
  cell = table.rows([arm], columns)[0]["cells"][1]
  assert cell["text"] != "n/a" and cell["interval"] == ""


def test_scores_over_guidance_are_a_line_an_arm(tmp_path):
  """With intervals that hold the seeds."""
  for name in ("a", "b"):
    for scale in (1.0, 2.0, 3.0):
      write_arm(
        tmp_path / f"{scale}",
        name,
        shift=0.05 * scale,
        apart=0.1,
        sampler={"num_steps": 16, "guidance": {"video": scale}},
        checkpoint={"path": f"runs/{name}", "step": 9},
      )
  paths = [tmp_path / f"{scale}" for scale in (1.0, 2.0, 3.0)]
  found, columns = arms(paths)
  assert [len(arm["models"]) for arm in found] == [3] * 6
  f1, _ = series.plots(found, columns, colours=6)
  assert f1["over"] == "guidance.video"
  assert len(f1["legend"]) == 2
  heights = [
    float(y2) - float(y1)
    for y1, y2 in re.findall(
      r'whisker[^>]* y1="([\d.]+)"[^>]* y2="([\d.]+)"', f1["svg"]
    )
  ]
  lines = re.findall(r'points="([^"]+)"', f1["svg"])
  x, y = np.array([p.split(",") for p in lines[0].split()], float).T
  # From one scale to the next 0.05; half an interval is 0.253.
  assert len(heights) == 6
  ratio = np.abs(heights) / np.abs(np.diff(y)[0])
  assert ratio == pytest.approx([2 * 0.253 / 0.05] * 6, rel=0.05)
