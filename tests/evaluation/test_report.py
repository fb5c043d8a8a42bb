"""The page opens without a network, and shows what results hold."""

import csv
import html.parser
import json
import re

import pytest
from report_results import two_runs, write_results

from v2a_jax.evaluation.report import (
  facts,
  gallery,
  loading,
)
from v2a_jax.evaluation.report import page as report
from v2a_jax.evaluation.report import table as report_table
from v2a_jax.evaluation.report.columns import columns_of
from v2a_jax.evaluation.report.differences import row_of
from v2a_jax.evaluation.results import read_curve


@pytest.fixture(scope="module")
def results(tmp_path_factory):
  return two_runs(tmp_path_factory.mktemp("results"))


def test_the_folder_of_several_evaluations_is_read_whole(results):
  """`v2a eval A B -o DIR` leaves DIR/A and DIR/B."""
  folders = [run["folder"] for run in loading.load_runs(results)]
  root = folders[0].parent
  assert [run["folder"] for run in loading.load_runs([root])] == folders
  assert loading.load_runs([folders[1]])[0]["folder"] == folders[1]
  with pytest.raises(FileNotFoundError, match="nothing: no such"):
    loading.load_runs([root / "nothing"])


def test_anchors_that_differ_name_their_run(results):
  runs = loading.load_runs(results)
  row_of(runs[1], "codec")["metrics"]["fad"]["value"] = 1.5
  labels = [r["label"] for r in report_table.rows(runs, columns_of(runs))]
  assert "Codec reconstruction · diffusion" in labels
  assert "Codec reconstruction · ar" in labels
  assert labels.count("Ground truth") == 1


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


def test_the_table_is_a_file_of_numbers_beside_the_page(tmp_path):
  path = write_results(tmp_path / "a", "run", with_media=0)
  out = report.write_report([path], tmp_path / "r.html")
  with open(out.with_suffix(".csv"), newline="") as file:
    rows = [*csv.DictReader(file)]
  (fad,) = (
    r for r in rows if (r["row"], r["metric"]) == ("Ground truth", "fad")
  )
  assert float(fad["low"]) < float(fad["value"]) < float(fad["high"])


def test_ground_truth_that_runs_share_is_one_row_and_one_track(results):
  runs = loading.load_runs(results)
  columns = columns_of(runs)
  labels = [row["label"] for row in report_table.rows(runs, columns)]
  assert labels[:2] == ["diffusion", "ar"]
  assert labels.count("Ground truth") == 1
  clip = gallery.collect(
    runs, columns, labels=report_table.ROW_LABELS, max_clips=1
  )[0]
  names = [track.label for track in clip.tracks]
  assert names[:3] == ["Ground truth", "diffusion", "ar"]
  assert names.count("Ground truth") == 1


def test_the_gallery_goes_from_the_worst_clip_to_the_best(tmp_path):
  results = [write_results(tmp_path / "a", "a", clips=5, with_media=5)]
  runs = loading.load_runs(results)
  columns = columns_of(runs)
  scores = {
    clip["id"]: clip["scores"]["generated"]["onset_f1_50"]
    for clip in runs[0]["clips"]
  }
  for number in (5, 3):
    clips = gallery.collect(
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
  whole = json.loads(
    write_results(tmp_path / "a", "a", with_media=0).read_text()
  )
  for name, value in (("metrics", []), ("set", None), ("curve", {})):
    bad.write_text(json.dumps(whole | {name: value}))
    with pytest.raises(ValueError, match=f"{name} missing or of another type"):
      report.write_report([bad], tmp_path / "r.html")
  bad.write_text(json.dumps(whole | {"rows": {"name": "x"}, "clips": [{}]}))
  with pytest.raises(ValueError, match="rows missing"):
    report.write_report([bad], tmp_path / "r.html")
  bad.write_text(json.dumps(whole | {"clips": [{}]}))
  with pytest.raises(ValueError, match="something is missing"):
    report.write_report([bad], tmp_path / "r.html")


def test_config_differences_are_only_those():
  one = {"a": {"b": 1, "c": 2}, "d": [1, 2]}
  two = {"a": {"b": 1, "c": 3}, "d": [1, 2], "e": None}
  assert facts.config_differences([one, two]) == [
    ("a.c", ["2", "3"]),
    ("e", ["–", "null"]),
  ]


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
  runs = loading.load_runs([path / "guidance_1" for path in paths])
  assert [run["name"] for run in runs] == [f"tiny ({name})" for name in names]
  # The same results twice have nothing else.
  runs = loading.load_runs([paths[0] / "guidance_1"] * 2)
  assert [run["name"] for run in runs] == ["tiny (1)", "tiny (2)"]
