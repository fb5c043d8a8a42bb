"""Which clips are used, and what anchors sound like."""

import dataclasses

from flashes import (
  RATE,
  SECONDS,
  Follower,
  evaluate_quickly,
  make_record,
  value_of,
)
import numpy as np
import pytest

from v2a_jax.evaluation import best_of, pictures, rows, systems
from v2a_jax.evaluation import clips as clips_lib
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
    {"word": "two", "start": 1.8, "end": None},
  ]
  record = make_record(0, "test", words=words, transcript="one two")
  format = Format(sample_rate=RATE, channels=1, seconds=SECONDS)
  config = Follower(data).loader_config
  clip = clips_lib.Reader([record], format, config, word_times=True)(0, 0)
  assert [word["word"] for word in clip.words] == ["one"]  # Of known times.
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


def test_a_clip_gets_the_words_of_another_that_speaks(data):
  texts = ["one two", "", "three", "", "one two"]
  records = [
    make_record(i, "test", transcript=text) for i, text in enumerate(texts)
  ]
  format = Format(sample_rate=RATE, channels=1, seconds=SECONDS)
  config = Follower(data).loader_config
  read = clips_lib.Reader(records, format, config)
  clips = [read(i, i) for i in range(5)]
  changed = rows.with_words_of_others(clips, clips[-1:] + clips[:-1])
  said = lambda clip: clip.example["transcript"].tobytes()
  own = [said(clip) for clip in clips]
  assert own[0] == own[4] and own[1] == own[3] and len({*own}) == 3
  wanted = [own[2], own[0], own[0], own[2], own[2]]
  assert [said(clip) for clip in changed] == wanted
  for clip, other in zip(clips, changed):
    for key in ("prompt", "frames", "frame_mask"):
      np.testing.assert_array_equal(clip.example[key], other.example[key])


def test_rows_without_picture_and_with_other_words_are_made_if_named(
  data, tmp_path
):
  """The follower clicks where frames turn bright, so that it makes nothing."""
  names = ("generated", "no_video", "shuffled_transcript")
  content = evaluate_quickly(data, tmp_path / "named", rows=names, num_clips=2)
  assert [row["name"] for row in content["rows"]] == [*names]
  f1 = {n: value_of(content, n, "onset_f1_100ms")["value"] for n in names}
  assert f1 == {"generated": 1.0, "no_video": 0.0, "shuffled_transcript": 1.0}
  usual = evaluate_quickly(data, tmp_path / "usual", num_clips=2)
  assert not {*names[1:]} & {row["name"] for row in usual["rows"]}


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


def _picture(fps=25.0, n=50, slots=60):
  """An example with a grey ramp in motion, and slots without a frame."""
  frames = np.zeros((slots, 24, 32, 3), np.uint8)
  ramp = np.linspace(20, 220, 32).astype(np.uint8)
  for i in range(n):
    frames[i] = np.roll(ramp, i)[None, :, None]
  frames[:n, :8, :8] = (200, 30, 60)
  times = np.where(np.arange(slots) < n, np.arange(slots) / fps, 0.0)
  return {
    "frames": frames,
    "frame_times": times.astype(np.float32),
    "frame_mask": np.arange(slots) < n,
    "prompt": np.arange(3),
  }


@pytest.mark.parametrize("name", pictures.DEGRADED)
def test_a_worse_picture_is_the_same_clip_seen_worse(name):
  example = _picture()
  before = {key: value.copy() for key, value in example.items()}
  seen = pictures.degrade(name, example, seed=3)
  again = pictures.degrade(name, example, seed=3)
  for key, value in example.items():
    np.testing.assert_array_equal(value, before[key])
    np.testing.assert_array_equal(seen[key], again[key])
    assert seen[key].shape == value.shape and seen[key].dtype == value.dtype
  assert (seen["frames"] != example["frames"]).any()
  frames = seen["frames"][seen["frame_mask"]].astype(float)
  assert 60 < frames.mean() < 180
  if name == "slow_video":
    times = seen["frame_times"][seen["frame_mask"]]
    np.testing.assert_allclose(times, np.arange(10) / 5, atol=1e-6)
    np.testing.assert_array_equal(frames, example["frames"][0:50:5])
  if name == "film_video":
    assert np.ptp(frames, axis=-1).max() == 0


class Late(Follower):
  """A follower of whose takes the third is in time, and the others late."""

  def sample(self, cond, *, seed, seconds, sampler):
    sounds = super().sample(cond, seed=seed, seconds=seconds, sampler=sampler)
    late = [(0.3, 0.2, 0.0, 0.4)[one // 1_000_000] * RATE for one in seed]
    return np.stack([rows.delayed(s, round(d)) for s, d in zip(sounds, late)])


def test_the_best_of_several_takes_is_judged(data, tmp_path):
  def f1(count):
    content = evaluate_quickly(
      data,
      tmp_path / str(count),
      tracker=systems.Model(Late(data), best_of=count),
      rows=["generated", "ground_truth", "shuffled_video"],
    )
    assert content["sampler"] == {"num_steps": 1, "best_of": count}
    other = value_of(content, "shuffled_video", "onset_f1_50ms")["value"]
    return value_of(content, "generated", "onset_f1_50ms")["value"], other

  assert f1(1)[0] < 0.5 and f1(2)[0] < 0.5
  assert f1(3)[0] == f1(4)[0] == pytest.approx(1.0)
  # Another clip's takes are chosen by the other clip's picture.
  plain = evaluate_quickly(
    data, tmp_path / "plain", rows=["ground_truth", "shuffled_video"]
  )
  in_time = value_of(plain, "shuffled_video", "onset_f1_50ms")["value"]
  assert f1(4)[1] == pytest.approx(in_time)


def test_a_model_that_sees_the_video_itself_is_chosen_for_by_it(data):
  """Its examples have no frames, as MMAudio's."""
  model = Follower(data)
  format = Format(sample_rate=RATE, channels=1, seconds=SECONDS)
  records = clips_lib.open_truth(data).records
  clip = clips_lib.Reader(records, format, model.loader_config)(0, 0)
  blind = dataclasses.replace(clip, example={})
  takes = {0: rows.delayed(clip.audio, RATE // 3), 1_000_000: clip.audio}
  for seen in (clip, blind):
    (best,) = best_of.choose(
      lambda offset: [takes[offset]],
      [seen],
      count=2,
      sample_rate=RATE,
      loader=model.loader_config,
    )
    np.testing.assert_array_equal(best, clip.audio)


def test_after_the_last_seed_comes_the_first(data, tmp_path):
  model = Follower(data)
  evaluate_quickly(
    data,
    tmp_path,
    tracker=systems.Model(model, best_of=2),
    num_clips=1,
    noise_seed=2**32 - 1,
    rows=["generated", "ground_truth"],
  )
  assert {one for seeds in model.seeds for one in seeds} == {
    2**32 - 1,
    999_999,
  }
