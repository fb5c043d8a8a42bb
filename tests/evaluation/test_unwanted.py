"""Speech and music that the true sound does not have."""

import pathlib

import numpy as np
import pytest
import soundfile

from v2a_jax.evaluation import clips, scorer
from v2a_jax.evaluation.metrics import unwanted
from v2a_jax.hearing import unwanted as hearing
from v2a_jax.weights import registry

GOLDEN = pathlib.Path(__file__).parents[2].parent / "shared/clips/golden"
METRICS = (unwanted.UnwantedSpeech(), unwanted.UnwantedMusic())

pytestmark = pytest.mark.skipif(
  not GOLDEN.is_dir(), reason="../shared/clips is not here"
)


@pytest.fixture(scope="module")
def networks():
  try:
    return {m.embedding.id: m.embedding() for m in METRICS}
  except registry.MissingWeightsError as error:
    pytest.skip(str(error))


def golden(name):
  sound, rate = soundfile.read(
    GOLDEN / f"{name}.wav", dtype="float32", always_2d=True
  )
  return sound[: 8 * rate], rate


def test_what_is_heard_in_a_row_and_not_in_the_truth_is_counted(networks):
  sounds = {n: golden(f"swch_{n}") for n in ("typing", "speech", "music")}
  rate = sounds["typing"][1]
  truth = [sounds[n][0] for n in ("typing", "typing", "typing", "speech")]
  row = [sounds[n][0] for n in ("typing", "speech", "music", "speech")]
  judged = scorer.judge(
    [
      clips.Clip(id=str(i), audio=sound, seconds=8.0)
      for i, sound in enumerate(truth)
    ],
    {"generated": row, "ground_truth": truth},
    METRICS,
    sample_rate=rate,
    networks=networks,
  )
  found = [hearing.heard(of.truth.features) for of in judged]
  assert [kinds["speech"] for kinds in found] == [False] * 3 + [True]
  assert not any(kinds["music"] for kinds in found)
  estimates = {}
  for metric in METRICS:
    for name in ("generated", "ground_truth"):
      states = scorer.kept(metric, [of.states[name] for of in judged])
      estimates[metric.id, name] = metric.compute(states)
  # Of the three clips without speech one speaks, of the four without music one
  # has some.
  speech = estimates["unwanted_speech", "generated"]
  music = estimates["unwanted_music", "generated"]
  assert (speech.value, speech.n) == (pytest.approx(1 / 3), 3)
  assert (music.value, music.n) == (0.25, 4)
  for metric in METRICS:
    assert estimates[metric.id, "ground_truth"].value == 0.0


def test_where_all_true_sounds_speak_nothing_is_unwanted():
  metric = unwanted.UnwantedSpeech()
  estimate = metric.compute([None, None])
  assert np.isnan(estimate.value) and estimate.n == 0
