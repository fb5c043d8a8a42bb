"""The sound of every action against the times and strengths of its events."""

import functools

import numpy as np
import pytest

from data_pipelines.scenes import ACTIONS, make_scene
from tests.data_pipelines.test_scenes_contacts import event_times, play

RATE = 16000
DISCRETE = [name for name, action in ACTIONS.items() if action.discrete]
# Shaken grains, saw teeth, bubbles and phones have onsets within an event.
GRANULAR = {"shake", "saw", "pour", "talk"}


@functools.cache
def _quiet_scenes(action, number=12):
  """Returns scenes without a sound from off screen."""
  scenes, seed = [], 0
  while len(scenes) < number:
    scene = make_scene(seed, action=action, size=8, fps=5)
    seed += 1
    if all(event.on_screen for event in scene.events):
      scenes.append(scene)
  return scenes


def _energy(audio, window):
  """Returns the positions s, and the energies of the windows before and after.

  Positions are those with a whole window on either side.
  """
  n = round(window * RATE)
  total = np.concatenate([[0.0], np.cumsum(audio[:, 0].astype(float) ** 2)])
  s = np.arange(n, len(audio) - n)
  return s / RATE, total[s] - total[s - n], total[s + n] - total[s]


@pytest.mark.parametrize("action", [*DISCRETE, "pour"])
def test_the_sound_jumps_at_every_event(action):
  errors = []
  for scene in _quiet_scenes(action):
    times, before, after = _energy(scene.audio, 0.004)
    jump = 10 * np.log10(after / (before + 1e-9))
    events = np.array([event.time for event in scene.events])
    for event in events:
      if (np.abs(events - event) < 0.06).sum() > 1 or event < 0.03:
        continue  # two balls at once
      near = np.abs(times - event) < 0.025
      highest = np.argmax(jump[near])
      assert jump[near][highest] > 8
      errors.append(times[near][highest] - event)
  assert len(errors) >= len(_quiet_scenes(action))
  assert np.abs(errors).max() < 0.004
  assert abs(np.median(errors)) < 0.0006


@pytest.mark.parametrize("action", sorted(set(ACTIONS) - GRANULAR))
def test_the_sound_does_not_jump_between_events(action):
  for scene in _quiet_scenes(action):
    times, before, after = _energy(scene.audio, 0.01)
    floor = 1e-3 * np.quantile(after, 0.999)
    jump = 10 * np.log10((after + floor) / (before + floor))
    events = np.array([event.time for event in scene.events])
    far = np.abs(times[:, None] - events).min(axis=1) > 0.02
    assert jump[far].max() < 6


@pytest.mark.parametrize("action", DISCRETE)
def test_it_is_quiet_before_the_first_event(action):
  for scene in _quiet_scenes(action):
    audio = np.abs(scene.audio[:, 0])
    first = round(scene.events[0].time * RATE)
    quiet = 0.1 if action == "roll" else 0.03  # a ball is heard rolling
    assert audio[: first - 16].max(initial=0.0) < quiet * audio.max()


@pytest.mark.parametrize("action", sorted(set(DISCRETE) - {"bounce"}))
def test_stronger_events_are_louder(action):
  """Rank correlation of strength with the peak of the next 50 ms."""
  strengths, peaks = [], []
  for scene in _quiet_scenes(action):
    audio = np.abs(scene.audio[:, 0])
    for event in scene.events:
      start = round(event.time * RATE)
      strengths.append(event.strength)
      peaks.append(audio[start : start + 800].max())
  ranks = [np.argsort(np.argsort(x)) for x in (strengths, peaks)]
  assert np.corrcoef(*ranks)[0, 1] > 0.7


@pytest.mark.parametrize("action", ACTIONS)
def test_sound_neither_clips_nor_is_silent(action):
  for seed in range(20):
    audio = make_scene(seed, action=action, size=8, fps=5).audio
    peak = np.abs(audio).max()
    assert 0.1 < peak <= 10 ** (-1.5 / 20) + 1e-6
    # A clipped sound stays at its peak.
    assert (np.abs(audio) > 0.999 * peak).sum() < 4
    assert np.isfinite(audio).all()
    assert abs(audio.mean()) < 0.01


def test_the_pitch_of_a_glass_rises_while_it_fills():
  """The air column over the liquid grows shorter."""
  rises = []
  for seed in range(12):
    take = play("pour", seed)
    start = take.events[0].time
    halves = [
      take.audio[round((start + a) * RATE) : round((start + b) * RATE)]
      for a, b in ((0.02, 0.3), (0.3, 0.58))
    ]
    # Bubbles lie below the hiss of the stream.
    centres = []
    for half in halves:
      power = np.abs(np.fft.rfft(half)) ** 2
      frequencies = np.fft.rfftfreq(len(half), 1 / RATE)
      band = (frequencies > 300) & (frequencies < 1600)
      centres.append(np.average(frequencies[band], weights=power[band]))
    rises.append(centres[1] - centres[0])
  assert np.mean(rises) > 50 and np.mean(np.array(rises) > 0) > 0.6


@pytest.mark.parametrize("action", ACTIONS)
def test_longer_clips_have_more_events(action):
  short, long = (
    np.mean([len(play(action, s, seconds=n).events) for s in range(12)])
    for n in (3.0, 9.0)
  )
  # Ridges and falls do not grow with the clip.
  assert long >= short
  if action in ("strike", "drum", "clap", "walk", "drip", "shake", "pluck"):
    assert 2 < long / short < 4


def test_the_strings_of_a_lyre_play_a_major_chord():
  """Pitches of a string are found as spectral peaks of its notes."""
  right = total = 0
  for seed in range(12):
    events = event_times("pluck", seed)
    take = play("pluck", seed, events)
    strings = np.round((0.72 - 0.05 - take.shapes[-1].y) / 0.16).astype(int)
    pitches = []
    for event in events:
      start = round((event + 0.02) * RATE)
      note = take.audio[start : start + 4000]
      level = np.abs(np.fft.rfft(note * np.hanning(len(note)), 4 * RATE))
      level[: 4 * 120] = level[4 * 460 :] = 0  # four bins per Hz
      pitches.append(np.argmax(level) / 4)
    semitones = 12 * np.log2(pitches) - np.array([0, 4, 7, 12])[strings]
    # All notes have the root of the lyre in common.
    right += (np.abs(semitones - np.median(semitones)) < 0.5).sum()
    total += len(events)
    root = 2 ** (np.median(semitones) / 12)
    assert 130 * 0.97 < root < 220 * 1.03
  assert right > 0.8 * total
