"""Which clips are used, and what anchors sound like."""

from flashes import RATE, SECONDS, Follower, make_record
import numpy as np
import pytest

from v2a_jax.evaluation import clips as clips_lib
from v2a_jax.evaluation import rows
from v2a_jax.evaluation.formats import Format
from v2a_jax.evaluation.metrics.level_error import level_dbfs


def test_the_choice_depends_on_the_seed_alone():
  pick = lambda seed: clips_lib.choose(range(6), num=3, seed=seed)
  assert pick(0) == pick(0) and len(set(pick(0))) == 3
  assert any(pick(seed) != pick(0) for seed in range(1, 6))


def test_every_video_is_given_to_another_clip(data):
  read = clips_lib.Reader(
    clips_lib.open_truth(data).records,
    Format(sample_rate=RATE, channels=1, seconds=SECONDS),
    Follower(data).loader_config,
  )
  clips = [read(i, i) for i in range(5)]
  shuffled = rows.with_videos_of(clips, clips[-1:] + clips[:-1])
  frames = lambda clip: clip.example["frames"].tobytes()
  assert sorted(map(frames, shuffled)) == sorted(map(frames, clips))
  for clip, other in zip(clips, shuffled):
    assert frames(clip) != frames(other)
    for key in ("prompt", "transcript", "audio"):
      np.testing.assert_array_equal(clip.example[key], other.example[key])


def test_a_model_is_not_told_when_words_are_spoken(data):
  words = [
    {"word": "one", "start": 1.5, "end": 1.7},
    {"word": "two", "start": 1.8},
  ]
  record = make_record(0, "test", words=words, transcript="one two")
  format = Format(sample_rate=RATE, channels=1, seconds=SECONDS)
  config = Follower(data).loader_config
  clip = clips_lib.Reader([record], format, config, word_times=True)(0, 0)
  seen = clip.example
  assert not seen["transcript_timed"]
  ids = seen["transcript_mask"]
  assert ids.any() and seen["transcript_times"][ids].min() < 1.0
  # As `v2a generate` has them; the row that is told has the true times.
  assert clip.word_times["transcript_timed"]
  assert clip.word_times["transcript_times"][ids].min() == pytest.approx(1.5)
  np.testing.assert_array_equal(
    clip.word_times["transcript"], seen["transcript"]
  )


def test_pink_noise_has_the_level_and_falls_by_3_db_an_octave():
  true = 0.05 * np.random.default_rng(0).standard_normal((64000, 1))
  noise = rows.pink_noise(true, 16000, seed=(0, 1))
  assert level_dbfs(noise) == pytest.approx(level_dbfs(true), abs=0.1)
  power = np.square(np.abs(np.fft.rfft(noise[:, 0])))
  hz = np.fft.rfftfreq(64000, 1 / 16000)
  octaves = [
    power[(hz >= f) & (hz < 2 * f)].mean() for f in (250, 500, 1000, 2000)
  ]
  drops = 10 * np.log10(np.array(octaves[:-1]) / octaves[1:])
  np.testing.assert_allclose(drops, 3.0, atol=0.7)
