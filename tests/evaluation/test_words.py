"""Words that are understood, in read speech and in scenes."""

import csv
import pathlib

import numpy as np
import pytest
import soundfile

from data_pipelines.scenes import speech
from v2a_jax.evaluation import clips
from v2a_jax.evaluation.metrics import base, words

SHARED = pathlib.Path(__file__).parents[2].parent / "shared"
LABELS = SHARED / "clips" / "audio" / "labels.csv"


def sample(waveform, rate, **fields):
  """A sample of a clip whose true sound it is."""
  seconds = len(waveform) / rate
  clip = clips.Clip(id="clip", audio=waveform, seconds=seconds, **fields)
  return base.Sample(
    clip=clip, waveform=waveform, sample_rate=rate, features={}
  )


def noisy(sound, level):
  rng = np.random.default_rng(0)
  return sound + (level * rng.normal(size=sound.shape)).astype(np.float32)


def test_words_of_a_transcript_are_words():
  text = "Ask not -- “what's” NÄCHSTE, 42!"
  assert words.spoken(text) == ["ask", "not", "what's", "nächste", "42"]


@pytest.fixture(scope="module")
def read_speech():
  """(sound, rate, text) of some recordings of read speech."""
  if not LABELS.is_file():
    pytest.skip("../shared/clips is not here")
  with open(LABELS) as file:
    rows = [row for row in csv.DictReader(file) if "ljspeech" in row["file"]]
  rows = [row for row in rows if row["text"]][:4]
  read = lambda row: soundfile.read(
    SHARED / "clips" / row["file"], dtype="float32", always_2d=True
  )
  return [(*read(row), row["text"]) for row in rows]


def test_read_speech_is_heard_and_noise_hides_it(read_speech):
  metric = words.WordsHeard()

  def share(change):
    states = [
      metric.get_state(sample(change(sound), rate, transcript=text))
      for sound, rate, text in read_speech
    ]
    return metric.compute(states).value

  errors = words.WordErrorRate()
  states = [
    errors.get_state(sample(sound, rate, transcript=text))
    for sound, rate, text in read_speech
  ]
  assert 0.0 < errors.compute(states).value < 0.5
  assert share(lambda sound: sound) > 0.7
  assert share(lambda sound: noisy(sound, 0.3)) < 0.2


@pytest.mark.parametrize(
  "heard,edits",
  [
    ("ask not what", 0),
    ("ask what", 1),  # One is missing,
    ("ask knot what", 1),  # another is heard in its place,
    ("ask not not what what", 2),  # and two are said twice.
    ("", 3),
    ("a b c d e", 5),
  ],
)
def test_every_wrong_missing_and_added_word_is_an_error(heard, edits):
  metric = words.WordErrorRate()
  state = words.errors(words.spoken("Ask not what"), heard.split())
  assert metric.value(state) == pytest.approx(edits / 3)
  assert metric.compute([state]).within(metric.bounds).value == edits / 3


def test_what_is_heard_does_not_depend_on_what_came_before(read_speech):
  sounds = [(sound[: 3 * rate], rate) for sound, rate, _ in read_speech]
  sound, rate = sounds[0]
  sounds += [(noisy(sound, 0.1), rate), (0.0 * sound, rate)]
  forwards = [words.recognise(*of) for of in sounds]
  assert all(forwards[:4]) and not forwards[-1]
  assert [words.recognise(*of) for of in sounds[::-1]][::-1] == forwards


def spoken(names, seed=0, rate=22_050):
  """Returns (sound, rate, timed words) of a sentence of the scenes' talker."""
  rng = np.random.default_rng(seed)
  voice = speech.Voice(pitch=150.0, scale=1.05, pace=0.9)
  said = speech.schedule(rng, names, voice, seconds=4.0)
  sound = speech.speak(rng, said, voice, samples=4 * rate, rate=rate)
  timed = [
    {"word": word, "start": start, "end": end}
    for word, start, end in said.words
  ]
  return sound[:, None].astype(np.float32), rate, timed


def test_words_of_scenes_are_told_apart_at_their_time():
  metric, said = words.SceneWords(), ["take", "seven", "green", "houses"]
  sound, rate, timed = spoken(said)
  scene = dict(words=timed, of_scenes=True)
  heard = lambda x: metric.value(metric.get_state(sample(x, rate, **scene)))
  assert heard(sound) == 1.0 and heard(noisy(sound, 0.03)) == 1.0
  other, _, _ = spoken(["give", "three", "black", "flowers"])
  assert heard(other) == 0.0
  assert heard(np.roll(sound, rate)) <= 0.25


def test_numbers_are_counted_by_themselves():
  metric = words.SceneDigits()
  sound, rate, timed = spoken(["take", "seven", "green", "houses"])
  scene = sample(sound, rate, words=timed, of_scenes=True)
  assert metric.get_state(scene) == words.Words(1, 1)
  other, _, _ = spoken(["take", "three", "green", "houses"])
  state = metric.get_state(sample(other, rate, words=timed, of_scenes=True))
  assert state == words.Words(0, 1)
  none = sample(sound, rate, words=timed[2:], of_scenes=True)
  assert not metric.judges(none.clip) and metric.judges(scene.clip)


def test_each_clip_is_judged_by_its_own_recogniser():
  sound, rate, timed = spoken(["red", "boats"])
  scene = sample(
    sound, rate, words=timed, of_scenes=True, transcript="red boats"
  )
  real = sample(sound, rate, transcript="red boats")
  silent = sample(sound, rate)
  judged = lambda metric: [metric.judges(s.clip) for s in (scene, real, silent)]
  assert judged(words.SceneWords()) == [True, False, False]
  assert judged(words.WordsHeard()) == [False, True, False]
