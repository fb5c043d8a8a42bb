"""The helpers of actions: hits, materials, colours and number words."""

import dataclasses

import numpy as np
import pytest

from data_pipelines.scenes import stage as stage_lib
from data_pipelines.scenes import synthesis

RATE = 16000


def _stage(seed=0, *, seconds=4.0, light=True, rate=RATE):
  return stage_lib.Stage(
    rng=np.random.default_rng(seed),
    times=np.zeros(1),
    seconds=seconds,
    rate=rate,
    samples=round(seconds * rate),
    light=light,
    floor=0.85,
  )


@pytest.mark.parametrize("seconds", [2.0, 4.0, 12.0])
def test_the_number_of_hits_grows_with_the_clip(seconds):
  numbers = []
  for seed in range(200):
    times, strengths = _stage(seed, seconds=seconds).hits(2, 6)
    assert len(times) == len(strengths)
    assert times[0] >= 0.3 and times[-1] <= seconds - 0.15
    assert len(times) < 2 or np.diff(times).min() >= 0.32 - 1e-9
    assert 0.5 <= strengths.min() and strengths.max() <= 1.0
    numbers.append(len(times))
  assert min(numbers) >= 1
  assert abs(np.mean(numbers) - seconds) < 0.15 * seconds  # 4 in 4 s
  if seconds == 4.0:
    assert set(numbers) == {2, 3, 4, 5, 6}


def test_the_first_hit_of_a_short_clip_comes_early():
  firsts = [
    _stage(seed, seconds=2.0).hits(4, 4, first=5.0)[0][0] for seed in range(50)
  ]
  assert min(firsts) < 0.8


def test_outlines_contrast_with_the_background():
  assert max(_stage(light=True).ink) < 0.1
  assert min(_stage(light=False).ink) > 0.8


def test_a_material_keeps_its_texture_and_nearly_its_colour():
  for material in synthesis.MATERIALS.values():
    ratios = []
    for seed in range(20):
      surface = _stage(seed).surface(material)
      assert surface.texture == material.name
      assert surface.outline == _stage().ink
      assert surface.alpha == (0.8 if material.name == "glass" else 1)
      ratios.append(np.array(surface.colour) / material.colour)
    ratios = np.array(ratios)
    assert 0.88 <= ratios.min() < 0.93 and 1.07 < ratios.max() <= 1.12
    assert len(np.unique(ratios, axis=0)) == 20


def test_paint_is_saturated_and_may_have_no_outline():
  for seed in range(50):
    stage = _stage(seed)
    surface = stage.paint()
    assert len(surface.colour) == 3
    assert 0.1 <= min(surface.colour) and max(surface.colour) <= 0.95
    assert surface.texture == "plain" and surface.outline == stage.ink
    assert stage.paint(outline=False).outline is None
  dimmed = [min(_stage(seed).paint().colour) for seed in range(50)]
  assert max(dimmed) <= 0.4 * 0.95 + 1e-9


def test_materials_are_chosen_with_equal_chances():
  stage = _stage()
  names = [stage.choose("wood", "metal").name for _ in range(400)]
  assert set(names) == {"wood", "metal"}
  assert 160 < names.count("wood") < 240


def test_a_harder_hit_is_louder():
  strengths = np.linspace(0, 1, 11)
  peaks = stage_lib.loudness(strengths)
  assert peaks[0] == 0 and (np.diff(peaks) > 0).all() and peaks[-1] <= 1


def test_numbers_are_spelt_out_up_to_ten():
  assert stage_lib.counted(0, "hit") == "no hits"
  assert stage_lib.counted(1, "hit") == "one hit"
  assert stage_lib.counted(10, "hit") == "ten hits"
  assert stage_lib.counted(11, "hit") == "11 hits"
  assert (
    stage_lib.counted(1, "shake of it", "shakes of it") == "one shake of it"
  )
  assert stage_lib.counted(2, "shake of it", "shakes of it") == (
    "two shakes of it"
  )


def test_the_sound_of_hits_is_the_sum_of_the_single_hits():
  """The same random numbers, hit by hit, at the nearest samples."""
  hits, strengths = np.array([0.5, 0.62]), np.array([0.5, 1.0])
  metal = synthesis.MATERIALS["metal"]
  sound = _stage(4).struck(hits, strengths, metal, 0.3)
  rng = np.random.default_rng(4)
  expected = np.zeros(4 * RATE)
  for hit, strength in zip(hits, strengths):
    one = synthesis.strike(rng, metal, 0.3, strength=strength, rate=RATE)
    one = one * stage_lib.loudness(strength) / np.abs(one).max()
    start = round(hit * RATE)
    expected[start : start + len(one)] += one
  np.testing.assert_allclose(sound, expected, atol=1e-6)


def test_a_hit_is_an_event_on_screen():
  events = stage_lib.Event.series(
    np.array([0.5, 1.5]), np.array([0.6, 1.0]), "strike", "wood"
  )
  assert [dataclasses.astuple(event) for event in events] == [
    (0.5, "strike", "wood", True, 0.6),
    (1.5, "strike", "wood", True, 1.0),
  ]
