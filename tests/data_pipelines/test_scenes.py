"""Scenes as a whole: one seed, one clip; sound, picture and truth agree."""

import dataclasses

import librosa
import mir_eval
import numpy as np
import pytest

from data_pipelines.scenes import ACTIONS, make_scene

RATE = 16000
DISCRETE = [name for name, action in ACTIONS.items() if action.discrete]


def _seen(scene):
  return np.array([e.time for e in scene.events if e.on_screen])


def test_the_same_seed_gives_the_same_bytes():
  one, two = make_scene(7), make_scene(7)
  for field in dataclasses.fields(one):
    a, b = getattr(one, field.name), getattr(two, field.name)
    assert np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


def test_other_seeds_give_other_clips():
  clips = [make_scene(seed, action="strike") for seed in range(5)]
  assert len({clip.audio.tobytes() for clip in clips}) == 5
  assert len({clip.frames.tobytes() for clip in clips}) == 5


def test_every_action_and_tag_comes_up():
  scenes = [make_scene(seed, size=16, fps=5) for seed in range(150)]
  labels = [scene.label for scene in scenes]
  assert set(labels) == set(ACTIONS)
  assert labels.count("talk") > 0.08 * len(labels)
  assert {tag for s in scenes for tag in s.tags} == {
    "effects",
    "music",
    "speech",
  }
  assert any(not e.on_screen for s in scenes for e in s.events)


@pytest.mark.parametrize("action", ACTIONS)
def test_shapes_levels_and_events_are_in_bounds(action):
  for seed in range(4):
    scene = make_scene(seed, action=action)
    assert scene.frames.shape == (100, 64, 64, 3)
    assert scene.frames.dtype == np.uint8
    assert scene.audio.shape == (4 * RATE, 1)
    assert scene.audio.dtype == np.float32
    assert np.abs(scene.audio).max() <= 10 ** (-1 / 20)
    np.testing.assert_allclose(scene.frame_times, np.arange(100) / 25)
    times = [event.time for event in scene.events]
    assert times == sorted(times) and 1 <= len(_seen(scene))
    assert min(times) >= 0 and max(times) < 4
    assert scene.label == action and scene.caption and scene.audio_caption
    for event in scene.events:
      if not event.on_screen:
        assert "off screen" in scene.audio_caption


@pytest.mark.parametrize("action", ["bounce", "talk", "spin"])
def test_events_do_not_depend_on_how_the_clip_is_rendered(action):
  one = make_scene(3, action=action)
  two = make_scene(3, action=action, size=32, fps=10)
  assert one.events == two.events and one.words == two.words
  assert np.array_equal(one.audio, two.audio)
  assert make_scene(3, action=action, sample_rate=8000).words == one.words


def test_other_lengths_and_rates():
  scene = make_scene(
    2, seconds=6.5, fps=12.5, size=48, sample_rate=22050, action="clap"
  )
  assert scene.frames.shape == (81, 48, 48, 3)
  assert len(scene.audio) == round(6.5 * 22050)
  for action in ACTIONS:
    short = make_scene(1, seconds=2, size=16, fps=5, action=action)
    assert all(0 <= event.time < 2 for event in short.events)


def test_a_bad_action_or_length_is_named():
  with pytest.raises(ValueError, match="action='explode' is not one of strike"):
    make_scene(0, action="explode")
  with pytest.raises(ValueError, match="0.5"):
    make_scene(0, seconds=0.5)


def test_onset_detection_finds_the_true_events():
  """The ceiling of the onset metric: what an ear finds in the true sound."""
  hit = true = found = 0
  for action in DISCRETE:
    for seed in range(4):
      scene = make_scene(seed, action=action, size=16, fps=5)
      heard = librosa.onset.onset_detect(
        y=scene.audio[:, 0], sr=RATE, hop_length=160, units="time"
      )
      # The first frames of a clip rise out of librosa's zero padding.
      heard, truth = heard[heard > 0.1], _seen(scene)
      hit += len(mir_eval.util.match_events(truth, heard, 0.05))
      true, found = true + len(truth), found + len(heard)
  assert 2 * hit / (true + found) > 0.93


@pytest.mark.parametrize("action", ["strike", "clap", "drip", "pluck", "walk"])
def test_sound_starts_at_the_event_and_peaks_soon(action):
  for seed in range(3):
    scene = make_scene(seed, action=action)
    level = np.abs(scene.audio[:, 0])
    first = _seen(scene)[0]
    start = round(first * RATE)
    before = level[max(0, start - 1600) : start]
    if len(scene.events) != len(_seen(scene)):
      continue
    after = level[start : start + 1600]
    assert before.max() < 0.01 < 10 * after.max()
    assert np.argmax(after) < 0.015 * RATE
    assert np.argmax(after > 3 * before.max()) < 0.002 * RATE


@pytest.mark.parametrize("action", ["strike", "shake", "clap", "bounce"])
def test_the_picture_moves_just_before_a_hit(action):
  near, far = [], []
  for seed in range(6):
    scene = make_scene(seed, action=action, size=32, fps=50)
    gray = scene.frames.astype(float).mean(axis=-1)
    motion = np.abs(np.diff(gray, axis=0)).mean(axis=(1, 2))
    middle = scene.frame_times[:-1] + 0.01
    wait = _seen(scene)[None, :] - middle[:, None]
    soon = ((wait > 0) & (wait < 0.08)).any(axis=1)
    near.append(motion[soon].mean())
    far.append(motion[~soon].mean())
  assert np.mean(near) > 2 * np.mean(far)


def test_spoken_words_have_their_times_and_the_mouth_moves_with_them():
  for seed in range(6):
    scene = make_scene(seed, action="talk")
    assert "speech" in scene.tags
    assert scene.transcript.split() == [word for word, _, _ in scene.words]
    assert 1 <= len(scene.words) <= 6
    assert scene.transcript in scene.audio_caption
    level = np.abs(scene.audio[:, 0])
    mouth = scene.frames[:, 38:56, 20:44].astype(float).mean(axis=-1)
    change = np.abs(np.diff(mouth, axis=0)).mean(axis=(1, 2))
    speaking = np.zeros(len(change), bool)
    for _, start, end in scene.words:
      assert 0 <= start < end < 4
      span = slice(int(start * RATE), int(end * RATE))
      assert level[span].max() > 0.05
      speaking[int(start * 25) : int(end * 25)] = True
    assert change[speaking].mean() > 2 * change[~speaking].mean()
    ends = [end for _, _, end in scene.words]
    assert all(e < s for e, (_, s, _) in zip(ends, scene.words[1:]))
