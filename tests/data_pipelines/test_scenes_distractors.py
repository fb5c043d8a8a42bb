"""Distractors: silent objects are seen only, off-screen sounds heard only."""

import functools

import numpy as np
import pytest
from scipy import signal

from data_pipelines.scenes import distractors, make_scene, render
from data_pipelines.scenes.stage import Event, Stage, Take
from data_pipelines.scenes.synthesis import MATERIALS

RATE = 16000
SECONDS = 4.0
TIMES = np.arange(50) / 12.5
AMBIENCES = ("hum", "rain", "wind", "traffic")
NUMBER = 400


def _take(tags=("effects",)):
  surface = render.Surface((0.5, 0.5, 0.5))
  return Take(
    [render.disc(0.5, 0.5, 0.2, surface)],
    np.zeros(round(SECONDS * RATE)),
    [Event(1.0, "strike", "wood")],
    "a ball",
    "a hit",
    tags,
  )


def _add(seed, take):
  stage = Stage(
    rng=np.random.default_rng(seed),
    times=TIMES,
    seconds=SECONDS,
    rate=RATE,
    samples=round(SECONDS * RATE),
    light=True,
    floor=0.85,
  )
  return distractors.add(stage, take)


@functools.cache
def _takes():
  return [_add(seed, _take()) for seed in range(NUMBER)]


def _off_screen(take):
  return [event for event in take.events if not event.on_screen]


def _level(sound):
  return 20 * np.log10(np.sqrt(np.mean(sound**2)))


def test_distractors_are_as_frequent_as_declared():
  takes = _takes()
  movers = sum(len(take.shapes) > 1 for take in takes)
  kinds = [{event.kind for event in _off_screen(take)} for take in takes]
  ambiences = sum(bool(kind & set(AMBIENCES)) for kind in kinds)
  knocks = sum("knock" in kind for kind in kinds)
  for number, share in (
    (movers, distractors.MOVER_SHARE),
    (ambiences, distractors.AMBIENCE_SHARE),
    (knocks, distractors.KNOCK_SHARE),
  ):
    # Three standard deviations of a binomial.
    spread = 3 * np.sqrt(NUMBER * share * (1 - share))
    assert abs(number - NUMBER * share) < spread


def test_the_action_itself_is_kept():
  for take in _takes():
    assert take.shapes[-1] == _take().shapes[0]
    assert _take().events[0] in take.events
    assert take.caption.startswith("a ball")
    assert take.audio_caption.startswith("a hit")
    assert take.words == ()


def test_a_silent_object_is_seen_and_not_heard():
  kinds = set()
  for take in _takes():
    objects = take.shapes[:-1]  # behind the action
    assert bool(objects) == ("behind" in take.caption)
    assert "behind" not in take.audio_caption
    if objects:
      kinds.add(take.caption.split()[3])
      assert not all(shape.static for shape in objects)
      if not _off_screen(take):
        assert not take.audio.any() and len(take.events) == 1
  assert kinds == {"lamp", "balloon", "cloud"}


def test_a_silent_object_moves_slowly():
  """No faster than a picture width a second, but where it starts anew."""
  for take in _takes():
    for shape in take.shapes[:-1]:
      for value in (shape.x, shape.y):
        steps = np.abs(np.diff(np.broadcast_to(value, TIMES.shape))) * 12.5
        assert (steps > 1).mean() < 0.1


def test_a_talking_face_gets_no_silent_object():
  for seed in range(60):
    take = _add(seed, _take(("speech",)))
    assert len(take.shapes) == 1 and take.caption == "a ball"


def test_an_off_screen_sound_is_heard_and_not_seen():
  for take in _takes():
    events = _off_screen(take)
    assert bool(events) == take.audio.any()
    assert bool(events) == ("off screen" in take.audio_caption)
    assert "off screen" not in take.caption
    for event in events:
      name = event.material if event.kind == "knock" else event.kind
      assert name in take.audio_caption


def test_the_frames_are_the_same_with_and_without_an_off_screen_sound():
  checked = 0
  for take in _takes():
    if not _off_screen(take) or len(take.shapes) > 1:
      continue
    background = np.full((16, 16, 3), 0.5)
    with_sound, without = (
      render.render(shapes, background, frames=len(TIMES))
      for shapes in (take.shapes, _take().shapes)
    )
    np.testing.assert_array_equal(with_sound, without)
    checked += 1
  assert checked > 20


def test_ambience_lasts_from_the_first_sample_to_the_last():
  for take in _takes():
    for event in _off_screen(take):
      if event.kind == "knock":
        continue
      assert event.time == 0.0 and event.material == "air"
      quarters = [_level(part) for part in np.split(take.audio, 4)]
      assert np.ptp(quarters) < 8  # wind sways by 40 %
      assert np.abs(take.audio[:400]).max() > 0
      np.testing.assert_allclose(
        np.sqrt(np.mean(take.audio**2)), event.strength, rtol=1e-6
      )
      assert -46 <= _level(take.audio) <= -38


def test_ambiences_sound_like_their_names():
  spectra = {}
  for take in _takes():
    for event in _off_screen(take):
      frequencies, power = signal.welch(take.audio, RATE, nperseg=4096)
      spectra.setdefault(event.kind, (frequencies, power))
  median = {}
  for kind in AMBIENCES:
    frequencies, power = spectra[kind]
    share = np.cumsum(power) / power.sum()
    median[kind] = frequencies[np.searchsorted(share, 0.5)]
  assert median["traffic"] < median["wind"] < 1000 < median["rain"]
  # A hum is harmonic: five tones stand out.
  frequencies, power = spectra["hum"]
  peaks, _ = signal.find_peaks(power, height=1e-3 * power.max())
  tones = frequencies[peaks][:5]
  assert 80 - 4 <= tones[0] <= 140 + 4
  np.testing.assert_allclose(tones, tones[0] * np.arange(1, 6), rtol=0.05)


def test_knocks_are_soft_and_at_their_times():
  checked = 0
  for take in _takes():
    events = [e for e in _off_screen(take) if e.kind == "knock"]
    if not events:
      continue
    assert 1 <= len(events) <= 2
    assert all(event.material in MATERIALS for event in events)
    first, level = events[0], np.abs(take.audio)
    start = round(first.time * RATE)
    assert not level[:start].any() and level[start : start + 160].max() > 0.05
    for event in events:
      assert 0.2 <= event.time <= SECONDS - 0.4
      assert 0.08 <= event.strength <= 0.15
      start = round(event.time * RATE)
      peak = level[start : start + 200].max()
      assert 0.5 * event.strength < peak < 0.3
    checked += 1
  assert checked > 8


@pytest.mark.parametrize("tags", [("music",), ("speech",), ("effects",)])
def test_an_off_screen_sound_adds_the_tag_of_effects(tags):
  for seed in range(60):
    take = _add(seed, _take(tags))
    expected = {*tags, "effects"} if _off_screen(take) else set(tags)
    assert set(take.tags) == expected and len(take.tags) == len(expected)


def test_whole_scenes_keep_the_off_screen_apart():
  seen = set()
  for seed in range(80):
    scene = make_scene(seed, size=8, fps=5)
    off = [event for event in scene.events if not event.on_screen]
    assert bool(off) == ("off screen" in scene.audio_caption)
    assert not off or "effects" in scene.tags
    assert "behind" not in scene.caption or "speech" not in scene.tags
    seen.add(bool(off))
  assert seen == {True, False}
