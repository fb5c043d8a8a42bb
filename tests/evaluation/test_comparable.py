"""Runs that differ in what must be equal are not compared, and it is said why."""

import copy
import json

import pytest
from report_results import METRICS, write_results

from v2a_jax.evaluation.report import compare, loading
from v2a_jax.evaluation.report.columns import columns_of

DIGESTS = ["a1" * 32, "b2" * 32]
RUN = {
  "clips": DIGESTS[0],
  "judged at": "16000 Hz, mono",
  "noise seed": 0,
  "interval seed": 0,
}
FAD = {
  "variant": "fad",
  "embedding": f"mn04 {DIGESTS[0]}",
  "window": "1 s every 0.5 s, 32000 Hz",
  "reference": "64 of val",
  "reference clips": DIGESTS[0],
}


def make_runs(tmp_path, *, run=None, fad=None, **over):
  """Writes two runs of which the second is better, and differs as said."""
  for name, shift in (("first", 0.0), ("second", 0.3)):
    metrics = copy.deepcopy(METRICS)
    metrics["fad"]["identity"] = FAD | ((fad or {}) if shift else {})
    identity = RUN | ((run or {}) if shift else {})
    more = {"metrics": metrics, "identity": identity, **(over if shift else {})}
    folder = tmp_path / name
    write_results(folder, name, shift=shift, clips=30, with_media=0, **more)
  return loading.load_runs([tmp_path / "first", tmp_path / "second"])


def verdict(runs) -> str:
  columns = columns_of(runs)
  return "\n".join(s.text for s in compare.verdict(runs, columns))


def test_equal_identities_are_compared(tmp_path):
  runs = make_runs(tmp_path)
  assert "second beats first on Onset F1" in verdict(runs)
  assert "not compared" not in verdict(runs)
  assert compare.best_runs(columns_of(runs), runs)["onset_f1_50"] == 1


@pytest.mark.parametrize(
  "run, over, words",
  [
    ({"judged at": "48000 Hz, mono"}, {}, "16000 Hz, mono against 48000 Hz"),
    ({"clips": DIGESTS[1]}, {}, "other clips, or other lengths"),
    ({"noise seed": 1}, {}, "noise seed 0 against 1"),
    (
      {"clips": DIGESTS[1]},
      {
        "set": {"n": 24, "seconds": 48.0, "split": "test"},
        "failures": [{"id": f"x{i}", "reason": "lost"} for i in range(6)],
      },
      "30 clips against 24 (6 failed)",
    ),
  ],
)
def test_other_runs_have_no_winner(run, over, words, tmp_path):
  runs = make_runs(tmp_path, run=run, **over)
  text = verdict(runs)
  assert f"not compared on any metric: {words}" in text.replace(
    "judged at ", ""
  )
  assert "beats first" not in text and "beats second" not in text
  assert not compare.best_runs(columns_of(runs), runs)


def lost(*ids):
  return [{"id": id_, "reason": "is empty"} for id_ in ids]


def test_other_failures_have_no_winner(tmp_path):
  """A system that fails on its hard clips would else win by it."""
  hard = [f"hard{i}" for i in range(5)]
  runs = make_runs(tmp_path, failures=lost(*hard))
  words = "no clip failed against 5 (hard0, hard1, hard2, …)"
  assert f"not compared on any metric: {words}." in verdict(runs)
  assert "beats first" not in verdict(runs)
  assert not compare.best_runs(columns_of(runs), runs)
  # As many, but others.
  runs = make_runs(tmp_path, failures=lost("a", "b"))
  runs[0]["failures"] = lost("c", "b")
  assert "2 clips failed (b, c) against 2 (a, b)" in verdict(runs)
  # The same ones, such as true sounds that cannot be read.
  runs[0]["failures"] = lost("b", "a")
  assert "second beats first on Onset F1" in verdict(runs)


def test_clips_without_a_sound_are_said(tmp_path):
  names = ["x", "y"]
  unmatched = {"without_output": {"count": 2, "names": names}}
  runs = make_runs(tmp_path, unmatched=unmatched)
  said = " ".join(compare.limits(runs, columns_of(runs)))
  assert "second has no sound for 2 clips of the set" in said


@pytest.mark.parametrize(
  "fad, words",
  [
    (
      {"embedding": f"mn04 {DIGESTS[1]}"},
      "mn04 a1a1a1a1a1a1 against mn04 b2b2",
    ),
    ({"window": "10 s"}, "window 1 s every 0.5 s, 32000 Hz against 10 s"),
    ({"reference clips": DIGESTS[1]}, "other reference clips"),
    ({"variant": "fad_old"}, "variant fad against fad_old"),
  ],
)
def test_a_metric_of_another_kind_has_no_winner(fad, words, tmp_path):
  text = verdict(make_runs(tmp_path, fad=fad))
  (line,) = [x for x in text.splitlines() if "are not compared (" in x]
  assert words in line and line.endswith("on FAD (mn04).")
  assert "second beats first on Onset F1" in text


def test_results_that_do_not_say_what_they_rest_on_are_refused(tmp_path):
  make_runs(tmp_path)
  path = tmp_path / "second" / "results.json"
  content = json.loads(path.read_text())
  del content["identity"]
  path.write_text(json.dumps(content))
  with pytest.raises(ValueError, match="identity missing.*v2a eval"):
    loading.load_runs([tmp_path])
