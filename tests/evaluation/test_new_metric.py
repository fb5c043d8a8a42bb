"""Metrics that the package does not know: scored, described and reported."""

import json

from flashes import Follower, Mean, evaluate_quickly, value_of
import numpy as np
import pytest

from v2a_jax.evaluation import intervals, results, runner
from v2a_jax.evaluation.metrics import METRICS, base
from v2a_jax.evaluation.report import page as report


class Peak(base.ClipMetric):
  """A metric that the package does not know: the largest sample."""

  id = "peak"
  label = "Largest sample"
  direction = "higher"
  about = "Mean over clips of the largest sample."
  judges_timing = True

  def get_state(self, sample):
    return np.abs(sample.waveform).max()


class Spread(base.SetMetric):
  """A metric of the whole set: the mean distance of windows to their mean."""

  id = "spread"
  label = "Spread"
  direction = "none"
  about = "How different windows sound."
  embedding = Mean

  def compute(self, features, *, reference, seed=0):
    assert reference is None
    rest = features.vectors - features.vectors.mean(axis=0)
    value = np.linalg.norm(rest, axis=1).mean()
    return intervals.Estimate(value, value - 0.01, value + 0.01, 5)


PARTS = {"id": "x", "direction": "none", "get_state": Peak.get_state}


def test_a_metric_from_outside_reaches_the_results_and_the_report(
  data, tmp_path, monkeypatch
):
  monkeypatch.setenv("V2A_CACHE", str(tmp_path))
  evaluate_quickly(
    data,
    tmp_path / "out",
    rows=("generated", "ground_truth", "shuffled_video", "silence"),
    metrics=(*METRICS, Peak(), Spread()),
  )
  content = json.loads((tmp_path / "out" / results.FILE).read_text())
  assert content["metrics"]["peak"] == {
    "label": "Largest sample",
    "unit": "",
    "higher_is_better": True,
    "judges_timing": True,
    "role": "quality",
    "bounds": [None, None],
    "variant": "peak",
    "about": "Mean over clips of the largest sample.",
    "identity": {"variant": "peak"},
  }
  assert content["metrics"]["spread"]["higher_is_better"] is None
  assert content["metrics"]["spread"]["identity"]["embedding"] == "mean 0"
  scores = [clip["scores"] for clip in content["clips"]]
  values = [clip["generated"]["peak"] for clip in scores]
  assert value_of(content, "generated", "peak")["value"] == pytest.approx(
    np.mean(values), abs=1e-4
  )
  assert all(clip["silence"]["peak"] == 0 for clip in scores)
  assert "over_shuffled" in value_of(content, "generated", "peak")
  assert value_of(content, "silence", "spread")["value"] == 0
  assert not any("spread" in row for clip in scores for row in clip.values())
  page = report.write_report([tmp_path / "out"], tmp_path / "report.html")
  table = page.with_suffix(".md").read_text()
  assert "Largest sample \N{UPWARDS ARROW} | Spread |" in table
  assert "it has no row shifted, metronome and noise" in table


@pytest.mark.parametrize(
  "metric, message",
  [
    (type("Nameless", (base.ClipMetric,), PARTS), "Nameless states no label"),
    (type("Upward", (Peak,), {"direction": "up"}), "Upward.direction='up'"),
    (type("Again", (Peak,), {"id": "av_align"}), "the id av_align"),
    (type("Bare", (Spread,), {"embedding": None}), "Bare needs features"),
  ],
)
def test_an_incomplete_metric_is_refused_before_anything_is_generated(
  metric, message, data, tmp_path
):
  follower = Follower(data)
  with pytest.raises(ValueError, match=message):
    runner.evaluate(
      follower, data=data, out=tmp_path, metrics=(*METRICS, metric())
    )
  assert not follower.seeds
