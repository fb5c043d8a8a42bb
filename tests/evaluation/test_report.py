"""The report says what intervals allow, and opens without a network."""

import html.parser
import json
import re

import cv2
import numpy as np
import pytest
from report_results import METRICS, RATE, write_results

from v2a_jax.evaluation.report import compare, figures, series, slices
from v2a_jax.evaluation.report import page as report
from v2a_jax.evaluation.report import table as report_table
from v2a_jax.evaluation.report.columns import columns_of
from v2a_jax.evaluation.report.differences import difference, row_of
from v2a_jax.evaluation.results import read_curve


@pytest.fixture(scope="module")
def results(tmp_path_factory):
  root = tmp_path_factory.mktemp("results")
  failures = [{"id": "x<y", "reason": "NaN"}]
  return [
    write_results(root / "a", "diffusion", shift=0.2, failures=failures),
    write_results(root / "b", "ar", failures=failures),
  ]


def load(path):
  return report.load_runs([path])[0]


def test_the_folder_of_several_evaluations_is_read_whole(results):
  """`v2a eval A B -o DIR` leaves DIR/A and DIR/B."""
  folders = [run["folder"] for run in report.load_runs(results)]
  root = folders[0].parent
  assert [run["folder"] for run in report.load_runs([root])] == folders
  assert report.load_runs([folders[1]])[0]["folder"] == folders[1]
  with pytest.raises(FileNotFoundError, match="nothing: no such"):
    report.load_runs([root / "nothing"])


def test_names_a_difference_only_where_the_test_finds_it(results):
  runs = report.load_runs(results)
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


def verdict(*paths) -> str:
  runs = [load(path) for path in paths]
  sentences = compare.verdict(runs, columns_of(runs))
  return " ".join(sentence.text for sentence in sentences)


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
  runs = report.load_runs(paths)
  gaps = compare.compare_runs(runs, columns_of(runs))
  assert gaps[0, 1, "onset_f1_50"].value == pytest.approx((41 - 12) / 42)


def test_many_runs_are_ranked_in_a_line_a_metric(tmp_path):
  paths = [
    write_results(tmp_path / name, name, shift=shift, with_media=0)
    for name, shift in (("low", -0.2), ("high", 0.2), ("mid", 0.0))
  ]
  runs = report.load_runs(paths)
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
  runs = report.load_runs(paths)
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
  runs = report.load_runs([low_fad, high_fad])
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


def test_anchors_that_differ_name_their_run(results):
  runs = report.load_runs(results)
  row_of(runs[1], "codec")["metrics"]["fad"]["value"] = 1.5
  labels = [r["label"] for r in report_table.rows(runs, columns_of(runs))]
  assert "Codec reconstruction · diffusion" in labels
  assert "Codec reconstruction · ar" in labels
  assert labels.count("Ground truth") == 1


def test_equal_runs_cannot_be_told_apart(tmp_path):
  runs = report.load_runs(
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
  runs = report.load_runs(results)
  for run in runs:
    for clip in run["clips"]:
      clip["scores"] = {}
    entry = row_of(run, "generated")["metrics"]["onset_f1_50"]
    entry.update(value=None, low=None, high=None)
  columns = columns_of(runs)
  assert not compare.best_runs(columns, runs)
  row = report_table.rows(runs, columns)[0]
  assert row["cells"][0]["text"] == "n/a"


class Page(html.parser.HTMLParser):
  """The links, ids and text of a page."""

  def __init__(self, path):
    super().__init__()
    self.links, self.ids, self.text = [], set(), []
    self.feed(path.read_text())

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    self.ids.add(attrs.get("id"))
    self.links += [
      attrs[n] for n in ("src", "href", "poster", "data") if attrs.get(n)
    ]

  def handle_data(self, data):
    self.text.append(data)


def test_page_is_self_contained_and_complete(results, tmp_path):
  out = report.write_report(results, tmp_path / "report.html")
  page = Page(out)
  assert all(link.startswith(("#", "data:")) for link in page.links)
  assert all(
    link[1:] in page.ids for link in page.links if link.startswith("#")
  )
  text = " ".join(" ".join(page.text).split())
  for part in (
    "diffusion beats ar",
    "for 12:34, 900 steps, 28,800 clips seen",
    "Ground truth",
    "Shuffled video · ar",
    "model.name",
    "2 of 12 clips, from the worst to the best of diffusion by Onset F1 at 50 ms",
    "x<y",
  ):
    assert part in text, part
  assert (
    "batch_size"
    not in text.split("Settings that differ")[1].split("Failures")[0]
  )
  assert "://" not in re.sub(r"data:[^\"]*", "", out.read_text())
  markdown = out.with_suffix(".md").read_text()
  assert "| diffusion | 12 | **0.8" in markdown
  assert "diffusion beats ar" in markdown


def test_ground_truth_that_runs_share_is_one_row_and_one_track(results):
  runs = report.load_runs(results)
  columns = columns_of(runs)
  labels = [row["label"] for row in report_table.rows(runs, columns)]
  assert labels[:2] == ["diffusion", "ar"]
  assert labels.count("Ground truth") == 1
  clip = report.gallery_lib.collect(
    runs, columns, labels=report_table.ROW_LABELS, max_clips=1
  )[0]
  names = [track.label for track in clip.tracks]
  assert names[:3] == ["Ground truth", "diffusion", "ar"]
  assert names.count("Ground truth") == 1


def test_the_gallery_goes_from_the_worst_clip_to_the_best(tmp_path):
  results = [write_results(tmp_path / "a", "a", clips=5, with_media=5)]
  runs = report.load_runs(results)
  columns = columns_of(runs)
  scores = {
    clip["id"]: clip["scores"]["generated"]["onset_f1_50"]
    for clip in runs[0]["clips"]
  }
  for number in (5, 3):
    clips = report.gallery_lib.collect(
      runs, columns, labels=report_table.ROW_LABELS, max_clips=number
    )
    found = [scores[clip.id] for clip in clips]
    assert found == sorted(found) and len(found) == number
    assert (found[0], found[-1]) == (min(scores.values()), max(scores.values()))
    assert all(clip.poster.startswith("data:image/webp") for clip in clips)


def test_media_go_beside_a_page_that_would_be_too_large(results, tmp_path):
  out = report.write_report(results, tmp_path / "r.html", max_bytes=1000)
  data = re.search(r'id="data">(.*?)</script>', out.read_text())[1]
  sources = json.loads(data)["clips"][0]
  assert (tmp_path / sources["video"]).stat().st_size > 0
  assert all((tmp_path / track).exists() for track in sources["tracks"])
  assert "r_media" in out.read_text()


def test_text_cannot_break_out_of_the_page(tmp_path):
  name = "</script><img src=x onerror=alert(1)>"
  path = write_results(tmp_path, name, with_media=1, clips=2)
  out = report.write_report([path], tmp_path / "r.html")
  assert "<img src=x" not in out.read_text()


def test_media_outside_the_results_folder_are_refused(tmp_path):
  path = write_results(tmp_path / "in", "run", with_media=1, clips=1)
  (tmp_path / "secret.m4a").write_bytes(b"secret")
  results = json.loads(path.read_text())
  results["clips"][0]["audio"]["codec"] = "../secret.m4a"
  results["clips"][0]["audio"]["silence"] = "media/missing.m4a"
  path.write_text(json.dumps(results))
  text = report.write_report([path], tmp_path / "r.html").read_text()
  assert "outside the results" in text and "c2VjcmV0" not in text
  assert "media/missing.m4a: no such file" in text


def test_refuses_what_is_no_results_file(tmp_path):
  with pytest.raises(ValueError, match="no results given"):
    report.write_report([], tmp_path / "r.html")
  with pytest.raises(ValueError, match="must end in .html, not r.md"):
    report.write_report(["x"], tmp_path / "r.md")
  with pytest.raises(FileNotFoundError, match="v2a eval"):
    report.write_report([tmp_path / "none.json"], tmp_path / "r.html")
  bad = tmp_path / "bad.json"
  bad.write_text("{")
  with pytest.raises(ValueError, match="bad.json is not JSON"):
    report.write_report([bad], tmp_path / "r.html")
  bad.write_text('{"schema": 1}')
  with pytest.raises(ValueError, match="schema 1, not 2"):
    report.write_report([bad], tmp_path / "r.html")


def test_config_differences_are_only_those():
  one = {"a": {"b": 1, "c": 2}, "d": [1, 2]}
  two = {"a": {"b": 1, "c": 3}, "d": [1, 2], "e": None}
  assert report.config_differences([one, two]) == [
    ("a.c", ["2", "3"]),
    ("e", ["–", "null"]),
  ]


def test_spectrogram_shows_a_tone_at_its_height():
  t = np.arange(RATE) / RATE
  tone = np.sin(2 * np.pi * 632.0 * t).astype(np.float32)

  def brightness(data):
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return image.mean(axis=2)

  image = brightness(figures.spectrogram(tone, RATE))
  assert image.shape == (72, 480)
  # 632 Hz is the geometric mean of 50 Hz and 8 kHz.
  assert abs(image.mean(1).argmax() - 36) <= 1
  quiet = figures.spectrogram(np.zeros(RATE, np.float32), RATE)
  assert brightness(quiet).max() < image.max() / 3 and len(quiet) < 2000


def test_validation_loss_is_drawn_however_long_the_training(tmp_path):
  """Both weights' losses come after the training loss, and none is lost."""
  rows = []
  for step in range(1, 5001):
    rows.append({"step": step, "train/loss": 1.0, "train/grad_norm": 2.0})
    if step % 1000 == 0:
      losses = {f"loss_time_{i}": 0.1 * i for i in range(4)} | {"loss": 0.5}
      for weights in ("eval", "eval_mean"):
        row = {f"{weights}/{name}": value for name, value in losses.items()}
        rows.append({"step": step} | row)
  lines = "".join(json.dumps(row) + "\n" for row in rows)
  (tmp_path / "metrics.jsonl").write_text(lines)
  curve = read_curve(tmp_path)
  steps = [row["step"] for row in curve if "eval_mean/loss" in row]
  assert steps == [1000, 2000, 3000, 4000, 5000]
  assert sum("train/loss" in row for row in curve) <= 401
  folder = write_results(tmp_path / "a", "diffusion", curve=curve)
  html_page = report.write_report([folder], tmp_path / "r.html").read_text()
  drawn = re.findall("<figcaption>([a-z_]+/[a-z_0-9]+)<", html_page)
  assert drawn[:3] == ["train/loss", "eval/loss", "eval_mean/loss"]
  assert {f"eval_mean/loss_time_{i}" for i in range(4)} <= set(drawn)


def test_a_row_at_no_step_is_not_drawn(tmp_path):
  curve = [{"step": s, "train/loss": 1.0 / (s + 1)} for s in range(3)]
  folder = write_results(tmp_path / "a", "diffusion", curve=curve)
  page = report.write_report([folder], tmp_path / "r.html")
  before = re.findall("<polyline.*?>", page.read_text())
  curve.append({"step": float("inf"), "train/loss": 0.5})
  folder = write_results(tmp_path / "a", "diffusion", curve=curve)
  page = report.write_report([folder], tmp_path / "r.html")
  assert before and re.findall("<polyline.*?>", page.read_text()) == before


def test_the_page_says_where_the_time_of_training_went(tmp_path):
  row = {"goodput/step_seconds": 80.0, "goodput/data_seconds": 5.0}
  row |= {"goodput/total_seconds": 100.0, "goodput/step_fraction": 0.8}
  row |= {"goodput/starts": 2, "goodput/steps_again": 12}
  curve = [{"step": 1, "train/loss": 1.0} | row, {"step": 2, "eval/loss": 1.0}]
  folder = write_results(tmp_path / "a", "diffusion", curve=curve)
  page = report.write_report([folder], tmp_path / "r.html").read_text()
  assert (
    "step 80.0 %, data 5.0 %, other 15.0 %; 2 starts, 12 steps done again"
  ) in page


def test_curves_keep_extremes_and_average_the_rest():
  points = [(step, float(step % 7)) for step in range(5000)]
  curve = figures.Curve.of("run", 0, points)
  assert len(curve.x) <= 240
  assert curve.y.mean() == pytest.approx(3.0, abs=0.05)
  svg = figures.curves_svg("a & b", [curve])
  assert svg.startswith("<svg") and "a &amp; b" in svg


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("place", [0, 7, 1e17])
def test_a_curve_of_one_point_is_a_dot_in_the_middle(place):
  curve = figures.Curve.of("run", 0, [(place, 0.5)])
  svg = figures.curves_svg("score", [curve])
  left, right = 46, 410  # of the axis
  (across,) = re.findall(r'<circle[^>]* cx="([\d.]+)"', svg)
  assert float(across) == pytest.approx((left + right) / 2, abs=1)
  assert "nan" not in svg


def test_places_less_than_one_apart_fill_the_axis():
  curve = figures.Curve.of("run", 0, [(0.1, 1.0), (0.3, 2.0)])
  svg = figures.curves_svg("score", [curve])
  (points,) = re.findall(r'points="([^"]+)"', svg)
  assert [float(p.partition(",")[0]) for p in points.split()] == [46, 410]


def test_parts_of_the_set_are_scored_by_class_and_speech(tmp_path):
  path = write_results(tmp_path / "a", "run", with_media=0, clips=14)
  content = json.loads(path.read_text())
  for i, clip in enumerate(content["clips"]):
    clip["label"] = ("dog", "<drum>")[i < 6] if i < 12 else "rare"
  path.write_text(json.dumps(content))
  run = load(path)
  columns, parts = slices.slices([run], columns_of([run]), colours=6)
  assert [column.id for column in columns] == ["onset_f1_50"]
  assert [(part.name, part.n) for part in parts] == [
    *(("<drum>", 6), ("dog", 6)),
    *(("with speech", 7), ("without speech", 7)),
  ]
  scores = [c["scores"]["generated"]["onset_f1_50"] for c in run["clips"][:6]]
  assert float(parts[0].cells[0].text) == pytest.approx(
    np.mean(scores), abs=0.01
  )
  page = report.write_report([path], tmp_path / "r.html")
  assert "&lt;drum&gt;" in page.read_text()
  assert "| dog | run | 6 | 0." in page.with_suffix(".md").read_text()


def test_parts_of_the_set_are_what_is_heard_and_in_sight(tmp_path):
  path = write_results(tmp_path / "a", "run", with_media=0, clips=16)
  content = json.loads(path.read_text())
  for i, clip in enumerate(content["clips"]):
    clip["transcript"] = "one two" if i < 4 else ""
    clip["heard"] = {"speech": i < 5, "music": i >= 12}
    clip["on_screen"] = None if i < 2 else 3 * (i % 4 > 0)
    clip["off_screen"] = None if i < 2 else i % 2
  path.write_text(json.dumps(content))
  run = load(path)
  _, parts = slices.slices([run], columns_of([run]), colours=6)
  found = {part.name: part.n for part in parts}
  assert found == {
    "with speech": 5,
    "without speech": 11,
    "with music": 4,
    "effects alone": 7,
    "all in sight": 4,
    "some out of sight": 7,
  }
  scores = [
    clip["scores"]["generated"]["onset_f1_50"] for clip in run["clips"][12:]
  ]
  (music,) = (part for part in parts if part.name == "with music")
  assert float(music.cells[0].text) == pytest.approx(np.mean(scores), abs=0.01)


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


def test_parts_of_the_set_are_halved_by_duration_and_motion(tmp_path):
  path = write_results(tmp_path / "a", "run", with_media=0, clips=12)
  content = json.loads(path.read_text())
  for i, clip in enumerate(content["clips"]):
    clip["duration"] = 4.0 if i < 8 else 2.5
    clip["motion_rate"] = None if i < 2 else 0.5 * i
    clip["transcript"] = ""
    clip["scores"]["generated"]["onset_f1_50"] = i / 12
  path.write_text(json.dumps(content))
  run = load(path)
  _, parts = slices.slices([run], columns_of([run]), colours=6)
  assert {part.name: part.n for part in parts} == {
    "without speech": 12,
    "up to 2.5 s long": 4,
    "over 2.5 s long": 8,
    "up to 3 motion peaks a second": 5,
    "over 3 motion peaks a second": 5,
  }
  # Later clips score higher: short ones and lively ones are among them.
  shades = {part.name: part.cells[0].shade for part in parts}
  assert shades["up to 2.5 s long"] == 1.0 and shades["over 2.5 s long"] < 0.5
  lively, still = (
    "over 3 motion peaks a second",
    "up to 3 motion peaks a second",
  )
  assert shades[lively] == 0.75 and shades[still] < shades["without speech"]
  page = report.write_report([path], tmp_path / "r.html").read_text()
  assert 'class="number heat" style="--shade: 1.0"' in page


def test_scores_are_drawn_over_the_steps_of_a_run(tmp_path):
  """From three checkpoints on; the points are the model's scores."""
  for i, step in enumerate((100, 300, 200)):
    checkpoint = {"path": "runs/a", "step": step}
    write_results(
      tmp_path / str(step), f"a {step}", shift=0.1 * i, checkpoint=checkpoint
    )
  runs = report.load_runs([tmp_path])
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
  runs = report.load_runs([tmp_path])
  found = series.plots(runs, columns_of(runs), colours=8)
  assert {plot["over"] for plot in found} == {"num_steps"}
  # Which of two settings a change comes from cannot be drawn.
  run("g4", num_steps=32, guidance={"video": 4.0})
  runs = report.load_runs([tmp_path])
  found = series.plots(runs, columns_of(runs), colours=8)
  assert [plot["svg"].count('class="whisker') for plot in found] == [3, 3]
  # With a second line of three, each has its own setting in its name.
  for steps in (8, 16):
    run(f"g4_{steps}", num_steps=steps, guidance={"video": 4.0})
  runs = report.load_runs([tmp_path])
  found = series.plots(runs, columns_of(runs), colours=8)
  assert [plot["over"] for plot in found] == ["num_steps"] * 2
  names = [name for _, name in found[0]["legend"]]
  assert len(names) == 2
  assert all(" guidance.video " in name for name in names)
  page = report.write_report([tmp_path], tmp_path / "page.html").read_text()
  assert names[0] in page and names[1] in page


def test_only_what_is_compared_is_said_to_be_compared_as_a_whole(results):
  """The distance has no parts of clips; in another role nobody compares it."""
  runs = report.load_runs(results)
  said = lambda: " ".join(compare.limits(runs, columns_of(runs)))
  assert "FAD (mn04): a value of the whole set, compared" in said()
  for run in runs:
    run["metrics"] = run["metrics"] | {
      "fad": run["metrics"]["fad"] | {"role": "shown"}
    }
  assert "compared through intervals" not in said()


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path):
  """As those of a sweep, whose folders say what was changed."""
  names = ("00_lr_0.001", "01_lr_0.0003")
  for name in names:
    for scale in ("guidance_1", "guidance_3"):
      write_results(tmp_path / "eval" / name / scale, "tiny", with_media=0)
  write_results(tmp_path / "other", "other", with_media=0)
  paths = [tmp_path / "eval" / name for name in names]
  page = report.write_report([*paths, tmp_path / "other"], tmp_path / "a.html")
  text = page.read_text()
  for name in names:
    assert f"tiny ({name}/guidance_1)" in text
  assert "other (" not in text
  # Where only one part differs, that is the name.
  runs = report.load_runs([path / "guidance_1" for path in paths])
  assert [run["name"] for run in runs] == [f"tiny ({name})" for name in names]
  # The same results twice have nothing else.
  runs = report.load_runs([paths[0] / "guidance_1"] * 2)
  assert [run["name"] for run in runs] == ["tiny (1)", "tiny (2)"]
