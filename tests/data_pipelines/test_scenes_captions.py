"""Captions and tags of every action against its events and its sound."""

import librosa
import numpy as np
import pytest

from data_pipelines.scenes import ACTIONS
from data_pipelines.scenes.synthesis import MATERIALS
from tests.data_pipelines.test_scenes_contacts import (
  distances,
  event_times,
  play,
)

RATE = 16000
SEEDS = range(6)
NUMBERS = "no one two three four five six seven eight nine ten".split()

# The noun of each action's sound, and the kind of its events.
NOUNS = {
  "strike": ("hit", "strike"),
  "drum": ("drum stroke", "strike"),
  "bounce": ("bounce", "bounce"),
  "clap": ("hand clap", "clap"),
  "walk": ("footstep", "step"),
  "drip": ("water drip", "drip"),
  "roll": ("bump", "bump"),
  "spin": ("click", "click"),
  "saw": ("stroke", "scrape"),
  "shake": ("shake", "shake"),
  "pluck": ("plucked string note", "pluck"),
}


@pytest.mark.parametrize("action", NOUNS)
def test_the_audio_caption_counts_the_events(action):
  noun, kind = NOUNS[action]
  for seed in range(10):
    take = play(action, seed)
    assert {event.kind for event in take.events} == {kind}
    number = len(take.events)
    word = NUMBERS[number] if number < len(NUMBERS) else str(number)
    plural = "" if number == 1 else "s"
    assert f"{word} {noun}{plural}" in take.audio_caption


def test_a_collision_is_with_a_wall_or_with_another_ball():
  for seed in range(10):
    events = event_times("collide", seed)
    take = play("collide", seed, events)
    gaps = np.abs(distances("collide", take))
    where = gaps.argmin(axis=0)
    walls = (where == 0) | (where == len(gaps) - 1)
    kinds = [event.kind for event in take.events]
    assert kinds == ["wall" if wall else "collide" for wall in walls]
    assert f"{NUMBERS[len(gaps) - 1]} " in take.caption
    assert f"{len(events)} knock" in take.audio_caption or (
      f"{NUMBERS[len(events)]} knock" in take.audio_caption
    )


@pytest.mark.parametrize("action", sorted({*NOUNS, "collide"}))
def test_captions_name_the_material_of_the_events(action):
  for seed in range(10):
    take = play(action, seed)
    for event in take.events:
      if event.material not in MATERIALS or action == "drum":
        continue
      adjective = MATERIALS[event.material].adjective
      assert adjective in take.caption
      assert (
        event.material in take.audio_caption or adjective in take.audio_caption
      )


def test_a_drum_stroke_names_the_skin_or_the_metal_that_moves():
  for seed in SEEDS:
    events = event_times("drum", seed)
    take = play("drum", seed, events)
    which = np.abs(distances("drum", take)).argmin(axis=0)
    materials = [event.material for event in take.events]
    assert materials == [("skin", "metal")[w] for w in which]


def test_pouring_once_or_twice_is_said():
  for seed in range(10):
    take = play("pour", seed)
    word = {1: "once", 2: "twice"}[len(take.events)]
    assert word in take.audio_caption


@pytest.mark.parametrize("action", ACTIONS)
def test_tags_agree_with_the_content(action):
  musical = {"drum": True, "pluck": True, "shake": None}
  for seed in range(8):
    take = play(action, seed)
    assert ("speech" in take.tags) == (action == "talk") == bool(take.words)
    expected = musical.get(action, False)
    assert expected is None or ("music" in take.tags) == expected
    assert ("effects" in take.tags) == (action not in ("talk", "pluck"))
    assert len(set(take.tags)) == len(take.tags)


def test_a_child_has_a_smaller_head_and_a_higher_voice():
  pitches, radii, children = [], [], []
  for seed in range(24):
    take = play("talk", seed)
    voiced = take.audio[round(take.words[0][1] * RATE) :][: 2 * RATE]
    pitch = librosa.yin(voiced, fmin=70, fmax=400, sr=RATE)
    loud = librosa.feature.rms(y=voiced)[0] > 0.05
    pitches.append(np.median(pitch[loud]))
    radii.append(float(take.shapes[1].rx))
    children.append("child" in take.caption)
    assert ("child" in take.audio_caption) == children[-1]
  child = np.array(children)
  assert 3 <= child.sum() <= 15
  assert np.max(np.array(radii)[child]) < np.min(np.array(radii)[~child])
  assert np.corrcoef(np.log(pitches), radii)[0, 1] < -0.8
  assert np.median(np.array(pitches)[child]) > 180
