"""From sounds to the verdict: who is in time, who is not, and who can tell."""

import dataclasses

import numpy as np
import pytest
from test_level_metrics import sample
from test_onsets import _hits

from v2a_jax.evaluation import rows
from v2a_jax.evaluation.metrics import METRICS, av_align, base, offset
from v2a_jax.evaluation.report import compare
from v2a_jax.evaluation.report.columns import columns_of
from v2a_jax.evaluation.report.differences import row_of

RATE, SECONDS, CLIPS = 16_000, 2.0, 8
JUDGES = tuple(  # These clips have no picture.
  m
  for m in METRICS
  if (m.judges_timing and not m.needs_video)
  or isinstance(m, offset.OnsetOffset)
)


def hits(times, level=0.3):
  return _hits(times, RATE, SECONDS, level)[:, None]


@pytest.fixture(scope="module")
def states():
  """States of all metrics, by row and metric, of eight clips with hits."""
  rng = np.random.default_rng(0)
  times = [np.sort(rng.uniform(0.1, 1.8, 4)) for _ in range(CLIPS)]
  truth = [hits(t) for t in times]
  quiet = [hits(t + 0.01, level=0.1) for t in times]
  sounds = {
    "ground_truth": truth,
    "right": quiet,
    "shuffled_video": [*quiet[1:], quiet[0]],
    "shifted": [rows.delayed(w, round(0.12 * RATE)) for w in truth],
    "metronome": [rows.metronome(w, RATE) for w in truth],
    "noise": [rows.pink_noise(w, RATE, seed=i) for i, w in enumerate(truth)],
  }
  true = [sample(w, w).truth for w in truth]
  return {
    row: of_samples(
      [dataclasses.replace(sample(w), truth=t) for w, t in zip(waveforms, true)]
    )
    for row, waveforms in sounds.items()
  }


def described(metric) -> dict:
  """Describes a metric as results.json does."""
  entry = {
    "label": metric.label,
    "higher_is_better": base.DIRECTIONS[metric.direction],
    "judges_timing": metric.judges_timing,
    "role": metric.role,
  }
  if isinstance(metric, base.RatioMetric):
    entry["ratio"] = [metric.numerator, metric.denominator]
  return entry


def of_samples(samples):
  return {m.id: [m.get_state(s) for s in samples] for m in JUDGES}


def run_of(states, generated: str) -> dict:
  """Describes results in which one of the rows is the model's."""
  named = {"generated": states[generated], **states}
  del named["right"]
  clips = [{"id": str(i), "scores": {}, "counts": {}} for i in range(CLIPS)]
  entries = {row: {} for row in named}
  for row, of in named.items():
    for metric in JUDGES:
      entries[row][metric.id] = metric.compute(of[metric.id]).to_json()
      for clip, state in zip(clips, of[metric.id]):
        scores = clip["scores"].setdefault(row, {})
        scores[metric.id] = metric.value(state)
        if hasattr(metric, "counts"):
          clip["counts"].setdefault(row, {})[metric.id] = metric.counts(state)
  return {
    "name": "run",
    "set": {"n": CLIPS, "manifest_sha256": "", "split": "test"},
    "metrics": {m.id: described(m) for m in JUDGES},
    "rows": [{"name": row, "metrics": of} for row, of in entries.items()],
    "clips": clips,
  }


def verdict(run) -> list[str]:
  return [s.text for s in compare.verdict([run], columns_of([run]))]


def test_a_model_in_time_is_said_to_be_by_metrics_that_can_tell(states):
  run = run_of(states, "right")
  texts = verdict(run)
  assert texts[0] == "In short: run follows the video in time."
  (judged,) = [t for t in texts if t.startswith("Timing of run is judged by")]
  assert "Onset correlation" in judged and "Sync error" in judged
  lateness = row_of(run, "generated")["metrics"]["onset_offset"]
  assert lateness["value"] == pytest.approx(10, abs=5)
  late = row_of(run, "shifted")["metrics"]["onset_offset"]
  assert late["value"] == pytest.approx(120, abs=5) and late["spread"] < 5


def test_a_model_that_follows_nothing_is_not(states):
  texts = verdict(run_of(states, "shuffled_video"))
  assert texts[0] == "In short: run is not shown to follow the video."
  assert not any("in time" in text for text in texts)


def test_av_align_concludes_nothing():
  assert av_align.AVAlign.role == "shown"
  assert not av_align.AVAlign.judges_timing
