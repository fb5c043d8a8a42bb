"""Scenes as a whole: determinism, formats, onsets and speech."""

import dataclasses
import functools
import hashlib
import inspect
import os
import pathlib
import subprocess
import sys

import mir_eval
import numpy as np
import pytest

from data_pipelines.scenes import (
  ACTIONS,
  Scene,
  make_scene,
  render,
  speech,
  stage,
  synthesis,
)
from v2a_jax.basics import settings
from v2a_jax.evaluation import onset_detector

RATE = 16000
DISCRETE = [name for name, action in ACTIONS.items() if action.discrete]


def _seen(scene):
  return np.array([e.time for e in scene.events if e.on_screen])


def _digest(scene):
  digest = hashlib.sha256(scene.frames.tobytes() + scene.audio.tobytes())
  digest.update(repr((scene.events, scene.words, scene.tags)).encode())
  return digest.hexdigest()


@functools.cache
def _many():
  return [make_scene(seed, size=16, fps=5) for seed in range(150)]


# ---- determinism


def test_the_same_seed_gives_the_same_arrays():
  one, two = make_scene(7), make_scene(7)
  for field in dataclasses.fields(one):
    a, b = getattr(one, field.name), getattr(two, field.name)
    assert np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


def test_a_scene_does_not_depend_on_the_scenes_before_it():
  alone = make_scene(1, size=16)
  np.random.seed(3)
  for seed in (5, 0, 9):
    make_scene(seed, size=16)
  assert _digest(make_scene(1, size=16)) == _digest(alone)


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_a_scene_is_the_same_in_another_process(hash_seed):
  """Also where strings, and so sets of them, have another order."""
  code = (
    "import hashlib\n"
    "from data_pipelines.scenes import make_scene\n"
    f"{inspect.getsource(_digest)}\n"
    "print(*(_digest(make_scene(s, size=16, fps=5)) for s in range(12)))"
  )
  out = subprocess.run(
    [sys.executable, "-c", code],
    cwd=pathlib.Path(__file__).parents[2],
    env={**os.environ, "PYTHONHASHSEED": hash_seed},
    capture_output=True,
    text=True,
    check=True,
  ).stdout
  assert out.split() == [_digest(scene) for scene in _many()[:12]]


def test_other_seeds_give_other_clips():
  clips = [make_scene(seed, action="strike") for seed in range(5)]
  assert len({clip.audio.tobytes() for clip in clips}) == 5
  assert len({clip.frames.tobytes() for clip in clips}) == 5


def test_a_named_action_is_the_scene_of_its_seed():
  for scene in _many()[:10]:
    same = make_scene(scene.seed, size=16, fps=5, action=scene.label)
    assert _digest(same) == _digest(scene)


@pytest.mark.parametrize("action", ACTIONS)
def test_frame_rate_and_picture_size_change_nothing_else(action):
  one = make_scene(3, action=action, size=16, fps=25)
  two = make_scene(3, action=action, size=32, fps=10)
  assert one.events == two.events and one.words == two.words
  assert one.caption == two.caption and one.tags == two.tags
  assert np.array_equal(one.audio, two.audio)


def test_frames_show_the_scene_at_their_own_times():
  """Every fifth frame at 25 Hz is the frame at 5 Hz of the same time."""
  for action in ("bounce", "talk", "spin"):
    fast = make_scene(3, action=action, size=32, fps=25)
    slow = make_scene(3, action=action, size=32, fps=5)
    np.testing.assert_allclose(fast.frame_times[::5], slow.frame_times)
    error = np.abs(fast.frames[::5].astype(int) - slow.frames)
    assert error.max() <= 1


@pytest.mark.parametrize("action", sorted(set(ACTIONS) - {"bounce"}))
def test_the_sample_rate_changes_no_event_on_screen(action):
  events = [
    [
      event
      for event in make_scene(
        3, action=action, size=8, fps=5, sample_rate=rate
      ).events
      if event.on_screen
    ]
    for rate in (8000, 16000, 44100)
  ]
  assert events[0] == events[1] == events[2]


# ---- formats


def test_every_action_and_tag_comes_up():
  labels = [scene.label for scene in _many()]
  assert set(labels) == set(ACTIONS)
  # A sixth, within three standard deviations of a binomial.
  spread = 3 * np.sqrt(len(labels) * 5 / 36)
  assert abs(labels.count("talk") - len(labels) / 6) < spread
  assert {tag for scene in _many() for tag in scene.tags} == {
    "effects",
    "music",
    "speech",
  }
  assert any(not e.on_screen for scene in _many() for e in scene.events)


@pytest.mark.parametrize("action", ACTIONS)
def test_shapes_levels_and_events_are_in_bounds(action):
  for seed in range(4):
    scene = make_scene(seed, action=action)
    assert scene.frames.shape == (100, 64, 64, 3)
    assert scene.frames.dtype == np.uint8
    assert scene.audio.shape == (4 * RATE, 1)
    assert scene.audio.dtype == np.float32
    np.testing.assert_allclose(scene.frame_times, np.arange(100) / 25)
    times = [event.time for event in scene.events]
    assert times == sorted(times) and 1 <= len(_seen(scene))
    assert min(times) >= 0 and max(times) < 4
    assert all(0 < event.strength <= 1 for event in scene.events)
    assert scene.label == action and scene.caption and scene.audio_caption
    assert scene.tags == sorted(scene.tags) and scene.seed == seed


def test_other_durations_and_rates():
  scene = make_scene(
    2, seconds=6.5, fps=12.5, size=48, sample_rate=22050, action="clap"
  )
  assert scene.frames.shape == (81, 48, 48, 3)
  assert len(scene.audio) == round(6.5 * 22050)
  assert scene.seconds == 6.5
  for action in ACTIONS:
    short = make_scene(1, seconds=2, size=16, fps=5, action=action)
    assert all(0 <= event.time < 2 for event in short.events)


def test_an_unknown_action_is_refused_with_the_nearest():
  with pytest.raises(ValueError, match="action='explode' is not one of strike"):
    make_scene(0, action="explode")
  with pytest.raises(ValueError, match="did you mean bounce"):
    make_scene(0, action="bonce")


@pytest.mark.parametrize(
  "name, values",
  {
    "seconds": (0.5, 1.99, -4.0, float("nan"), float("inf")),
    "fps": (0, -25, 0.1, float("nan")),
    "size": (0, -64),
    "sample_rate": (0, -16000, 4000, float("inf")),
  }.items(),
)
def test_a_number_out_of_range_is_named(name, values):
  for value in values:
    with pytest.raises(ValueError, match=rf"{name}={value} is not in \["):
      make_scene(0, **{name: value})


@pytest.mark.parametrize(
  "cls",
  [
    Scene,
    render.Shape,
    render.Surface,
    speech.Phone,
    speech.Utterance,
    speech.Voice,
    stage.Action,
    stage.Event,
    stage.Stage,
    stage.Take,
    synthesis.Material,
  ],
)
def test_every_field_is_described(cls):
  described = settings.describe(cls)
  assert list(described) == [field.name for field in dataclasses.fields(cls)]
  assert all(described.values())


# ---- sound and picture


def test_onset_detection_finds_the_true_events():
  """The upper limit of the onset metric: F1 of a detector on the true sound."""
  matches = true = detected = 0
  for action in DISCRETE:
    for seed in range(4):
      scene = make_scene(seed, action=action, size=16, fps=5)
      onsets = onset_detector.onset_detect(
        y=scene.audio[:, 0], sr=RATE, hop_length=160, units="time"
      )
      # The first frames of a clip rise out of librosa's zero padding.
      onsets, truth = onsets[onsets > 0.1], _seen(scene)
      matches += len(mir_eval.util.match_events(truth, onsets, 0.05))
      true, detected = true + len(truth), detected + len(onsets)
  assert 2 * matches / (true + detected) > 0.93


def test_background_noise_is_faint_and_everywhere():
  for scene in _many():
    if any(not event.on_screen for event in scene.events):
      continue
    if scene.events[0].time < 0.2 or scene.label == "roll":
      continue
    before = scene.audio[: round(0.15 * RATE)]
    level = 20 * np.log10(np.sqrt(np.mean(before**2)))
    assert -73 < level < -61


def test_spoken_words_have_their_times_and_the_mouth_moves_with_them():
  for seed in range(6):
    scene = make_scene(seed, action="talk")
    assert "speech" in scene.tags
    assert scene.transcript.split() == [word for word, _, _ in scene.words]
    assert 1 <= len(scene.words) <= 6
    assert scene.transcript in scene.audio_caption
    np.testing.assert_allclose(
      _seen(scene), [start for _, start, _ in scene.words]
    )
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


def test_the_mouth_in_the_frames_opens_as_the_jaw_does():
  """Dark pixels inside the mouth against the loudness of the voice."""
  correlations = []
  for seed in range(12):
    scene = make_scene(seed, action="talk")
    if any(not event.on_screen for event in scene.events):
      continue
    mouth = scene.frames[:, 36:58, 20:44].astype(float).max(axis=-1)
    dark = (mouth < 45).sum(axis=(1, 2))
    level = np.sqrt(np.mean(scene.audio.reshape(100, 640) ** 2, axis=1))
    smooth = np.convolve(level, np.ones(3) / 3, "same")
    correlations.append(np.corrcoef(dark, smooth)[0, 1])
  assert len(correlations) > 5 and np.mean(correlations) > 0.4


def test_only_talking_scenes_have_words():
  for scene in _many():
    speaks = scene.label == "talk"
    assert bool(scene.words) == bool(scene.transcript) == speaks
    assert ("speech" in scene.tags) == speaks
