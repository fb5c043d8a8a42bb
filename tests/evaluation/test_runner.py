"""The whole evaluation, with a stand-in model whose skill is known.

The clips' video is grey and flashes; their sound clicks at each flash. The
stand-in clicks wherever its input frames turn bright: a model that follows the
video perfectly and knows nothing else.
"""

import json
import pathlib
import time

from flashes import SECONDS, Follower, evaluate_quickly, value_of
import numpy as np
import pytest

from data_pipelines import schema
from v2a_jax import media
from v2a_jax.basics import files
from v2a_jax.basics.paths import as_path
from v2a_jax.evaluation import embedded, pictures, results, rows, runner
from v2a_jax.evaluation.metrics import METRICS
from v2a_jax.evaluation.report import page as report
from v2a_jax.weights import registry as weights

WEIGHTS = pathlib.Path(__file__).parents[2].parent / "shared" / "weights"
DESCRIPTION = {
  *("label", "unit", "higher_is_better", "judges_timing", "about"),
  *("role", "variant", "identity", "bounds"),
}


@pytest.fixture(scope="module")
def evaluation(data, tmp_path_factory):
  """A full evaluation, without the weights so that it runs anywhere."""
  out = tmp_path_factory.mktemp("eval")
  workdir = tmp_path_factory.mktemp("workdir")
  lines = [{"step": i, "train/loss": 1 / (i + 1)} for i in range(1, 1001)]
  text = "\n".join(map(json.dumps, lines)) + '\n{"step": 10'
  (workdir / "metrics.jsonl").write_text(text)
  follower, log = Follower(data, path=workdir), []
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("V2A_CACHE", str(out / "cache"))
    patch.delenv(weights.PATH_VARIABLE, raising=False)
    returned = runner.evaluate(
      follower,
      data=data,
      out=out,
      options=runner.Options(
        num_clips=6, batch_size=2, gallery_clips=2, noise_seed=3
      ),
      log=log.append,
    )
  content = json.loads((out / results.FILE).read_text())
  assert content == json.loads(json.dumps(returned))
  return content, out, log, follower


def test_results_have_the_documented_form(evaluation):
  content, _, _, _ = evaluation
  assert content["schema"] == 2 and content["name"] == "follower"
  assert content["checkpoint"]["step"] == 7 and content["seeds"]["noise"] == 3
  assert [row["name"] for row in content["rows"]] == list(rows.ROWS)
  assert content["rows"][0]["kind"] == "model"
  assert {row["kind"] for row in content["rows"][1:]} == {"anchor"}
  assert content["set"]["n"] == 5 and content["set"]["seconds"] == 10.0
  assert len(content["set"]["manifest_sha256"]) == 64
  assert content["code"]["versions"]["numpy"]
  for row in content["rows"]:
    assert row["metrics"].keys() == content["metrics"].keys()
    for value in row["metrics"].values():
      assert {"value", "low", "high", "n"} <= value.keys()
  for metric in content["metrics"].values():
    assert set(metric) - {"ratio"} == DESCRIPTION


def test_rows_score_what_is_known_of_them(evaluation):
  content = evaluation[0]
  score = lambda row: value_of(content, row, "onset_f1_50ms")
  assert score("ground_truth")["value"] == pytest.approx(1.0)
  assert score("generated")["value"] == pytest.approx(1.0)
  assert score("codec")["value"] == pytest.approx(1.0)
  assert score("shuffled_video")["value"] < 0.8
  assert score("silence")["value"] == 0.0
  over = score("generated")["over_shuffled"]
  assert over["value"] > 0.2 and over["n"] == 5
  assert value_of(content, "silence", "silent")["value"] == 1.0
  assert value_of(content, "generated", "silent")["value"] == 0.0
  assert value_of(content, "noise", "level_error")["value"] < 0.5
  codec = value_of(content, "codec", "level_error")["value"]
  assert codec == pytest.approx(-20 * np.log10(0.9), abs=1e-3)


def test_intervals_hold_only_what_a_metric_can_be(evaluation):
  """With five clips some would reach under 0, as that of the sync error."""
  content = evaluation[0]
  cut = set()
  for id_, metric in content["metrics"].items():
    least, most = (
      end if end is not None else far
      for end, far in zip(metric["bounds"], (-np.inf, np.inf))
    )
    for row in content["rows"]:
      entry = row["metrics"][id_]
      if entry["low"] is not None:
        assert least <= entry["low"] <= entry["value"] <= entry["high"] <= most
        if entry["low"] == least < entry["value"]:
          cut.add(id_)
  assert "sync_error" in cut


def test_both_model_rows_have_the_same_noise(evaluation):
  follower = evaluation[3]
  generated, shuffled = follower.seeds[::2], follower.seeds[1::2]
  assert generated == shuffled
  assert {seed for batch in generated for seed in batch} <= set(range(3, 9))
  assert len({seed for batch in generated for seed in batch}) == 5


def test_a_bad_record_is_named_and_not_replaced(evaluation):
  content, _, log, _ = evaluation
  (failure,) = content["failures"]
  assert failure["id"] == "clip5" and "sound" in failure["reason"]
  assert any("clip5" in line for line in log)
  assert len(content["clips"]) == 5


def test_missing_weights_are_named_as_the_reason(evaluation):
  content, _, log, _ = evaluation
  assert "fad_mn04" not in content["metrics"]
  assert "v2a weights fetch mn04" in content["skipped"]["fad_mn04"]
  assert any("not measured: fad_mn04" in line for line in log)


def test_clips_have_media_events_and_scores(evaluation):
  content, out, _, _ = evaluation
  with_media = [clip for clip in content["clips"] if clip["video"]]
  assert len(with_media) == 2
  for clip in with_media:
    assert media.probe(out / clip["video"]).has_video
    assert set(clip["audio"]) == set(rows.ROWS)
    for path in clip["audio"].values():
      assert media.probe(out / path).duration == pytest.approx(SECONDS, abs=0.1)
  for clip in content["clips"]:
    counts = clip["counts"]["generated"]["onset_f1_50ms"]
    assert counts == {"hits": 3, "reference": 3, "detected": 3}
    assert len(clip["events"]) == 3 and 1.9 not in clip["events"]
    assert (clip["on_screen"], clip["off_screen"]) == (3, 1)
    assert clip["scores"]["generated"]["onset_f1_50ms"] == 1.0
    assert clip["duration"] == SECONDS and clip["caption"]


def test_curve_is_thinned_and_survives_a_cut_line(evaluation):
  curve = evaluation[0]["curve"]
  assert 300 < len(curve) <= 401
  assert curve[-1]["step"] == 1000 and curve[0]["step"] == 1


def test_the_report_reads_it(evaluation, tmp_path):
  _, out, _, _ = evaluation
  page = tmp_path / "report.html"
  report.write_report([out / results.FILE], page)
  assert "follower" in page.read_text()


def test_results_and_report_on_an_object_store(data, s3_url, monkeypatch):
  monkeypatch.delenv(weights.PATH_VARIABLE, raising=False)
  files.upload(data, f"{s3_url}/set", last="manifest.json")
  out = as_path(s3_url) / "eval"
  rows_of = ("generated", "ground_truth")
  content = evaluate_quickly(
    f"{s3_url}/set", out, gallery_clips=1, rows=rows_of
  )
  assert content["set"]["path"] == f"{s3_url}/set"
  kept = set(out.sizes()) - {embedded.FILE}  # With the weights only.
  assert kept == {"media", results.FILE}
  page = report.write_report([s3_url], f"{s3_url}/report.html", max_bytes=0)
  assert "follower" in page.read_text()
  assert "no such file" not in page.read_text()
  assert len((page.parent / "report_media").sizes()) >= 3


def test_a_sound_that_is_not_finite_is_a_failure(data, tmp_path, monkeypatch):
  monkeypatch.setenv("V2A_CACHE", str(tmp_path))
  monkeypatch.delenv(weights.PATH_VARIABLE, raising=False)
  evaluate = lambda broken: evaluate_quickly(
    data,
    tmp_path / f"out{len(broken)}",
    tracker=Follower(data, broken=broken),
    rows=("generated", "silence"),
  )
  content = evaluate((1,))
  assert content["set"]["n"] == 4
  reasons = [f["reason"] for f in content["failures"]]
  assert "the sound of the row generated is not finite" in reasons
  with pytest.raises(ValueError, match="diverged"):
    evaluate(range(10))


def test_a_row_with_word_times_stands_beside_it_if_asked(data, tmp_path):
  content = evaluate_quickly(
    data, tmp_path, rows=("generated",), word_times=True, num_clips=2
  )
  assert [row["name"] for row in content["rows"]] == ["generated", "word_times"]
  assert content["identity"]["words"] == "without their times"


def test_rows_with_worse_pictures_stand_beside_it_if_asked(data, tmp_path):
  """The follower clicks where frames turn bright, also when compressed."""
  content = evaluate_quickly(
    data, tmp_path, rows=("generated",), degraded=True, num_clips=2
  )
  names = [row["name"] for row in content["rows"]]
  assert names == ["generated", *pictures.DEGRADED]
  f1 = lambda row: value_of(content, row, "onset_f1_100ms")["value"]
  assert f1("compressed_video") == f1("generated") == 1.0


class Slow(Follower):
  """A model that takes 0.2 s for a batch, and as long to see a picture."""

  def sample(self, cond, **settings):
    time.sleep(0.2)
    return super().sample(cond, **settings)


class Seeing(Slow):
  """One that is given features of the picture."""

  def see(self, video):
    time.sleep(0.2)
    return np.zeros((4, 3), np.float32)


@pytest.mark.parametrize(("model", "seconds"), [(Slow, 0.1), (Seeing, 0.3)])
def test_what_a_clip_costs_is_measured(data, tmp_path, model, seconds):
  settings = {"tracker": model(data), "metrics": [], "batch_size": 2}
  content = evaluate_quickly(
    data, tmp_path / "a", rows=("generated",), **settings
  )
  cost = content["cost"]
  assert seconds <= cost["seconds_per_clip"] < seconds + 0.1
  assert (cost["clip_seconds"], cost["parameters"]) == (2.0, 1000)
  # Where the model makes nothing, nothing is known of its cost.
  content = evaluate_quickly(
    data, tmp_path / "b", rows=("ground_truth",), **settings
  )
  assert content["cost"] == {}


def test_refusals_name_what_to_do(data, tmp_path):
  with pytest.raises(ValueError, match="ground_truth"):
    evaluate_quickly(data, tmp_path, rows=("truth",))
  with pytest.raises(schema.DataError, match="no data set"):
    runner.evaluate(Follower(data), data=tmp_path / "none", out=tmp_path)
  assert not (tmp_path / results.FILE).exists()


def test_distances_with_the_real_network(data, tmp_path, monkeypatch):
  if not (WEIGHTS / "mn04_as_mAP_432.pt").is_file():
    pytest.skip("../shared/weights is not here")
  monkeypatch.setenv("V2A_CACHE", str(tmp_path))
  evaluate = lambda out: evaluate_quickly(
    data,
    tmp_path / out,
    rows=("generated", "ground_truth", "silence"),
    weights_path=WEIGHTS,
  )
  content = evaluate("out")
  without = {m.id for m in METRICS if m.id.endswith("aisfx")}
  # Nobody speaks, and nothing is out of sight.
  without |= {"words_heard", "word_error_rate", "scene_words", "scene_digits"}
  without |= {"scene_order"}
  without |= {"lip_error", "lips_in_time"}
  assert content["skipped"].keys() == without
  measured = [m.id for m in METRICS if m.id not in without]
  assert list(content["metrics"]) == measured
  fad = lambda row: value_of(content, row, "fad_mn04")
  assert fad("silence")["value"] > 2 * fad("ground_truth")["value"]
  assert fad("silence")["low"] is None  # Of so few clips it would not hold.
  assert fad("generated")["reference_clips"] == 4
  assert "4 of val" in content["metrics"]["fad_mn04"]["about"]
  assert value_of(content, "ground_truth", "kl_mn04")["value"] == 0.0
  again = evaluate("again")  # The reference now comes from the cache.
  assert (
    again["rows"] == content["rows"] and again["metrics"] == content["metrics"]
  )
