"""Words of scenes and the mouths that speak them."""

import numpy as np
import pytest

from data_pipelines.scenes import iter_records, speech
from v2a_jax.evaluation import clips
from v2a_jax.evaluation.metrics import base, lips

RATE, SECONDS = 22_050, 4.0
SENTENCE = ["take", "seven", "green", "houses"]


def said(seed, pitch, pace):
  """A sentence by a voice: sound [samples, 1] and timed words."""
  rng = np.random.default_rng(seed)
  voice = speech.Voice(pitch=pitch, scale=1 + pitch / 1500, pace=pace)
  words = speech.schedule(rng, SENTENCE, voice, seconds=SECONDS)
  samples = round(SECONDS * RATE)
  sound = speech.speak(rng, words, voice, samples=samples, rate=RATE)
  noise = 1e-3 * rng.normal(size=samples)
  timed = [dict(word=w, start=s, end=e) for w, s, e in words.words]
  return (sound + noise).astype(np.float32)[:, None], timed


TRUE, WORDS = said(0, 110.0, 0.9)


def sample(waveform, words=WORDS):
  clip = clips.Clip(
    id="a", audio=TRUE, seconds=SECONDS, words=words, of_scenes=True
  )
  make = lambda x, **more: base.Sample(
    clip=clip, waveform=x, sample_rate=RATE, features={}, **more
  )
  return make(waveform, truth=make(TRUE))


@pytest.mark.parametrize("ms", [-200, -60, 0, 60, 200])
def test_words_that_are_late_are_found_so_late(ms):
  moved = np.roll(TRUE, round(ms * RATE / 1000), axis=0)
  np.testing.assert_allclose(lips.lags(sample(0.2 * moved)), ms, atol=5.1)
  error = lips.LipError().get_state(sample(moved))
  assert error == pytest.approx(abs(ms), abs=5.1)
  found = lips.LipsInTime().get_state(sample(moved))
  assert found == lips.Lips(4 if abs(ms) <= 60 else 0, 4)


def test_another_voice_is_found_where_it_speaks():
  other, spoken = said(1, 210.0, 0.8)
  begins = [1000 * (b["start"] - a["start"]) for a, b in zip(WORDS, spoken)]
  assert np.ptp(begins) > 50
  apart = np.abs(lips.lags(sample(other)) - begins)[np.abs(begins) < 450]
  assert len(apart) >= 2 and apart.max() < 60


def test_silence_is_as_far_as_can_be_and_noise_is_nowhere():
  assert lips.LipError().get_state(sample(np.zeros_like(TRUE))) == 500
  rng = np.random.default_rng(0)
  noise = rng.normal(size=TRUE.shape).astype(np.float32)
  assert lips.LipError().get_state(sample(noise)) > 100


@pytest.mark.filterwarnings("error")
def test_a_word_of_no_length_is_where_it_begins():
  short = [{"word": "a", "start": 1.5, "end": 1.501}]
  assert lips.lags(sample(TRUE, short)) == [0]


def test_only_scenes_that_talk_are_judged():
  judged = lambda **fields: lips.LipError().judges(
    clips.Clip(id="a", audio=TRUE, seconds=SECONDS, **fields)
  )
  assert judged(words=WORDS, of_scenes=True)
  assert not judged(words=WORDS, of_scenes=False)
  assert not judged(words=[], of_scenes=True)


def test_scenes_can_be_made_that_all_talk():
  scenes = iter_records(3, 5, fps=1, size=8, action="talk")
  assert all(scene["words"] and scene["label"] == "talk" for scene in scenes)
