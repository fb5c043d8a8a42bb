"""The report says what intervals allow, and opens without a network."""

import html.parser
import json
import pathlib
import re

import numpy as np
import pytest

from v2a_jax import media
from v2a_jax.evaluation.report import compare, figures
from v2a_jax.evaluation.report import page as report
from v2a_jax.evaluation.report import table as report_table

RATE = 16_000
SECONDS = 2.0
METRICS = {
  "onset_f1_50": {
    "label": "Onset F1 at 50 ms",
    "unit": "",
    "higher_is_better": True,
    "about": "Harmonic mean of precision and recall of onsets.",
  },
  "fad": {
    "label": "FAD (mn04)",
    "unit": "",
    "higher_is_better": False,
    "about": "Fréchet distance of EfficientAT mn04 embeddings.",
  },
}
ROWS = {
  "generated": 0.6,
  "ground_truth": 0.95,
  "codec": 0.9,
  "shuffled_video": 0.3,
  "silence": 0.0,
  "noise": 0.1,
}


def write_media(folder: pathlib.Path, clip: str, rows, events, seed: int):
  """A ball that flashes at the events, and sounds that nearly follow."""
  (folder / "media").mkdir(parents=True, exist_ok=True)
  frames = np.full((16, 48, 64, 3), 30, np.uint8)
  for event in events:
    frames[int(event * 8)] = (240, 180, 60)
  video = folder / "media" / f"{clip}.mp4"
  media.encode_video(frames, fps=8.0, path=video)
  rng = np.random.default_rng(seed)
  t = np.arange(int(SECONDS * RATE)) / RATE
  paths = {}
  for i, row in enumerate(rows):
    x = 1e-3 * rng.standard_normal(len(t))
    for event in events:
      after = t - event - 0.02 * i
      x += (
        (after > 0)
        * np.exp(-9 * np.clip(after, 0, None))
        * 0.4
        * (np.sin(2 * np.pi * (300 + 200 * i) * after))
      )
    path = folder / "media" / f"{clip}.{row}.m4a"
    media.encode_audio(path, x[:, None].astype(np.float32), RATE)
    paths[row] = str(path.relative_to(folder))
  return str(video.relative_to(folder)), paths


def write_results(
  folder: pathlib.Path, name: str, *, shift=0.0, clips=12, with_media=2, **over
) -> pathlib.Path:
  """results.json of a made-up run whose every score is `shift` higher."""
  rng = np.random.default_rng(0)
  rows = {row: rng.normal(v, 0.08, clips) for row, v in ROWS.items()}
  rows["generated"] = rows["generated"] + shift
  entries = []
  for i in range(clips):
    events = [0.3, 1.1 + 0.05 * (i % 5)]
    clip = f"clip_{i:03d}"
    video, audio = "", {}
    if i < with_media:
      kept = ["generated", "ground_truth", "codec", "shuffled_video"]
      video, audio = write_media(folder, clip, kept, events, i)
    scores = {
      row: {"onset_f1_50": float(values[i])} for row, values in rows.items()
    }
    entries.append(
      {
        "id": clip,
        "caption": f"A ball strikes bar {i} & rings",
        "transcript": "bin blue at f two now" if i % 2 else "",
        "duration": SECONDS,
        "video": video,
        "audio": audio,
        "events": events,
        "scores": scores,
      }
    )
  results = {
    "schema": 1,
    "name": name,
    "created": "2026-11-20T10:00:00+00:00",
    "wall_seconds": 61.2,
    "checkpoint": {
      "path": f"runs/{name}/checkpoints/900",
      "step": 900,
      "sha256": "0" * 64,
      "train_seconds": 754.0,
      "clips_seen": 28_800,
    },
    "config": {
      "model": {"width": 192, "name": name},
      "seed": 0,
      "batch_size": 32,
    },
    "sampler": {"num_steps": 16, "guidance_scale": 2.0},
    "code": {"git": "a" * 40, "versions": {"jax": "0.10.2"}},
    "set": {
      "path": "data/scenes",
      "split": "test",
      "n": clips,
      "seconds": SECONDS,
      "manifest_sha256": "b" * 64,
    },
    "metrics": METRICS,
    "rows": [
      {
        "name": row,
        "kind": "model" if row == "generated" else "anchor",
        "metrics": {
          "onset_f1_50": {
            "value": float(v.mean()),
            "low": float(v.mean() - 0.05),
            "high": float(v.mean() + 0.05),
            "n": clips,
          },
          "fad": {
            "value": 10 * (1 - float(v.mean())),
            "low": 10 * (1 - float(v.mean())) - 3,
            "high": 10 * (1 - float(v.mean())) + 3,
            "n": clips,
          },
        },
      }
      for row, v in rows.items()
    ],
    "clips": entries,
    "curve": [
      {
        "step": step,
        "train/loss": 1.5 * np.exp(-step / 250) + 0.3 + 0.03 * np.sin(step),
        "train/grad_norm": 1.0 + 0.2 * np.cos(step),
        "perf/mfu": 0.21,
      }
      for step in range(10, 900, 10)
    ],
    "failures": [],
  } | over
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / "results.json"
  path.write_text(json.dumps(results))
  return path


@pytest.fixture(scope="module")
def results(tmp_path_factory):
  root = tmp_path_factory.mktemp("results")
  return [
    write_results(root / "a", "diffusion", shift=0.2),
    write_results(root / "b", "ar", failures=[{"id": "x<y", "reason": "NaN"}]),
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


def test_names_a_difference_only_where_the_interval_excludes_zero(results):
  runs = report.load_runs(results)
  metrics = compare.metrics_of(runs)
  said = [s.text for s in compare.verdict(runs, metrics)]
  assert said[0].startswith("diffusion beats ar on Onset F1 at 50 ms by 0.200")
  assert "paired, 12 clips" in said[0]
  assert said[1] == "diffusion and ar cannot be told apart on FAD (mn04)."
  assert any("diffusion follows the picture in time" in text for text in said)
  assert compare.best_run(metrics[0], runs) == 0
  assert compare.best_run(metrics[1], runs) is None


def test_a_better_sound_alone_is_not_called_in_time(tmp_path):
  path = write_results(tmp_path / "a", "diffusion", shift=0.2)
  text = path.read_text().replace("onset_f1_50", "kl")
  path.write_text(text)
  runs = [load(path)]
  said = [s.text for s in compare.verdict(runs, compare.metrics_of(runs))]
  assert not any("follows the picture" in text for text in said)
  assert any("nothing here shows that it is in time" in text for text in said)


def test_direction_is_that_of_the_metric(tmp_path):
  low_fad = write_results(tmp_path / "a", "near", with_media=0)
  high_fad = write_results(tmp_path / "b", "far", with_media=0)
  runs = report.load_runs([low_fad, high_fad])
  for run, value in zip(runs, (2.0, 30.0)):
    entry = compare.row_of(run, "generated")["metrics"]["fad"]
    entry.update(value=value, low=value - 1, high=value + 1)
  metrics = compare.metrics_of(runs)
  text = compare.verdict(runs, metrics)[0].text
  assert text.startswith("near beats far on FAD (mn04) by 28")
  assert compare.best_run(metrics[1], runs) == 0


def test_says_where_noise_does_better(tmp_path):
  run = load(write_results(tmp_path, "run", with_media=0))
  for clip in run["clips"]:
    clip["scores"]["noise"]["onset_f1_50"] = 1.5
  said = [s.text for s in compare.verdict([run], compare.metrics_of([run]))]
  assert any(s.startswith("Noise beats run on Onset F1 at 50") for s in said)


def test_anchors_that_differ_name_their_run(results):
  runs = report.load_runs(results)
  compare.row_of(runs[1], "codec")["metrics"]["fad"]["value"] = 1.5
  labels = [
    r["label"] for r in report_table.rows(runs, compare.metrics_of(runs))
  ]
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
  said = compare.verdict(runs, compare.metrics_of(runs))
  assert said[0].text == "one and two cannot be told apart on any metric."
  assert said[0].kind == "tie"


def test_other_sets_are_not_paired(results, tmp_path):
  other = write_results(
    tmp_path / "o",
    "other",
    with_media=0,
    set={"n": 12, "split": "test", "manifest_sha256": "c" * 64},
  )
  runs = [load(results[0]), load(other)]
  metric = compare.metrics_of(runs)[0]
  gap = compare.difference(
    metric, (runs[0], "generated"), (runs[1], "generated")
  )
  assert gap.pairs == 0
  # Independent intervals of half width h give one of h sqrt(2).
  assert gap.high - gap.low == pytest.approx(2 * 0.05 * np.sqrt(2))
  assert any("same set" in t for t in compare.limits(runs, [metric]))


def test_undefined_figures_are_shown_and_not_compared(results):
  runs = report.load_runs(results)
  for run in runs:
    for clip in run["clips"]:
      clip["scores"] = {}
    entry = compare.row_of(run, "generated")["metrics"]["onset_f1_50"]
    entry.update(value=None, low=None, high=None)
  metrics = compare.metrics_of(runs)
  assert compare.best_run(metrics[0], runs) is None
  row = report_table.rows(runs, metrics)[0]
  assert row["cells"][0]["text"] == "n/a"


class Page(html.parser.HTMLParser):
  """What a page refers to, and its text."""

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
    "12 min 34 s, 900 steps, 28,800 clips seen",
    "Ground truth",
    "Shuffled video · ar",
    "model.name",
    "The first 2 of 12 clips",
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
  metrics = compare.metrics_of(runs)
  labels = [row["label"] for row in report_table.rows(runs, metrics)]
  assert labels[:2] == ["diffusion", "ar"]
  assert labels.count("Ground truth") == 1
  clip = report.report_gallery.collect(
    runs, metrics, labels=report_table.ROW_LABELS, max_clips=1
  )[0]
  names = [track.label for track in clip.tracks]
  assert names[:3] == ["Ground truth", "diffusion", "ar"]
  assert names.count("Ground truth") == 1


def test_media_go_beside_a_page_that_would_be_too_large(results, tmp_path):
  out = report.write_report(results, tmp_path / "r.html", max_bytes=1000)
  data = re.search(r'id="data">(.*?)</script>', out.read_text())[1]
  sources = json.loads(data)["clips"][0]
  assert (tmp_path / sources["video"]).stat().st_size > 0
  assert all((tmp_path / track).exists() for track in sources["tracks"])
  assert "r_media" in out.read_text()


def test_text_cannot_break_out_of_the_page(tmp_path):
  evil = "</script><img src=x onerror=alert(1)>"
  path = write_results(tmp_path, evil, with_media=1, clips=2)
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
  with pytest.raises(ValueError, match="name with .html"):
    report.write_report(["x"], tmp_path / "r.md")
  with pytest.raises(FileNotFoundError, match="v2a eval"):
    report.write_report([tmp_path / "none.json"], tmp_path / "r.html")
  bad = tmp_path / "bad.json"
  bad.write_text("{")
  with pytest.raises(ValueError, match="bad.json: is not JSON"):
    report.write_report([bad], tmp_path / "r.html")
  bad.write_text('{"schema": 2}')
  with pytest.raises(ValueError, match="schema 2, not 1"):
    report.write_report([bad], tmp_path / "r.html")


def test_config_differences_are_only_those():
  one = {"a": {"b": 1, "c": 2}, "d": [1, 2]}
  two = {"a": {"b": 1, "c": 3}, "d": [1, 2], "e": None}
  assert report.config_differences([one, two]) == [
    ("a.c", ["2", "3"]),
    ("e", ["–", "null"]),
  ]


@pytest.mark.parametrize(
  "seconds, words",
  [
    (12.3, "12 s"),
    (60, "1 min"),
    (754, "12 min 34 s"),
    (9000, "2 h 30 min"),
    (7200, "2 h"),
  ],
)
def test_durations_in_words(seconds, words):
  assert report.duration_words(seconds) == words


def test_spectrogram_shows_a_tone_at_its_height(tmp_path):
  image_library = pytest.importorskip("PIL.Image")
  t = np.arange(RATE) / RATE
  tone = np.sin(2 * np.pi * 632.0 * t).astype(np.float32)
  path = tmp_path / "x.png"
  path.write_bytes(figures.spectrogram_png(tone, RATE))
  image = np.asarray(image_library.open(path).convert("RGB"), float).sum(2)
  assert image.shape == (72, 480)
  # 632 Hz is the geometric mean of 50 Hz and 8 kHz.
  assert abs(image.mean(1).argmax() - 36) <= 1
  quiet = figures.spectrogram_png(np.zeros(RATE, np.float32), RATE)
  assert len(quiet) < 2000


def test_curves_keep_extremes_and_average_the_rest():
  points = [(step, float(step % 7)) for step in range(5000)]
  curve = figures.Curve.of("run", 0, points)
  assert len(curve.x) <= 240
  assert curve.y.mean() == pytest.approx(3.0, abs=0.05)
  svg = figures.curves_svg("a & b", [curve])
  assert svg.startswith("<svg") and "a &amp; b" in svg
